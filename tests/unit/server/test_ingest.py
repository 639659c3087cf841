"""Ingestion against a store that can be held, and made to fail."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from ebbing.events import DEFAULT_EVENT_WEIGHTS, EventType
from ebbing.history import item_key
from ebbing.v1.user_event_pb2 import InterestShare, UserEvent
from server.catalog import Catalog
from server.errors import Overloaded, StorageFull
from server.ingest import Ingest
from server.metrics import Metrics
from server.state.store import Interaction, ItemRecord, WriteOutcome

ACCEPTED, DUPLICATE, ID_REUSED, _ = WriteOutcome


class HeldStore:
    """Remembers what was appended; every append waits until the gate is open."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.failing: dict[str, Exception] = {}
        """What an append fails with that has the event of this id."""
        self.appends: list[list[str]] = []
        self.log: dict[str, Interaction] = {}
        self.known = {item_key("i"): ItemRecord("i", item_key("i"), (("sports", 2.0),), 0, 0, b"")}

    def catalogue_version(self) -> int:
        return 1

    def items(self, keys: Sequence[int]) -> list[ItemRecord]:
        return [self.known[key] for key in keys if key in self.known]

    def append(self, interactions: Sequence[Interaction]) -> list[WriteOutcome]:
        self.entered.set()
        assert self.gate.wait(30)
        self.appends.append([i.event_id for i in interactions])
        for one in interactions:
            if one.event_id in self.failing:
                raise self.failing[one.event_id]
        outcomes = []
        for one in interactions:
            known = self.log.setdefault(one.event_id, one)
            outcomes.append(
                ACCEPTED if known is one else DUPLICATE if known.body == one.body else ID_REUSED
            )
        return outcomes


@pytest.fixture
def held() -> HeldStore:
    return HeldStore()


@pytest.fixture
def ingest(held: HeldStore, writer: Executor, metrics: Metrics) -> Ingest:
    store: Any = held
    weights = {**DEFAULT_EVENT_WEIGHTS, EventType.PURCHASE: 4.0}
    return Ingest(store, writer, Catalog(store, writer), weights, metrics, 20, 10)


@asynccontextmanager
async def committing(ingest: Ingest):
    task = asyncio.create_task(ingest.run())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def event(event_id: str, item_id: str = "i", event_type: int = 1, **fields: Any) -> UserEvent:
    made = UserEvent(
        event_id=event_id, user_id="ann", item_id=item_id, event_type=event_type, **fields
    )
    made.event_time.FromMicroseconds(1_700_000_000_123_456)
    return made


async def entered(held: HeldStore) -> None:
    """Until an append has begun."""
    while not held.entered.is_set():
        await asyncio.sleep(0.001)
    held.entered.clear()


async def test_a_lone_event_is_committed_at_once(ingest: Ingest, held: HeldStore) -> None:
    async with committing(ingest):
        assert await ingest.write([event("a")]) == [(ACCEPTED, False)]
    assert held.appends == [["a"]]


async def test_writing_nothing_needs_no_commit(ingest: Ingest, held: HeldStore) -> None:
    assert await ingest.write([]) == []
    assert held.appends == []


async def test_what_gathers_during_a_commit_is_committed_together(
    ingest: Ingest, held: HeldStore, sample
) -> None:
    held.gate.clear()
    async with committing(ingest):
        writes = [asyncio.create_task(ingest.write([event("first")]))]
        await entered(held)
        writes += [asyncio.create_task(ingest.write([event(f"e{i}")])) for i in range(6)]
        await asyncio.sleep(0)
        held.gate.set()
        assert await asyncio.gather(*writes) == [[(ACCEPTED, False)]] * 7
    assert held.appends == [["first"], [f"e{i}" for i in range(6)]]
    assert sample("ebbing_commit_events_count") == 2
    assert sample("ebbing_commit_events_sum") == 7
    assert sample("ebbing_state_operation_duration_seconds_count", operation="append") == 2


async def test_groups_have_a_size_and_calls_are_not_split(ingest: Ingest, held: HeldStore) -> None:
    held.gate.clear()
    async with committing(ingest):
        writes = [asyncio.create_task(ingest.write([event("first")]))]
        await entered(held)
        for name, size in (("a", 6), ("b", 4), ("c", 1), ("d", 8)):
            batch = [event(f"{name}{i}") for i in range(size)]
            writes.append(asyncio.create_task(ingest.write(batch)))
        await asyncio.sleep(0)
        held.gate.set()
        results = await asyncio.gather(*writes)
    assert [len(append) for append in held.appends] == [1, 10, 9]
    assert [len(result) for result in results] == [1, 6, 4, 1, 8]


