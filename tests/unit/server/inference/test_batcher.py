"""The micro-batcher against a fake Triton; the fake echoes, so that rows can be told apart."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from server.inference.batcher import BatcherConfig, MicroBatcher, SilentObserver, bucket, buckets
from server.inference.errors import (
    InferenceDeadline,
    InferenceFailed,
    QueueFull,
    TritonUnavailable,
)

LONG_S = 3600.0
"""A delay no test lives to see: what leaves the queue before it did not leave by the timer."""


class FakeTriton:
    """Doubles `X`; holds every call until the gate is open, and remembers what it was sent."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, Mapping[str, NDArray[Any]], float]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.failures: list[Exception] = []

    async def __call__(
        self, model: str, version: int, inputs: Mapping[str, NDArray[Any]], timeout_s: float
    ) -> dict[str, NDArray[Any]]:
        self.calls.append((model, version, inputs, timeout_s))
        failure = self.failures.pop(0) if self.failures else None
        await self.gate.wait()
        if failure:
            raise failure
        return {"Y": inputs["X"] * 2}

    @property
    def rows(self) -> list[int]:
        return [len(inputs["X"]) for _, _, inputs, _ in self.calls]


class FakeClock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Recorder(SilentObserver):
    def __init__(self) -> None:
        self.rows: list[int] = []
        self.waits: list[float] = []
        self.outcomes: list[str] = []

    def request_waited(self, model: str, version: int, seconds: float) -> None:
        self.waits.append(seconds)

    def batch_sent(self, model: str, version: int, rows: int) -> None:
        self.rows.append(rows)

    def batch_finished(
        self, model: str, version: int, rows: int, seconds: float, outcome: str
    ) -> None:
        self.outcomes.append(outcome)


def row(value: float, count: int = 1, width: int = 3) -> dict[str, NDArray[Any]]:
    return {"X": np.full((count, width), value, np.float32)}


