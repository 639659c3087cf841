"""What users and events take in a store: bytes of a state, and bytes of the store a row."""

from __future__ import annotations

import random
import tempfile
from collections import defaultdict
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import mean
from typing import Any

import apsw
import redis

from benchmarks.state_load import START_US, event
from benchmarks.state_peers import BOUNDS, STORE_NAME, redis_server, redis_store, sqlite
from ebbing.interest.forgetting import ForgettingParameters
from server.assessing import ReleaseAssess
from server.rpc.watching import reason_bytes
from server.solving import solved_alarms
from server.state.store import Store

__all__ = ["capacity", "redis_bytes", "sqlite_bytes"]

LENGTHS = ((10, 5, 2000), (50, 15, 400), (200, 30, 100), (1000, 60, 40), (5000, 128, 10))
"""Events and interests of a user, and how many users are looked at."""
BETWEEN_US = 3 * 3600 * 10**6
"""Time between events of a user."""
STEPS = 10
"""Groups in which events come, each with some of all users."""
ROW_BYTES = 2 * len("user-00000000") + 40
"""Of a user besides what is sealed: the name, in its row and its index, and the alarm."""
OF_USERS = (b"user", b"line", b"newest", b"oldest", b"owners", b"due")
OF_EVENTS = (b"events", b"engagements", b"ids", b"log")
"""Kinds of keys in Redis."""


def capacity(given: str | None) -> dict[str, Any]:
    """Bytes of users of many events, with what was told of them.

    Args:
        given: a Redis, see ``redis_server``; None: SQLite.
    """
    found: dict[str, Any] = {"max_user_bytes": BOUNDS.max_bytes}
    for count, interests, users in LENGTHS:
        with ExitStack() as stack:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ebbing-state-")))
            store: Store
            if given:
                url = stack.enter_context(redis_server(given, place))
                store = stack.enter_context(closing(redis_store(url)))
            else:
                store = stack.enter_context(closing(sqlite(place / "state.db")))
            _load(store, users, count, interests)
            found[f"{count} events, {interests} interests"] = (
                redis_bytes(url) if given else sqlite_bytes(place / "state.db")
            )
    return found


def _load(store: Store, users: int, count: int, interests: int) -> None:
    """Give users their events, and tell of them as the watch does."""
    chance = random.Random(count)
    for first in range(0, count, count // STEPS):
        for user in range(users):
            numbers = range(first, first + count // STEPS)
            topics = (int(interests * chance.random() ** 1.5) for _ in numbers)
            store.append(
                [
                    event(
                        chance,
                        user * 10**6 + n,
                        user,
                        START_US + n * BETWEEN_US,
                        ((f"department/topic-{topic:03}", 1.0),),
                    )
                    for n, topic in zip(numbers, topics, strict=True)
                ]
            )
    now_us = START_US + count * BETWEEN_US
    assess = ReleaseAssess(ForgettingParameters.builtin(), reason_bytes)
    while alarms := store.alarms.due(now_us, 100, 100):
        store.alarms.settle(solved_alarms(alarms, assess, now_us), now_us)


def sqlite_bytes(path: Path) -> dict[str, Any]:
    """Bytes of a state file, those of indexes with their tables' own."""
    with closing(apsw.Connection(str(path))) as db:
        taken = dict(
            db.execute(
                "SELECT tbl_name, sum(pgsize) FROM dbstat JOIN sqlite_schema USING (name)"
                " GROUP BY tbl_name"
            ).fetchall()
        )
        values = db.execute("SELECT length(state), length(told) FROM users").fetchall()
        ((events, transitions),) = db.execute(
            "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM transitions)"
        )
    found = {
        **_kept(values),
        "events": events,
        "file_bytes_per_user": round(taken["users"] / len(values)),
        "file_bytes_per_event": round(taken["events"] / events),
    }
    if transitions:
        found["file_bytes_per_transition"] = round(taken["transitions"] / transitions)
    return found


def redis_bytes(url: str) -> dict[str, Any]:
    """Memory of a store's keys, as ``MEMORY USAGE`` tells it."""
    kinds: dict[bytes, list[bytes]] = defaultdict(list)
    with closing(redis.Redis.from_url(url)) as client:
        for key in client.scan_iter(match=f"{{{STORE_NAME}:[0-9]*", count=1000):
            kinds[key.partition(b"}")[2].partition(b":")[0]].append(key)
        with client.pipeline(transaction=False) as pipeline:

            def told(kinds_asked: tuple[bytes, ...], *words: Any) -> list[Any]:
                for kind in kinds_asked:
                    for key in kinds[kind]:
                        pipeline.execute_command(words[0], key, *words[1:])
                return pipeline.execute()

            usage = ("MEMORY USAGE", "SAMPLES", 0)
            of_users, of_events = sum(told(OF_USERS, *usage)), sum(told(OF_EVENTS, *usage))
            states = told((b"user",), "HSTRLEN", "state")
            values = zip(states, told((b"user",), "HSTRLEN", "told"), strict=True)
            events = sum(told((b"log",), "XLEN"))
    return {
        **_kept([*values]),
        "events": events,
        "memory_bytes_per_user": round(of_users / len(states)),
        "memory_bytes_per_event": round(of_events / events),
    }


def _kept(values: list[Any]) -> dict[str, int]:
    """What is kept of users, by the bytes of state and of what was told of each."""
    states, told = zip(*values, strict=True)
    return {
        "users": len(values),
        "state_bytes": round(mean(states)),
        "told_bytes": round(mean(told)),
        "kept_bytes": round(mean(map(sum, values))) + ROW_BYTES,
        "most_kept_bytes": max(map(sum, values)) + ROW_BYTES,
    }