async def test_a_call_larger_than_a_group_is_one_commit(ingest: Ingest, held: HeldStore) -> None:
    async with committing(ingest):
        assert len(await ingest.write([event(f"e{i}") for i in range(15)])) == 15
    assert [len(append) for append in held.appends] == [15]


async def test_each_caller_hears_of_its_own_events(ingest: Ingest, held: HeldStore) -> None:
    held.gate.clear()
    async with committing(ingest):
        first = asyncio.create_task(ingest.write([event("a")]))
        await entered(held)
        again = asyncio.create_task(ingest.write([event("a"), event("b")]))
        reused = asyncio.create_task(ingest.write([event("c"), event("a", query="other")]))
        await asyncio.sleep(0)
        held.gate.set()
        assert await first == [(ACCEPTED, False)]
        assert await again == [(DUPLICATE, False), (ACCEPTED, False)]
        assert await reused == [(ACCEPTED, False), (ID_REUSED, False)]


async def test_a_failing_commit_fails_its_callers_only(
    ingest: Ingest, held: HeldStore, sample
) -> None:
    held.gate.clear()
    held.failing = {"lost5": StorageFull("full")}
    async with committing(ingest):
        before = asyncio.create_task(ingest.write([event("before")]))
        await entered(held)
        # Together these fill a group, so that what comes after them is in the next one.
        lost = [
            asyncio.create_task(ingest.write([event(f"lost{n}") for n in numbers]))
            for numbers in (range(4), range(4, 8), range(8, 10))
        ]
        after = asyncio.create_task(ingest.write([event("after")]))
        await asyncio.sleep(0)
        held.gate.set()
        outcomes = await asyncio.gather(*lost, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [StorageFull] * 3
        assert await before == await after == [(ACCEPTED, False)]
        held.failing = {}
        assert await ingest.write([event("lost5")]) == [(ACCEPTED, False)]
    assert list(held.log) == ["before", "after", "lost5"]
    assert sample("ebbing_user_events_total", event_type="view", outcome="accepted") == 3
    assert sample("ebbing_commit_events_sum") == 3


async def test_more_than_may_wait_is_refused(ingest: Ingest, held: HeldStore) -> None:
    held.gate.clear()
    async with committing(ingest):
        waiting = asyncio.create_task(ingest.write([event(f"e{i}") for i in range(15)]))
        await entered(held)
        with pytest.raises(Overloaded):
            await ingest.write([event(f"f{i}") for i in range(6)])
        fitting = asyncio.create_task(ingest.write([event(f"g{i}") for i in range(5)]))
        await asyncio.sleep(0)
        held.gate.set()
        await asyncio.gather(waiting, fitting)
        # What was committed makes room; what was refused was never written.
        assert len(await ingest.write([event(f"h{i}") for i in range(20)])) == 20
    assert not any(name.startswith("f") for name in held.log)


async def test_a_failed_commit_makes_room_too(ingest: Ingest, held: HeldStore) -> None:
    async with committing(ingest):
        held.failing = {"e7": StorageFull("full")}
        with pytest.raises(StorageFull):
            await ingest.write([event(f"e{i}") for i in range(20)])
        held.failing = {}
        assert len(await ingest.write([event(f"e{i}") for i in range(20)])) == 20


async def test_a_caller_that_goes_away_loses_no_event(
    ingest: Ingest, held: HeldStore, sample
) -> None:
    held.gate.clear()
    async with committing(ingest):
        first = asyncio.create_task(ingest.write([event("first")]))
        await entered(held)
        gone = asyncio.create_task(ingest.write([event("gone")]))
        stays = asyncio.create_task(ingest.write([event("stays")]))
        await asyncio.sleep(0)
        for caller in (first, gone):
            caller.cancel()
            with pytest.raises(asyncio.CancelledError):
                await caller
        held.gate.set()
        assert await stays == [(ACCEPTED, False)]
    assert list(held.log) == ["first", "gone", "stays"]
    assert sample("ebbing_user_events_total", event_type="view", outcome="accepted") == 3


async def test_a_failure_nobody_waits_for_any_more_is_silent(
    ingest: Ingest, held: HeldStore, caplog: pytest.LogCaptureFixture
) -> None:
    held.gate.clear()
    held.failing = {"gone": StorageFull("full")}
    async with committing(ingest):
        gone = asyncio.create_task(ingest.write([event("gone")]))
        await entered(held)
        gone.cancel()
        with suppress(asyncio.CancelledError):
            await gone
        held.gate.set()
        assert await ingest.write([event("after")]) == [(ACCEPTED, False)]
    # An exception that nobody took is told of when it goes.
    del gone
    held.failing.clear()
    gc.collect()
    assert caplog.records == []


async def test_stopping_commits_what_was_taken(ingest: Ingest, held: HeldStore) -> None:
    held.gate.clear()
    run = asyncio.create_task(ingest.run())
    under_way = asyncio.create_task(ingest.write([event("under way")]))
    await entered(held)
    waiting = [asyncio.create_task(ingest.write([event(f"e{i}")])) for i in range(3)]
    await asyncio.sleep(0)
    run.cancel()
    await asyncio.sleep(0)
    held.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await run
    # Nobody is left without an answer, the caller of the commit under way included.
    async with asyncio.timeout(5):
        assert await asyncio.gather(under_way, *waiting) == [[(ACCEPTED, False)]] * 4
    assert list(held.log) == ["under way", "e0", "e1", "e2"]


async def test_stopping_an_idle_one(ingest: Ingest, held: HeldStore) -> None:
    async with committing(ingest) as run:
        await asyncio.sleep(0)
    assert run.cancelled()
    assert held.appends == []


async def test_the_loop_goes_on_while_a_commit_is_synced(ingest: Ingest, held: HeldStore) -> None:
    held.gate.clear()
    async with committing(ingest):
        write = asyncio.create_task(ingest.write([event("a")]))
        await entered(held)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not write.done()
        held.gate.set()
        await write


async def test_an_event_shows_the_interests_of_its_item(ingest: Ingest, held: HeldStore) -> None:
    async with committing(ingest):
        await ingest.write([event("a")])
    assert held.log["a"].interests == (("sports", 2.0),)


async def test_its_own_interests_come_first(ingest: Ingest, held: HeldStore) -> None:
    own = [InterestShare(interest="music", share=0.5), InterestShare(interest="art")]
    async with committing(ingest):
        await ingest.write([event("a", interests=own)])
    assert held.log["a"].interests == (("music", 0.5), ("art", 1.0))


async def test_an_unknown_item_is_taken_and_flagged(
    ingest: Ingest, held: HeldStore, sample
) -> None:
    own = [InterestShare(interest="music")]
    async with committing(ingest):
        batch = [event("a", "new"), event("b"), event("c", "new", interests=own), event("d", "")]
        flags = [result.unknown_item for result in await ingest.write(batch)]
        assert flags == [True, False, True, False]
        assert await ingest.write([event("a", "new")]) == [(DUPLICATE, True)]
    assert held.log["a"].interests == ()
    assert held.log["a"].item_key == item_key("new")
    assert held.log["c"].interests == (("music", 1.0),)
    assert held.log["d"].item_key == 0
    assert sample("ebbing_unknown_item_events_total") == 2


async def test_an_event_is_kept_whole_with_the_weight_of_its_type(
    ingest: Ingest, held: HeldStore
) -> None:
    sent = event("a", event_type=EventType.PURCHASE, value=9.99, session_id="s")
    async with committing(ingest):
        await ingest.write([sent, event("b", event_type=EventType.DISLIKE)])
    kept = held.log["a"]
    assert UserEvent.FromString(kept.body) == sent
    assert (kept.user_id, kept.event_type, kept.weight) == ("ann", EventType.PURCHASE, 4.0)
    assert kept.time_us == 1_700_000_000_123_456
    assert held.log["b"].weight == 0.0


async def test_events_are_counted_by_type_and_outcome(ingest: Ingest, sample) -> None:
    async with committing(ingest):
        await ingest.write(
            [
                event("a"),
                event("a"),
                event("a", query="other"),
                event("b", event_type=EventType.ADD_TO_CART),
            ]
        )
    counted = {
        (kind, outcome.value): sample(
            "ebbing_user_events_total", event_type=kind, outcome=outcome.value
        )
        for kind in ("view", "add_to_cart")
        for outcome in WriteOutcome
    }
    assert counted == {
        ("view", "accepted"): 1,
        ("view", "duplicate"): 1,
        ("view", "id_reused"): 1,
        ("view", "user_deleted"): 0,
        ("add_to_cart", "accepted"): 1,
        ("add_to_cart", "duplicate"): 0,
        ("add_to_cart", "id_reused"): 0,
        ("add_to_cart", "user_deleted"): 0,
    }


async def test_a_real_store_takes_concurrent_writers(store, metrics: Metrics) -> None:
    with ThreadPoolExecutor(1) as writer:
        catalog = Catalog(store, writer)
        ingest = Ingest(store, writer, catalog, DEFAULT_EVENT_WEIGHTS, metrics, 1000, 50)
        own = [InterestShare(interest="music")]
        async with committing(ingest):
            await asyncio.gather(
                *(
                    ingest.write([event(f"{c}-{i}", interests=own) for i in range(5)])
                    for c in "abcdef"
                )
            )
    (state,) = store.states(["ann"])
    traces = state and state.traces
    assert traces is not None
    assert traces.event_count == 30