async def turns(count: int = 5) -> None:
    """Let everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


class House:
    """A batcher with its fakes around it."""

    def __init__(self, **config: Any) -> None:
        self.triton = FakeTriton()
        self.clock = FakeClock()
        self.seen = Recorder()
        self.batcher = MicroBatcher(
            self.triton,
            clock=self.clock,
            config=BatcherConfig(**{"max_delay_s": LONG_S, **config}),
            observer=self.seen,
        )

    def send(
        self,
        value: float = 1.0,
        *,
        count: int = 1,
        width: int = 3,
        version: int = 1,
        deadline: float | None = None,
    ) -> asyncio.Task[Any]:
        return asyncio.create_task(
            self.batcher.submit("retrieval", version, row(value, count, width), deadline=deadline)
        )


async def test_a_lone_request_leaves_at_once() -> None:
    house = House()
    answer = await house.send(3.0)
    assert answer["Y"].tolist() == [[6.0, 6.0, 6.0]]
    assert house.triton.rows == [1]


async def test_requests_of_one_turn_share_a_call_and_get_their_own_rows() -> None:
    house = House()
    answers = await asyncio.gather(*(house.send(v, count=v) for v in (1, 2, 3)))
    assert [a["Y"][:, 0].tolist() for a in answers] == [[2.0], [4.0, 4.0], [6.0, 6.0, 6.0]]
    assert house.seen.rows == [6]
    assert house.triton.rows == [8], "padded up to a bucket"
    assert house.triton.calls[0][2]["X"][6:].tolist() == [[0.0] * 3] * 2


async def test_requests_gather_while_every_instance_is_busy_and_leave_when_one_frees() -> None:
    house = House(instances=1)
    house.triton.gate.clear()
    tasks = [house.send(0.0)]
    await turns()
    tasks += [house.send(float(v)) for v in range(1, 6)]
    await turns()
    assert house.triton.rows == [1]
    house.triton.gate.set()
    await asyncio.gather(*tasks)
    assert house.seen.rows == [1, 5]


async def test_a_second_instance_is_used_after_the_delay_only() -> None:
    patient, hasty = House(), House(max_delay_s=0.0)
    for house in (patient, hasty):
        house.triton.gate.clear()
        house.send()
        await turns()
        house.send()
        await asyncio.sleep(0.01)
    assert patient.triton.rows == [1], "waits for company"
    assert hasty.triton.rows == [1, 1]
    for house in (patient, hasty):
        house.triton.gate.set()
        await house.batcher.drain()


async def test_a_full_batch_does_not_wait_for_the_delay() -> None:
    house = House(max_rows=4)
    house.triton.gate.clear()
    tasks = [house.send()]
    await turns()
    tasks += [house.send() for _ in range(4)]
    await turns()
    assert house.triton.rows == [1, 4]
    house.triton.gate.set()
    await asyncio.gather(*tasks)


async def test_no_call_has_more_than_max_rows() -> None:
    house = House(max_rows=4)
    await asyncio.gather(*(house.send(count=3) for _ in range(4)))
    assert house.seen.rows == [3] * 4


async def test_never_more_calls_in_flight_than_instances() -> None:
    house = House(max_rows=1, max_waiting_rows=64, instances=2)
    house.triton.gate.clear()
    tasks = [house.send() for _ in range(6)]
    await turns()
    assert len(house.triton.calls) == 2
    house.triton.gate.set()
    await asyncio.gather(*tasks)
    assert len(house.triton.calls) == 6


async def test_different_versions_and_shapes_do_not_share_a_call() -> None:
    house = House()
    await asyncio.gather(
        house.send(version=1), house.send(version=2), house.send(width=5), house.send(width=5)
    )
    sent = sorted((v, inputs["X"].shape) for _, v, inputs, _ in house.triton.calls)
    assert sent == [(1, (1, 3)), (1, (2, 5)), (2, (1, 3))]


async def test_a_full_queue_refuses_and_recovers() -> None:
    house = House(max_rows=2, max_waiting_rows=2, instances=1)
    house.triton.gate.clear()
    tasks = [house.send()]
    await turns()
    tasks += [house.send(), house.send()]
    await turns()
    with pytest.raises(QueueFull):
        await house.send()
    house.triton.gate.set()
    await asyncio.gather(*tasks)
    await house.send()


async def test_a_deadline_that_has_passed_costs_nothing() -> None:
    house = House()
    with pytest.raises(InferenceDeadline):
        await house.send(deadline=house.clock.now)
    assert house.triton.calls == []


async def test_a_request_that_expires_in_the_queue_is_never_sent() -> None:
    house = House(instances=1)
    house.triton.gate.clear()
    first = house.send(1.0)
    await turns()
    late = house.send(2.0, deadline=house.clock.now + LONG_S)
    other = house.send(3.0)
    await turns()
    house.clock.now += 2 * LONG_S
    house.triton.gate.set()
    with pytest.raises(InferenceDeadline):
        await late
    assert (await other)["Y"][0, 0] == 6.0
    await first
    assert house.seen.rows == [1, 1]


async def test_the_caller_hears_of_the_deadline_while_triton_hangs() -> None:
    house = House(instances=1)
    house.triton.gate.clear()
    in_flight = house.send(deadline=house.clock.now + 0.02)
    await turns()
    queued = house.send(deadline=house.clock.now + 0.02)
    for task in (in_flight, queued):
        with pytest.raises(InferenceDeadline):
            await task
    house.triton.gate.set()
    await house.batcher.drain()
    assert house.triton.rows == [1]


async def test_a_cancelled_request_leaves_the_queue() -> None:
    house = House(instances=1, max_rows=1, max_waiting_rows=1)
    house.triton.gate.clear()
    first = house.send()
    await turns()
    gone = house.send()
    await turns()
    gone.cancel()
    await turns()
    stays = house.send()  # there is room again
    await turns()
    house.triton.gate.set()
    await asyncio.gather(first, stays)
    assert gone.cancelled()
    assert house.triton.rows == [1, 1]


async def test_a_cancelled_caller_does_not_disturb_its_batch() -> None:
    house = House()
    house.triton.gate.clear()
    tasks = [house.send(float(v)) for v in range(3)]
    await turns()
    tasks[1].cancel()
    house.triton.gate.set()
    await turns()
    assert tasks[0].result()["Y"][0, 0] == 0.0
    assert tasks[2].result()["Y"][0, 0] == 4.0


async def test_a_failed_call_fails_its_own_requests_only() -> None:
    house = House(instances=1)
    house.triton.failures = [InferenceFailed("no", detail="secret")]
    first = [house.send(), house.send()]
    await turns(1)
    answers = await asyncio.gather(*first, return_exceptions=True)
    assert [type(a) for a in answers] == [InferenceFailed] * 2
    assert answers[0] is not answers[1]
    assert all(a.detail == "secret" for a in answers)
    assert (await house.send(2.0))["Y"][0, 0] == 4.0
    assert house.seen.outcomes == ["failed", "ok"]


@pytest.mark.parametrize("failure", [KeyError("X"), ZeroDivisionError()])
async def test_an_unforeseen_failure_leaves_nobody_waiting(failure: Exception) -> None:
    house = House()
    house.triton.failures = [failure]
    with pytest.raises(InferenceFailed) as caught:
        await house.send()
    assert type(failure).__name__ in caught.value.detail
    assert type(failure).__name__ not in str(caught.value)


async def test_an_answer_with_too_few_rows_is_a_failure() -> None:
    async def short(*_: Any) -> dict[str, NDArray[Any]]:
        return {"Y": np.zeros((1, 3))}

    batcher = MicroBatcher(short, clock=FakeClock())
    with pytest.raises(InferenceFailed):
        await batcher.submit("retrieval", 1, row(1.0, 2))


async def test_the_call_may_take_as_long_as_its_most_patient_caller() -> None:
    house = House(call_timeout_s=5.0)
    now = house.clock.now
    await asyncio.gather(house.send(deadline=now + 1.0), house.send(deadline=now + 2.0))
    await asyncio.gather(house.send(deadline=now + 1.0), house.send())
    await house.send(deadline=now + 60.0)
    assert [timeout for *_, timeout in house.triton.calls] == [2.0, 5.0, 5.0]


async def test_drain_answers_what_was_accepted_and_refuses_the_rest() -> None:
    house = House(instances=1, max_rows=2)
    house.triton.gate.clear()
    tasks = [house.send(float(v)) for v in range(5)]
    await turns()
    drained = asyncio.create_task(house.batcher.drain())
    await turns()
    with pytest.raises(TritonUnavailable):
        await house.send()
    assert not drained.done()
    house.triton.gate.set()
    await drained
    assert [t.result()["Y"][0, 0] for t in tasks] == [0.0, 2.0, 4.0, 6.0, 8.0]


async def test_the_observer_hears_of_waiting_rows_and_outcomes() -> None:
    house = House(instances=1)
    house.triton.gate.clear()
    tasks = [house.send()]
    await turns()
    tasks.append(house.send(count=3))
    await turns()
    house.clock.now += 0.25
    house.triton.gate.set()
    await asyncio.gather(*tasks)
    assert house.seen.waits == [0.0, 0.25]
    assert house.seen.rows == [1, 3]
    assert house.seen.outcomes == ["ok", "ok"]


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"X": np.zeros((0, 3))},
        {"X": np.zeros((65, 3))},
        {"X": np.float32(1.0)},
        {"X": np.zeros((1, 3)), "Z": np.zeros((2, 3))},
    ],
)
async def test_inputs_without_rows_in_common_are_refused(inputs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="row"):
        await House().batcher.submit("retrieval", 1, inputs)


@pytest.mark.parametrize(
    "wrong", [{"max_rows": 0}, {"instances": 0}, {"max_waiting_rows": 1}, {"max_delay_s": -1.0}]
)
def test_a_configuration_without_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        BatcherConfig(**wrong)


def test_buckets_are_the_powers_of_two_up_to_the_limit() -> None:
    assert [bucket(n, 64) for n in (1, 2, 3, 5, 8, 33, 64)] == [1, 2, 4, 8, 8, 64, 64]
    assert bucket(40, 48) == 48


@given(st.lists(st.integers(1, 8), min_size=1, max_size=40))
def test_whatever_the_grouping_each_caller_gets_its_own_rows(counts: list[int]) -> None:
    async def scenario() -> None:
        house = House(max_rows=8)
        tasks = [house.send(float(i), count=n) for i, n in enumerate(counts)]
        for index, answer in enumerate(await asyncio.gather(*tasks)):
            assert answer["Y"].tolist() == [[2.0 * index] * 3] * counts[index]
        assert sum(house.seen.rows) == sum(counts)
        assert max(house.seen.rows) <= 8

    asyncio.run(scenario())


def test_the_buckets_are_all_that_calls_are_padded_to() -> None:
    assert buckets(64) == [1, 2, 4, 8, 16, 32, 64]
    assert buckets(48) == [1, 2, 4, 8, 16, 32, 48]
    assert buckets(1) == [1]
