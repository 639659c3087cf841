"""The stream of transitions: filters, cursors, and watchers that do not wait for each other."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest

from ebbing.v1 import interest_service_pb2 as pb
from ebbing.v1.interest_pb2 import StateReason
from server.errors import CursorExpired, GatewayStopping, InvalidFields
from server.rpc import watching
from server.rpc.watching import CURSOR_METADATA, Watching, read_cursor, write_cursor
from server.state.alarms import Settlement, Transition
from server.state.sqlite import SqliteStore
from server.watch import News
from tests.suites.store_suite import START_US, deed

ACTIVE, FADING, FORGOTTEN = 2, 3, 5
REASON = StateReason(text="quiet for long")


class FakeContext:
    """Remembers the metadata a stream begins with."""

    def __init__(self) -> None:
        self.metadata: dict[str, str] = {}

    async def send_initial_metadata(self, metadata: Iterable[tuple[str, str]]) -> None:
        self.metadata = dict(metadata)


class Log:
    """Writes transitions."""

    def __init__(self, store: SqliteStore, news: News) -> None:
        self._store, self._news = store, news
        self._written = 0

    def tell(self, *users: str, state: int = FADING) -> None:
        """One transition of each user, numbered through in the name of the interest."""
        for user in users:
            self._written += 1
            self._store.append([deed(f"e{self._written}", user)])
            (alarm,) = self._store.alarms.due(START_US, 9, 9)
            told = Transition(
                user,
                f"n{self._written}",
                ACTIVE,
                state,
                START_US + self._written,
                0.25,
                REASON.SerializeToString(),
            )
            settlement = Settlement(alarm.owner, alarm.version, b"", None, [told])
            self._store.alarms.settle([settlement], START_US + self._written)
        self._news.spread()


@pytest.fixture
def news() -> News:
    return News()


@pytest.fixture
def log(store: SqliteStore, news: News) -> Log:
    return Log(store, news)


@pytest.fixture
def streams(store: SqliteStore, news: News) -> Watching:
    return Watching(store.alarms, news, 60.0)


Stream = AsyncIterator[pb.WatchForgettingResponse]


def begin(streams: Watching, context: Any = None, **request: Any) -> Stream:
    return streams.responses(pb.WatchForgettingRequest(**request), context or FakeContext())


async def names(stream: Stream, count: int) -> list[str]:
    async with asyncio.timeout(30):
        return [(await anext(stream)).transition.interest for _ in range(count)]


def cursor(store: SqliteStore, number: int) -> str:
    return write_cursor(store.alarms.store_id, number)


async def test_a_transition_whole(streams: Watching, store: SqliteStore, log: Log) -> None:
    log.tell("ann")
    stream = begin(streams, cursor=cursor(store, 0))
    response = await anext(stream)
    transition = response.transition
    assert (transition.user_id, transition.interest) == ("ann", "n1")
    assert (transition.from_state, transition.to_state) == (ACTIVE, FADING)
    assert transition.transition_time.ToMicroseconds() == START_US + 1
    assert transition.retention == 0.25
    assert transition.reason == REASON
    assert response.cursor == cursor(store, 1)
    await stream.aclose()


async def test_from_now_on_and_as_it_happens(streams: Watching, log: Log) -> None:
    log.tell("ann", "bob")
    stream = begin(streams)
    first = asyncio.create_task(names(stream, 2))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not first.done()
    log.tell("ann", "bob")
    assert await first == ["n3", "n4"]
    await stream.aclose()


async def test_a_stream_says_where_it_begins(
    streams: Watching, store: SqliteStore, log: Log
) -> None:
    log.tell("ann", "bob", "cyd")
    for asked, begins in (("", 3), (cursor(store, 1), 1), (cursor(store, 3), 3)):
        context = FakeContext()
        stream = begin(streams, context, cursor=asked)
        waiting = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        assert context.metadata == {CURSOR_METADATA: cursor(store, begins)}
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def test_it_goes_on_after_each_cursor(
    streams: Watching, store: SqliteStore, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "PAGE", 4)
    log.tell(*"abcdefghij")
    for after in range(10):
        stream = begin(streams, cursor=cursor(store, after))
        assert await names(stream, 10 - after) == [f"n{n}" for n in range(after + 1, 11)]
        await stream.aclose()


async def test_only_some_users_and_states(streams: Watching, store: SqliteStore, log: Log) -> None:
    log.tell("ann", "bob")
    log.tell("ann", "bob", state=FORGOTTEN)
    log.tell("ann", "bob")
    start = cursor(store, 0)
    asked = {
        ("n1", "n3", "n5"): {"user_ids": ["ann"]},
        ("n3", "n4"): {"states": [FORGOTTEN]},
        ("n4",): {"user_ids": ["bob", "nobody"], "states": [FORGOTTEN]},
        ("n1", "n2", "n3"): {"user_ids": ["ann", "bob"], "states": [FADING, FORGOTTEN]},
    }
    for expected, request in asked.items():
        stream = begin(streams, cursor=start, **request)
        assert await names(stream, len(expected)) == list(expected)
        await stream.aclose()


async def test_what_is_asked_for_far_behind_lets_others_have_their_turn(
    streams: Watching, store: SqliteStore, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "PAGE", 1)
    log.tell(*["ann"] * 20, "bob")
    stream = begin(streams, cursor=cursor(store, 0), user_ids=["bob"])
    found = asyncio.create_task(names(stream, 1))
    turns = 0
    while not found.done():
        await asyncio.sleep(0)
        turns += 1
    assert found.result() == ["n21"]
    assert turns >= 20
    await stream.aclose()


async def test_a_watcher_that_does_not_read_holds_up_nobody(
    streams: Watching, store: SqliteStore, log: Log
) -> None:
    log.tell("ann")
    slow, quick = (begin(streams, cursor=cursor(store, 0)) for _ in range(2))
    assert await names(slow, 1) == await names(quick, 1) == ["n1"]
    for _ in range(30):
        log.tell("ann", "bob")
    assert await names(quick, 60) == [f"n{n}" for n in range(2, 62)]
    assert await names(slow, 60) == [f"n{n}" for n in range(2, 62)]
    for stream in (slow, quick):
        await stream.aclose()


async def test_a_gateway_that_stops_says_so(
    streams: Watching, store: SqliteStore, log: Log, news: News
) -> None:
    log.tell("ann")
    stream = begin(streams, cursor=cursor(store, 0))
    assert await names(stream, 1) == ["n1"]
    waiting = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    news.close()
    with pytest.raises(GatewayStopping) as error:
        await waiting
    assert error.value.retry_after_s
    with pytest.raises(GatewayStopping):
        await anext(begin(streams))


def test_cursors_read_back() -> None:
    assert read_cursor("a1", write_cursor("a1", 2**60)) == 2**60


@pytest.mark.parametrize(
    "bad",
    [
        "x",
        "é",
        "====",
        write_cursor("another", 1),
        base64.urlsafe_b64encode(b"no dot").decode(),
        "store -1",
        "store 1.5",
        "store ²",
        "store " + "9" * 40,
        "store 3",
    ],
)
async def test_a_cursor_of_no_transition_of_this_store(
    streams: Watching, store: SqliteStore, log: Log, bad: str
) -> None:
    log.tell("ann", "bob")
    if bad.startswith("store "):
        text = f"{store.alarms.store_id}.{bad.removeprefix('store ')}"
        bad = base64.urlsafe_b64encode(text.encode()).decode()
    with pytest.raises(InvalidFields) as error:
        await anext(begin(streams, cursor=bad))
    assert [v.field for v in error.value.violations] == ["cursor"]
    assert "without a cursor" in error.value.message


async def test_a_cursor_older_than_what_is_kept(
    streams: Watching, store: SqliteStore, log: Log
) -> None:
    log.tell("ann", "bob", "cyd")
    store.alarms.prune(START_US + 3, 100)
    with pytest.raises(CursorExpired, match="without a cursor"):
        await anext(begin(streams, cursor=cursor(store, 1)))
    stream = begin(streams, cursor=cursor(store, 2))
    assert await names(stream, 1) == ["n3"]
    store.alarms.prune(START_US + 100, 100)
    log.tell("ann")
    assert await names(stream, 1) == ["n4"]
    await stream.aclose()
    with pytest.raises(CursorExpired):
        await anext(begin(streams, cursor=cursor(store, 2)))


async def test_a_watcher_too_slow_for_what_is_kept(
    streams: Watching, store: SqliteStore, log: Log
) -> None:
    log.tell("ann")
    stream = begin(streams, cursor=cursor(store, 0))
    assert await names(stream, 1) == ["n1"]
    log.tell("ann", "ann")
    store.alarms.prune(START_US + 3, 100)
    with pytest.raises(CursorExpired):
        await anext(stream)


async def test_the_widest_filter(streams: Watching, store: SqliteStore, log: Log) -> None:
    log.tell("x" * 128)
    users = [*(f"user-{n}" for n in range(999)), "x" * 128]
    stream = begin(streams, cursor=cursor(store, 0), user_ids=users, states=[1, 2, 3, 4, 5, 6])
    assert await names(stream, 1) == ["n1"]
    await stream.aclose()
