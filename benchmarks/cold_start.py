"""What a newcomer of whom only relations are known is offered, beside what is popular.

The gateway's own pipeline makes two slates over a store that holds a real log with relations: one
for the newcomer, from their relations, and one for nobody in particular, from what is popular of
late. A hit is a slate with an item that the newcomer engages. Hit rates are paired by user; the
interval of their difference is a bootstrap over users.

Held out: all events of some of the users who know somebody are hidden, and they are asked about at
the end of the log. Newcomers: at several moments those who are new until the next one are asked
about before their first event, from what had happened by then.

Of each, the first parts were for choosing how friends are weighed; the others are the result.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry

from benchmarks.record import circumstances, keep
from ebbing.client import catalog_item
from ebbing.events import DEFAULT_EVENT_WEIGHTS, EventType
from ebbing.history import item_key
from ebbing.interest.forgetting import ForgettingParameters
from ebbing.progress import Reporter
from ebbing.v1 import catalog_service_pb2 as pb
from server.catalog import Catalog, item_record, relation_record
from server.metrics import Metrics
from server.recommend.pipeline import Recommender
from server.recommend.rules import Rules
from server.recommend.shelves import Shelves
from server.recommend.slates import RecommenderConfig, SlateRequest
from server.recommend.social import Social
from server.recommend.sources import Sources
from server.state.sqlite import SqliteStore
from server.state.store import Interaction
from server.users import Users
from tests.harness.state import records
from trainer.data.log import EventLog, read_log

SHARES = tuple(np.arange(0.3, 0.95, 0.05))
"""Shares of the events after which newcomers are asked about."""
PARTS = 6
"""Parts that the users who know somebody are hidden in, one after another."""
SIZE = 10
DRAWS = 2000
NOBODY = "nobody in particular"


class NoModels:
    """A release that is never asked: newcomers have no history."""

    def serving(self, user_id: str, release: int = 0) -> Any:
        return SimpleNamespace(release=1, forgetting=ForgettingParameters.builtin())

    def shadowing(self, user_id: str) -> None:
        return None

    def best(self, release: int, user: object) -> list[Any]:
        return []

    def observe(self, release: int, observation: object) -> None:
        raise AssertionError("no model was to be asked")


def interactions(log: EventLog, order: np.ndarray) -> Iterator[Interaction]:
    """Events of a log in an order, as a store takes them."""
    for number in order.tolist():
        item = log.item_ids[log.items[number]]
        kind = EventType(int(log.types[number]))
        yield Interaction(
            event_id=f"e{number}",
            user_id=log.user_ids[log.users[number]],
            item_key=item_key(item),
            event_type=int(kind),
            time_us=round(float(log.times[number]) * 1e6),
            weight=DEFAULT_EVENT_WEIGHTS[kind],
            interests=log.interests[log.items[number]],
            body=b"",
        )


class World:
    """The gateway's pipeline over a store that holds what is written so far."""

    def __init__(self, log: EventLog, store: SqliteStore, writer: ThreadPoolExecutor) -> None:
        self._log = log
        self._store = store
        catalog = Catalog(store, writer)
        shelves = Shelves(store, catalog, time.monotonic, 1e9)
        self._recommender = Recommender(
            store,
            Users(store, 128),
            catalog,
            NoModels(),
            Sources(store, catalog, shelves, Social(store)),
            NoModels(),
            Rules(),
            Metrics(CollectorRegistry()),
            time.monotonic,
            RecommenderConfig(),
        )
        items = zip(log.item_ids, log.interests, strict=True)
        for page in _pages([item_record(catalog_item(i, dict(about))) for i, about in items], 1000):
            store.write_items(page)
        names = log.user_ids
        told = [
            relation_record(pb.Relation(user_id=names[one], other_user_id=names[other]))
            for one, other in log.relations.tolist()
            if one != other
        ]
        for page in _pages(told, 1000):
            store.write_relations(page)

    def write(self, events: np.ndarray) -> None:
        """Write events of the log, by number."""
        for page in _pages(list(interactions(self._log, events)), 500):
            self._store.append(page)

    async def hits(self, user: int, at_s: float) -> dict[str, float]:
        """Whether the slate of a newcomer, and one for nobody, has an item the newcomer engages."""
        log, at_us = self._log, round(at_s * 1e6)
        mine = slice(log.offsets[user], log.offsets[user + 1])
        wanted = {log.item_ids[item] for item in log.items[mine].tolist()}
        hits = {}
        for name, who in (("social", log.user_ids[user]), ("popular", NOBODY)):
            request = SlateRequest(who, SIZE, at_us, False, frozenset(), 0, None)
            slate = await self._recommender.recommend(request, at_us, 5.0)
            ids = {scored.candidate.item.item_id for scored in slate.items}
            hits[name] = float(bool(ids & wanted))
        return hits


