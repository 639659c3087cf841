"""Streams: answers in order, work of bounded width, and nothing left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

import pytest

from server.rpc.streams import WIDTH, answer_in_order


class Work:
    """Works on messages until it is let go on with each; fails on those it is told to."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.running = 0
        self.widest = 0
        self.cancelled: list[int] = []
        self.failing: set[int] = set()
        self.gates: dict[int, asyncio.Event] = {}

    def hold(self, *messages: int) -> None:
        self.gates.update({message: asyncio.Event() for message in messages})

    async def __call__(self, message: int) -> str:
        self.begun.append(message)
        self.running += 1
        self.widest = max(self.widest, self.running)
        try:
            if message in self.gates:
                await self.gates[message].wait()
            else:
                await asyncio.sleep(0)
            if message in self.failing:
                raise KeyError(message)
            return str(message)
        except asyncio.CancelledError:
            self.cancelled.append(message)
            raise
        finally:
            self.running -= 1


@pytest.fixture
def work() -> Work:
    return Work()


async def sent(messages: Iterable[int]) -> AsyncIterator[int]:
    for message in messages:
        yield message


async def for_ever(*messages: int) -> AsyncIterator[int]:
    """Messages of a sender that then says no more, and does not hang up."""
    for message in messages:
        yield message
    await asyncio.Event().wait()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
async def nothing_left_behind():
    before = asyncio.all_tasks()
    yield
    assert asyncio.all_tasks() - before == {asyncio.current_task()}


async def test_every_message_is_answered_in_order(work: Work) -> None:
    answers = [a async for a in answer_in_order(sent(range(500)), work)]
    assert answers == [str(n) for n in range(500)]


async def test_a_stream_without_messages(work: Work) -> None:
    assert [a async for a in answer_in_order(sent([]), work)] == []


async def test_a_slow_message_holds_up_answers_but_not_work(work: Work) -> None:
    work.hold(0)
    stream = answer_in_order(sent(range(5)), work)
    first = asyncio.create_task(anext(stream))
    await settle()
    assert work.begun == [0, 1, 2, 3, 4]
    assert not first.done()
    work.gates[0].set()
    assert await first == "0"
    assert [a async for a in stream] == ["1", "2", "3", "4"]


async def test_an_answer_comes_before_the_next_message(work: Work) -> None:
    stream = answer_in_order(for_ever(1, 2), work)
    assert [await anext(stream), await anext(stream)] == ["1", "2"]
    await stream.aclose()


async def test_the_width_is_bounded(work: Work) -> None:
    work.hold(*range(3 * WIDTH))
    stream = answer_in_order(sent(range(3 * WIDTH)), work)
    first = asyncio.create_task(anext(stream))
    for _ in range(10):
        await settle()
    assert work.running == WIDTH
    for gate in work.gates.values():
        gate.set()
    assert await first == "0"
    assert len([a async for a in stream]) == 3 * WIDTH - 1
    assert work.widest == WIDTH


async def test_a_receiver_that_does_not_read_holds_up_the_sender(work: Work) -> None:
    stream = answer_in_order(sent(range(3 * WIDTH)), work)
    assert await anext(stream) == "0"
    for _ in range(10):
        await settle()
    assert len(work.begun) <= WIDTH + 1
    assert len([a async for a in stream]) == 3 * WIDTH - 1


async def test_a_failing_message_ends_the_stream_at_its_turn(work: Work) -> None:
    work.failing = {2}
    work.hold(3)
    stream = answer_in_order(for_ever(0, 1, 2, 3), work)
    answers = []
    with pytest.raises(KeyError):
        async for answer in stream:
            answers.append(answer)  # noqa: PERF401 (what came before the failure counts)
    assert answers == ["0", "1"]
    assert work.cancelled == [3]
    assert work.running == 0


async def test_failures_behind_the_first_are_silent(
    work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    work.failing = {0, 1, 2}
    work.hold(0)
    stream = answer_in_order(sent(range(3)), work)
    first = asyncio.create_task(anext(stream))
    await settle()
    work.gates[0].set()
    with pytest.raises(KeyError, match="0"):
        await first
    assert caplog.records == []


async def test_a_sender_that_breaks_off_is_answered_what_it_sent(work: Work) -> None:
    async def broken() -> AsyncIterator[int]:
        yield 0
        yield 1
        raise ConnectionError

    stream = answer_in_order(broken(), work)
    assert await anext(stream) == "0"
    assert await anext(stream) == "1"
    with pytest.raises(ConnectionError):
        await anext(stream)


async def test_a_receiver_that_goes_away_stops_the_work(work: Work) -> None:
    work.hold(1, 2)
    stream = answer_in_order(for_ever(0, 1, 2), work)
    assert await anext(stream) == "0"
    await settle()
    await stream.aclose()
    assert sorted(work.cancelled) == [1, 2]
    assert work.running == 0


@pytest.mark.parametrize("messages", [0, 1, 5, WIDTH, 2 * WIDTH])
async def test_a_call_that_is_cut_off_stops_the_work(work: Work, messages: int) -> None:
    work.hold(*range(messages))

    async def call() -> None:
        async for _ in answer_in_order(for_ever(*range(messages)), work):
            pass

    running = asyncio.create_task(call())
    for _ in range(10):
        await settle()
    assert work.running == min(messages, WIDTH)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert work.running == 0
    assert len(work.cancelled) == min(messages, WIDTH)
