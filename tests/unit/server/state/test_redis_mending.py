"""Users of whom there are events that no state counts; how that comes about: ``tests/faults``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import count

import pytest

from server.state.redis import PARTITIONS, RedisStore
from server.state.redis_keys import Keys, Place
from server.state.store import WriteOutcome
from tests.harness.redis import RedisServer
from tests.harness.state import records
from tests.suites.store_suite import (
    DAY_US,
    START_US,
    assert_same_traces,
    deed,
    traces_in,
    traces_of,
)

_names = count()
EVENTS = [deed(f"e{n}", days=n, weight=float(n != 1)) for n in range(5)]


@pytest.fixture
def name() -> str:
    return f"mending-{next(_names)}"


@pytest.fixture
def store(redis_server: RedisServer, name: str) -> Iterator[RedisStore]:
    with closing(RedisStore(f"{redis_server.url}?name={name}", records())) as opened:
        opened.append(EVENTS)
        yield opened


@pytest.fixture
def ann(name: str) -> Place:
    """Where all of the user is."""
    return Keys(name, PARTITIONS).of("ann")


def undo(redis_server: RedisServer, ann: Place, kept: bytes) -> None:
    """Put an older state back, as where a server has forgotten the step that led to a newer one."""
    redis_server.client.restore(ann("user", "ann"), 0, kept, replace=True)


def logged(store: RedisStore) -> list[str]:
    return [one.event_id for one in store.log("", 100)[0]]


@pytest.mark.parametrize("pruned", [0, 2])
def test_events_that_no_state_counts_are_forgotten_before_anything_is_appended(
    redis_server: RedisServer, store: RedisStore, ann: Place, pruned: int
) -> None:
    assert store.prune_events(START_US + pruned * DAY_US, 10) == pruned
    kept = redis_server.client.dump(ann("user", "ann"))
    undone = [deed("x"), deed("y", weight=0.0), deed("z", days=9)]
    store.append(undone)
    undo(redis_server, ann, kept)
    assert store.append([undone[2]]) == [WriteOutcome.ACCEPTED]
    assert_same_traces(traces_in(store), traces_of([*EVENTS, undone[2]]))
    left = [*(one.event_id for one in EVENTS[pruned:]), "z"]
    assert [one.event_id for one in store.events_of("ann")] == left
    assert logged(store) == left
    assert store.size().events == len(EVENTS) - pruned + 1


def test_an_entry_of_the_log_without_its_event_is_passed_over_once(
    redis_server: RedisServer, store: RedisStore, ann: Place
) -> None:
    for event_id in ("e0", "never-written"):
        redis_server.client.xadd(ann("log"), {"o": "ann", "e": event_id})
    assert store.size().events == len(EVENTS) + 2
    assert logged(store) == [one.event_id for one in EVENTS]
    assert store.size().events == len(EVENTS)


def test_an_event_without_its_value_is_in_no_list(
    redis_server: RedisServer, store: RedisStore, ann: Place
) -> None:
    redis_server.client.zadd(ann("engagements", "ann"), {"never-written": START_US})
    assert [one.event_id for one in store.events_of("ann")] == [one.event_id for one in EVENTS]


def test_events_of_a_user_who_is_not_there(
    redis_server: RedisServer, store: RedisStore, ann: Place
) -> None:
    redis_server.client.delete(ann("user", "ann"))
    assert store.append([EVENTS[3]]) == [WriteOutcome.ACCEPTED]
    assert logged(store) == ["e3"]
    assert_same_traces(traces_in(store), traces_of([EVENTS[3]]))


def test_a_rebuild_counts_nothing_that_was_undone(
    redis_server: RedisServer, store: RedisStore, ann: Place
) -> None:
    kept = redis_server.client.dump(ann("user", "ann"))
    store.append([deed("x")])
    undo(redis_server, ann, kept)
    assert store.rebuild(["ann"]) == 0
    assert_same_traces(traces_in(store), traces_of(EVENTS))
