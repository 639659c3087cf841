"""The watch on a real store, with a clock and a forgetting model of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from ebbing.v1.interest_pb2 import StateReason
from server.errors import StoreUnavailable
from server.metrics import Metrics
from server.state.alarms import Alarm
from server.state.sqlite import SqliteStore
from server.state.sqlite_file import opened
from server.watch import News, Watch, WatchConfig
from tests.harness.state import records
from tests.suites.store_suite import START_US, deed
from tests.unit.server.fake_assess import ACTIVE, FADING, FORGOTTEN, FakeAssess

CONFIG = WatchConfig(batch=8, share=0.5, poll_s=0.01, renewal_s=4.0, kept_s=3600.0)
SECOND = 1_000_000


class Clock:
    def __init__(self) -> None:
        self.us = START_US

    def __call__(self) -> int:
        return self.us

    def at(self, seconds: float) -> None:
        self.us = START_US + round(seconds * SECOND)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def assess() -> FakeAssess:
    return FakeAssess()


@pytest.fixture
def busy() -> list[bool]:
    return [False]


Make = Callable[..., Watch]


@pytest.fixture
def make(
    writer: Executor, metrics: Metrics, clock: Clock, assess: FakeAssess, busy: list[bool]
) -> Make:
    def made(store: SqliteStore, news: News | None = None, config: WatchConfig = CONFIG) -> Watch:
        return Watch(
            store.alarms,
            writer,
            lambda: assess,
            news or News(),
            metrics,
            clock,
            asyncio.Event(),
            lambda: busy[0],
            config,
        )

    return made


@pytest.fixture
def watch(make: Make, store: SqliteStore) -> Watch:
    return make(store)


def engage(
    store: SqliteStore, event_id: str, seconds: float, *interests: str, user: str = "ann"
) -> None:
    """An event so many seconds after ``START_US``."""
    shares = tuple((name, 1.0) for name in interests or ("music",))
    store.append([deed(event_id, user, days=seconds / 86400, interests=shares)])


def told(store: SqliteStore) -> list[tuple[str, str, int, int, float]]:
    """All transitions: user, interest, from, to, seconds after ``START_US``."""
    return [
        (t.user_id, t.interest, t.from_state, t.to_state, (t.time_us - START_US) / SECOND)
        for _, t in store.alarms.transitions(0, 1000)
    ]


def solve_all(watch: Watch) -> None:
    while watch.solve().solved:
        pass


def test_an_event_and_then_the_quiet_after_it(
    watch: Watch, store: SqliteStore, clock: Clock
) -> None:
    engage(store, "a", 0)
    clock.at(1)
    assert watch.solve().told
    assert store.alarms.next_due_us() == START_US + 100 * SECOND
    assert told(store) == [("ann", "music", 0, ACTIVE, 0.0)]
    clock.at(99.999)
    assert not watch.solve().told
    clock.at(100)
    assert watch.solve().told
    clock.at(500)
    solve_all(watch)
    assert store.alarms.next_due_us() is None
    assert told(store)[1:] == [
        ("ann", "music", ACTIVE, FADING, 100.0),
        ("ann", "music", FADING, FORGOTTEN, 200.0),
    ]


def test_what_was_missed_is_told_in_order_with_its_moments(
    make: Make, store: SqliteStore, clock: Clock
) -> None:
    engage(store, "a", 0, "music")
    engage(store, "b", 10, "sports")
    clock.at(11)
    solve_all(make(store))
    clock.at(100_000)
    solve_all(make(store))
    assert told(store)[2:] == [
        ("ann", "music", ACTIVE, FADING, 100.0),
        ("ann", "sports", ACTIVE, FADING, 110.0),
        ("ann", "music", FADING, FORGOTTEN, 200.0),
        ("ann", "sports", FADING, FORGOTTEN, 210.0),
    ]


def test_loaded_history_is_no_news(watch: Watch, store: SqliteStore, clock: Clock) -> None:
    clock.at(10_000)
    engage(store, "a", 0, "old")
    engage(store, "b", 9_990, "new")
    solve_all(watch)
    assert told(store) == [("ann", "new", 0, ACTIVE, 9990.0)]
    engage(store, "c", 9_999, "old")
    solve_all(watch)
    assert told(store)[1:] == [("ann", "old", FORGOTTEN, ACTIVE, 9999.0)]


def test_an_event_before_the_change_puts_it_off(
    watch: Watch, store: SqliteStore, clock: Clock
) -> None:
    engage(store, "a", 0)
    clock.at(1)
    solve_all(watch)
    clock.at(60)
    engage(store, "b", 60)
    solve_all(watch)
    clock.at(101)
    assert not watch.solve().told
    clock.at(161)
    assert watch.solve().told
    assert told(store)[-1] == ("ann", "music", ACTIVE, FADING, 160.0)


def test_the_account_is_of_the_moment_of_the_change(
    watch: Watch, store: SqliteStore, clock: Clock
) -> None:
    engage(store, "a", 0)
    clock.at(500)
    engage(store, "b", 400, "sports")
    engage(store, "c", 350, "music")
    solve_all(watch)
    (_, first), (_, second) = store.alarms.transitions(0, 10)
    assert (first.interest, first.time_us) == ("music", START_US + 450 * SECOND)
    assert (first.retention, first.reason) == (
        0.5,
        f"music {FADING} {START_US // SECOND + 450}".encode(),
    )
    assert second.reason == f"sports {FADING} {START_US // SECOND + 500}".encode()


def test_an_interest_pushed_out_is_told_as_forgotten(
    make: Make, tmp_path: Path, clock: Clock
) -> None:
    with closing(SqliteStore(tmp_path / "small.db", records(max_interests=2))) as store:
        watch = make(store)
        for n, name in enumerate(["weak", "strong", "strong", "other", "other"]):
            engage(store, f"e{n}", n, name)
            clock.at(n + 0.5)
            solve_all(watch)
        assert ("ann", "weak", ACTIVE, FORGOTTEN, 3.0) in told(store)
        (displaced,) = [t for _, t in store.alarms.transitions(0, 99) if t.to_state == FORGOTTEN]
        assert displaced.retention == 0.0
        assert "made room" in StateReason.FromString(displaced.reason).text


def test_an_event_between_reading_and_writing_is_not_lost(
    watch: Watch, store: SqliteStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    engage(store, "a", 0)
    due = store.alarms.due

    def then_an_event(now_us: int, limit: int, touched: int) -> list[Alarm]:
        alarms = due(now_us, limit, touched)
        monkeypatch.undo()
        engage(store, "b", 50, "sports")
        return alarms

    clock.at(60)
    monkeypatch.setattr(store.alarms, "due", then_an_event)
    assert not watch.solve().told
    assert told(store) == []
    assert watch.solve().told
    assert told(store) == [("ann", "music", 0, ACTIVE, 0.0), ("ann", "sports", 0, ACTIVE, 50.0)]


def test_two_gateways_tell_a_change_once(
    make: Make, store: SqliteStore, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    engage(store, "a", 0)
    with closing(SqliteStore(tmp_path / "state.db", records())) as other:
        clock.at(101)
        mine, theirs = make(store), make(other)
        due = other.alarms.due

        def overtaken(now_us: int, limit: int, touched: int) -> list[Alarm]:
            alarms = due(now_us, limit, touched)
            assert mine.solve().told
            return alarms

        monkeypatch.setattr(other.alarms, "due", overtaken)
        assert not theirs.solve().told
    assert told(store) == [("ann", "music", 0, FADING, 100.0)]


def test_a_clock_set_back_takes_nothing_back(
    watch: Watch, store: SqliteStore, clock: Clock
) -> None:
    engage(store, "a", 0)
    clock.at(150)
    solve_all(watch)
    clock.at(50)
    engage(store, "b", 40, "sports")
    solve_all(watch)
    assert told(store) == [("ann", "music", 0, FADING, 100.0), ("ann", "sports", 0, FADING, 140.0)]
    clock.at(210)
    solve_all(watch)
    assert told(store)[2:] == [("ann", "music", FADING, FORGOTTEN, 200.0)]


def test_one_that_cannot_be_solved_is_not_in_the_way(
    watch: Watch, store: SqliteStore, clock: Clock, assess: FakeAssess
) -> None:
    assess.unsolvable = frozenset({"cursed"})
    for n in range(6):
        engage(store, f"c{n}", 0, "cursed", user=f"a{n}")
    engage(store, "b", 0, user="bob")
    clock.at(1)
    solve_all(watch)
    assert told(store) == [("bob", "music", 0, ACTIVE, 0.0)]
    # It is tried again, some time.
    assess.unsolvable = frozenset()
    clock.at(3602)
    solve_all(watch)
    assert store.alarms.waiting(clock.us, 99) == 0


def test_damaged_traces_are_not_in_the_way(
    watch: Watch, store: SqliteStore, clock: Clock, tmp_path: Path
) -> None:

    engage(store, "a", 0, user="damaged")
    engage(store, "b", 0, user="sound")
    with closing(opened(tmp_path / "state.db")) as db:
        db.execute("UPDATE users SET state = x'00' WHERE owner = 'damaged'")
    solve_all(watch)
    assert [user for user, *_ in told(store)] == ["sound"]


def test_other_parameters_are_looked_at_a_share_at_a_time(
    watch: Watch, store: SqliteStore, clock: Clock, assess: FakeAssess
) -> None:
    for n in range(8):
        engage(store, f"e{n}", 0, user=f"user-{n}")
    clock.at(1)
    watch.tidy()
    solve_all(watch)
    clock.at(50)
    assess.parameters, assess.fades_s = "two", 20.0
    for share in range(1, 5):
        watch.tidy()
        solve_all(watch)
        faded = [one for one in told(store) if one[3] == FADING]
        # They have been fading for a while, as it is seen now.
        assert [one[4] for one in faded] == [20.0] * 2 * share
    watch.tidy()
    assert store.alarms.waiting(clock.us, 99) == 0


def test_transitions_are_kept_for_a_while(watch: Watch, store: SqliteStore, clock: Clock) -> None:
    engage(store, "a", 0)
    clock.at(1)
    solve_all(watch)
    clock.at(3600)
    watch.tidy()
    assert len(told(store)) == 1
    clock.at(3602)
    watch.tidy()
    assert told(store) == []


def test_what_happens_is_counted(
    watch: Watch, store: SqliteStore, clock: Clock, sample: Callable[..., float]
) -> None:
    watch.tidy()
    for n in range(10):
        engage(store, f"e{n}", 0, user=f"user-{n}")
    watch.tidy()
    assert sample("ebbing_forgetting_alarms_waiting") == 10
    clock.at(1)
    solve_all(watch)
    watch.tidy()
    assert sample("ebbing_forgetting_alarms_waiting") == 0
    clock.at(103)
    solve_all(watch)
    assert sample("ebbing_forgetting_alarms_total", cause="event") == 10
    assert sample("ebbing_forgetting_alarms_total", cause="time") == 10
    assert sample("ebbing_forgetting_alarm_lag_seconds_count") == 10
    assert sample("ebbing_forgetting_alarm_lag_seconds_sum") == pytest.approx(30.0)
    counts = {"from": "unspecified", "to": "active"}, {"from": "active", "to": "fading"}
    assert [sample("ebbing_interest_transitions_total", **labels) for labels in counts] == [10, 10]


# The task.


@asynccontextmanager
async def running(watch: Watch) -> Iterator[asyncio.Task[None]]:
    task = asyncio.create_task(watch.run())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


async def test_it_finds_what_another_process_wrote(
    make: Make, store: SqliteStore, tmp_path: Path, clock: Clock
) -> None:
    with closing(SqliteStore(tmp_path / "state.db", records())) as other:
        async with running(make(store)):
            await asyncio.sleep(0)
            engage(other, "a", 0)
            await until(lambda: len(told(other)) == 1)
            clock.at(300)
            await until(lambda: len(told(other)) == 3)


async def test_it_spreads_the_news(make: Make, store: SqliteStore) -> None:
    news = News()
    async with running(make(store, news)):
        waiting = asyncio.create_task(news.wait(60))
        await asyncio.sleep(0)
        engage(store, "a", 0)
        async with asyncio.timeout(30):
            await waiting
    assert len(told(store)) == 1


async def test_it_goes_on_when_the_store_does(
    make: Make, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.watch.RETRY_S", 0.001)
    settle, failures = store.alarms.settle, [StoreUnavailable("away"), RuntimeError("unforeseen")]

    def failing(settlements, now_us):
        if failures:
            raise failures.pop()
        return settle(settlements, now_us)

    monkeypatch.setattr(store.alarms, "settle", failing)
    engage(store, "a", 0)
    async with running(make(store)):
        await until(lambda: len(told(store)) == 1)
    assert failures == []


async def test_events_go_first_and_it_goes_on_still(
    make: Make, store: SqliteStore, busy: list[bool]
) -> None:
    busy[0] = True
    for n in range(50):
        engage(store, f"e{n}", 0, user=f"user-{n}")
    async with running(make(store)):
        await until(lambda: len(told(store)) == 50)


async def test_what_is_due_waits_for_no_events(
    make: Make, store: SqliteStore, busy: list[bool], clock: Clock
) -> None:
    for n in range(10):
        engage(store, f"e{n}", 0, user=f"user-{n}")
    clock.at(1)
    watch = make(store, config=replace(CONFIG, share=1e-9))
    solve_all(watch)
    clock.at(101)
    busy[0] = True
    for n in range(20):
        engage(store, f"new{n}", 100, user=f"new-{n}")
    async with running(watch):
        await until(lambda: sum(one[3] == FADING for one in told(store)) == 10)
        # One batch of the others, and then no more until it has made up for it.
        seen = [one for one in told(store) if one[0].startswith("new")]
        assert len(seen) == CONFIG.batch / 2
        busy[0] = False
        await until(lambda: len(told(store)) == 40)


async def test_news_that_came_before_waiting_is_not_waited_for() -> None:
    news = News()
    await news.wait(0.001)
    waiting = [asyncio.create_task(news.wait(60)) for _ in range(3)]
    await asyncio.sleep(0)
    news.spread()
    await asyncio.gather(*waiting)
    news.close()
    await news.wait(60)
    assert news.closed