def friends_of(log: EventLog) -> dict[int, list[int]]:
    """Whom each user knows."""
    friends: dict[int, list[int]] = {}
    for one, other in log.relations.tolist():
        if one != other:
            friends.setdefault(one, []).append(other)
    return friends


async def newcomers(log: EventLog, folder: Path) -> list[dict[str, float]]:
    """Those who were new at several moments, asked about before their first event, a row each."""
    order = np.argsort(log.times, kind="stable")
    friends = friends_of(log)
    first = np.full(len(log.user_ids), np.inf)
    np.minimum.at(first, log.users, log.times)
    # Of a moment, all events are of it or none: times may be days.
    sorted_times = log.times[order]
    moments = sorted_times[[round(share * len(log)) for share in SHARES]]
    edges = np.searchsorted(sorted_times, moments).tolist()
    rows: list[dict[str, float]] = []
    with (
        closing(SqliteStore(folder / "newcomers.db", records())) as store,
        ThreadPoolExecutor(1) as writer,
        Reporter().stage("newcomers", len(edges) - 1, "moments") as stage,
    ):
        world, written = World(log, store, writer), 0
        for number, (edge, until) in enumerate(pairwise(edges)):
            world.write(order[written:edge])
            written = edge
            at, end = float(sorted_times[edge]), float(sorted_times[until])
            new = np.flatnonzero((first >= at) & (first < end)).tolist()
            able = [u for u in new if any(first[friend] < at for friend in friends.get(u, ()))]
            rows += [{"part": number, **await world.hits(user, at)} for user in able]
            stage.advance(1, newcomers=len(rows))
    return rows


async def held_out(log: EventLog, folder: Path) -> list[dict[str, float]]:
    """Those whose events are hidden, asked about at the end of the log, a row each."""
    friends = friends_of(log)
    active = np.diff(log.offsets) > 0
    able = [u for u in sorted(friends) if active[u] and any(active[f] for f in friends[u])]
    parts = np.array_split(np.random.default_rng(7).permutation(able), PARTS)
    end = float(log.times.max())
    rows: list[dict[str, float]] = []
    with Reporter().stage("held out", PARTS, "parts") as stage:
        for number, hidden in enumerate(parts):
            kept = np.flatnonzero(~np.isin(log.users, hidden))
            with (
                closing(SqliteStore(folder / f"held-out-{number}.db", records())) as store,
                ThreadPoolExecutor(1) as writer,
            ):
                world = World(log, store, writer)
                world.write(kept[np.argsort(log.times[kept], kind="stable")])
                gone = set(hidden.tolist())
                asked = [
                    user
                    for user in hidden.tolist()
                    if any(active[friend] and friend not in gone for friend in friends[user])
                ]
                rows += [{"part": number, **await world.hits(user, end)} for user in asked]
            stage.advance(1, users=len(rows))
    return rows


def _pages(rows: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def summary(rows: list[dict[str, float]]) -> dict[str, float]:
    """Hit rates and the interval of their difference."""
    social, popular = (np.array([row[name] for row in rows]) for name in ("social", "popular"))
    random = np.random.default_rng(7)
    draws = random.integers(len(rows), size=(DRAWS, len(rows)))
    low, high = np.percentile((social - popular)[draws].mean(axis=1), [2.5, 97.5])
    return {
        "newcomers": len(rows),
        "social_hit_rate_at_10": round(float(social.mean()), 4),
        "popular_hit_rate_at_10": round(float(popular.mean()), 4),
        "difference": round(float((social - popular).mean()), 4),
        "low_95": round(float(low), 4),
        "high_95": round(float(high), 4),
    }


def main() -> None:
    """Measure, print, and keep if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder of a log with relations")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    log = read_log(options.data)
    result: dict[str, Any] = {**circumstances(), "data": options.data.resolve().name}
    for name, measure, first in (
        ("held_out", held_out, PARTS // 2),
        ("newcomers", newcomers, len(SHARES) // 2),
    ):
        with tempfile.TemporaryDirectory() as folder:
            rows = asyncio.run(measure(log, Path(folder)))
        result[name] = {
            "choosing": summary([row for row in rows if row["part"] < first]),
            "result": summary([row for row in rows if row["part"] >= first]),
        }
    print(result)
    keep(result, options.out)


if __name__ == "__main__":
    main()
