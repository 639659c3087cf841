"""What is too old is forgotten, in bites, and events that wait to be written go first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from typing import Any

import pytest

from server import retention
from server.errors import StoreUnavailable
from server.metrics import Metrics
from server.retention import CLOCK_ERROR_S, Housekeeping, RetentionPeriods
from server.state.sqlite import SqliteStore
from server.state.store import StoreSize
from tests.suites.store_suite import DAY_US, START_US, deed, traces_in

DAY_S = 86400.0
NEVER_BUSY: Callable[[], bool] = lambda: False  # noqa: E731


class FakeStore:
    """Counts down what is too old; fails as told."""

    def __init__(self, **old: int) -> None:
        self.old = old
        self.asked: list[tuple[str, int, int]] = []
        self.failures: list[Exception] = []

    def _prune(self, kind: str, before_us: int, limit: int) -> int:
        self.asked.append((kind, before_us, limit))
        if self.failures:
            raise self.failures.pop()
        gone = min(limit, self.old.get(kind, 0))
        self.old[kind] = self.old.get(kind, 0) - gone
        return gone

    def prune_events(self, before_us: int, limit: int) -> int:
        return self._prune("events", before_us, limit)

    def prune_users(self, before_us: int, limit: int) -> int:
        return self._prune("users", before_us, limit)

    def prune_deletions(self, before_us: int, limit: int) -> int:
        return self._prune("deletions", before_us, limit)

    def size(self) -> StoreSize:
        return StoreSize(users=4, events=100, stored_bytes=10_000)


@pytest.fixture
def house(writer: Executor, metrics: Metrics) -> Callable[..., Housekeeping]:
    def built(
        store: Any,
        periods: RetentionPeriods,
        now_us: int = START_US,
        busy: Callable[[], bool] = NEVER_BUSY,
    ) -> Housekeeping:
        return Housekeeping(store, writer, metrics, lambda: now_us, busy, periods)

    return built


def test_events_are_taken_for_some_days_less_than_they_are_kept() -> None:
    assert RetentionPeriods().earliest_us(START_US) == 0
    kept = RetentionPeriods(events_s=400 * DAY_S)
    earliest_us = START_US - 400 * DAY_US + round(CLOCK_ERROR_S * 1e6)
    assert kept.earliest_us(START_US) == earliest_us
    # What a gateway forgets whose clock is days ahead, none takes again whose clock is right.
    forgotten_us = START_US + round(CLOCK_ERROR_S * 1e6) - 400 * DAY_US
    assert forgotten_us <= earliest_us
    assert kept.earliest_us(DAY_US) == 0


async def test_each_kind_has_its_period_and_goes_in_bites(house, sample) -> None:
    store = FakeStore(events=1200, users=41, deletions=1)
    await house(store, RetentionPeriods(40 * DAY_S, 50 * DAY_S, 60 * DAY_S)).tidy()
    assert set(store.old.values()) == {0}
    assert {(kind, START_US - before) for kind, before, _ in store.asked} == {
        ("events", 40 * DAY_US),
        ("users", 50 * DAY_US),
        ("deletions", 60 * DAY_US),
    }
    assert len(store.asked) > len({kind for kind, *_ in store.asked}) * 2
    for kind, gone in (("events", 1200), ("users", 41), ("deletions", 1)):
        assert sample("ebbing_pruned_total", kind=kind) == gone
    assert sample("ebbing_state_users") == 4
    assert sample("ebbing_state_events") == 100
    assert sample("ebbing_state_stored_bytes") == 10_000
    assert sample("ebbing_state_bytes_per_user") == 2500


async def test_what_is_kept_for_ever_is_not_asked_for(house) -> None:
    store = FakeStore(events=5, users=5, deletions=5)
    await house(store, RetentionPeriods(inactive_users_s=90 * DAY_S)).tidy()
    assert {kind for kind, *_ in store.asked} == {"users"}
    assert store.old == {"events": 5, "users": 0, "deletions": 5}


async def test_waiting_events_have_most_of_the_time(house, monkeypatch: pytest.MonkeyPatch) -> None:
    rests: list[float] = []

    async def rest(seconds: float) -> None:
        rests.append(seconds)

    monkeypatch.setattr(retention.asyncio, "sleep", rest)
    ticks = iter(range(1000))
    monkeypatch.setattr(retention.time, "perf_counter", lambda: next(ticks) * 0.01)
    waiting = iter([True, True, False, True])
    periods = RetentionPeriods(events_s=40 * DAY_S)
    await house(FakeStore(events=1000), periods, busy=lambda: next(waiting)).tidy()
    # Two bites, an empty one, and the size; each took 10 ms, a tenth of the time.
    assert rests == pytest.approx([0.09, 0.09, 0.0, 0.09])


async def test_a_store_that_refuses_is_asked_again(house, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "PERIOD_S", 0.0)
    store = FakeStore(events=3)
    store.failures = [StoreUnavailable("down"), ArithmeticError("unforeseen")]
    task = asyncio.create_task(house(store, RetentionPeriods(events_s=40 * DAY_S)).run())
    async with asyncio.timeout(30):
        while store.old["events"]:
            await asyncio.sleep(0.001)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert not store.failures


async def test_a_state_goes_on_counting_events_that_were_forgotten(
    store: SqliteStore, house
) -> None:
    store.append([deed(f"e{n}", days=n) for n in range(10)])
    before = traces_in(store)
    await house(store, RetentionPeriods(events_s=40 * DAY_S), START_US + 45 * DAY_US).tidy()
    assert [one.event_id for one in store.events_of("ann")] == [f"e{n}" for n in range(5, 10)]
    assert before is not None
    after = traces_in(store)
    assert after is not None
    assert after.event_count == before.event_count == 10


async def test_whoever_stays_away_is_forgotten_wholly(store: SqliteStore, house, sample) -> None:
    for n in range(45):
        store.append([deed(f"gone-{n}", user_id=f"gone-{n}", days=-100 + n % 3)])
    store.append([deed("here", user_id="here", days=-100), deed("back", user_id="here", days=-1)])
    await house(store, RetentionPeriods(inactive_users_s=90 * DAY_S)).tidy()
    assert [state is None for state in store.states(["gone-0", "gone-44", "here"])] == [
        True,
        True,
        False,
    ]
    assert not list(store.events_of("gone-1"))
    assert len(list(store.events_of("here"))) == 2
    assert sample("ebbing_state_users") == 1
    assert sample("ebbing_state_events") == 2


async def test_deletions_are_forgotten_last(store: SqliteStore, house) -> None:
    store.append([deed("a")])
    store.delete_user("ann", "receipt", START_US)
    periods = RetentionPeriods(events_s=40 * DAY_S, deletions_s=41 * DAY_S)
    await house(store, periods, START_US + 40 * DAY_US).tidy()
    assert store.deletion("ann") is not None
    await house(store, periods, START_US + 42 * DAY_US).tidy()
    assert store.deletion("ann") is None
