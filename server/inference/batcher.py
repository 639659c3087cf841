"""Turns many callers' small requests into few calls to Triton.

Requests that may share a call wait together: the same model, the same version, the same inner
shapes. A call leaves at once when the model stands idle; when it is busy but has an instance
free, within `max_delay_s`; when every instance is busy, as soon as one frees, with everything
that has gathered meanwhile. So a lone caller pays nothing and the batches grow with the load.
"""

from __future__ import annotations

import asyncio
import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from server.inference.errors import (
    InferenceDeadline,
    InferenceError,
    InferenceFailed,
    QueueFull,
    TritonUnavailable,
)

Tensors = Mapping[str, NDArray[np.generic]]
Signature = tuple[tuple[str, str, tuple[int, ...]], ...]


class InferencePort(Protocol):
    """The call to Triton, as `TritonClient.infer` makes it."""

    async def __call__(
        self, model: str, version: int, inputs: Tensors, timeout_s: float
    ) -> Tensors: ...


class BatchObserver(Protocol):
    """What metrics want to know. The methods are called on the event loop and must not block."""

    def request_waited(self, model: str, version: int, seconds: float) -> None:
        """A request left the queue for Triton after `seconds`."""

    def batch_sent(self, model: str, version: int, rows: int) -> None:
        """A call with so many rows left for Triton; padding is not counted."""

    def batch_finished(
        self, model: str, version: int, rows: int, seconds: float, outcome: str
    ) -> None:
        """A call with so many rows ended: `ok`, or the `outcome` of its `InferenceError`."""


class SilentObserver:
    """The observer that observes nothing."""

    def request_waited(self, model: str, version: int, seconds: float) -> None:
        """See `BatchObserver`."""

    def batch_sent(self, model: str, version: int, rows: int) -> None:
        """See `BatchObserver`."""

    def batch_finished(
        self, model: str, version: int, rows: int, seconds: float, outcome: str
    ) -> None:
        """See `BatchObserver`."""


@dataclass(frozen=True)
class BatcherConfig:
    """How requests are grouped."""

    max_rows: int = 64
    """Rows of one call; also of one request. At most `max_batch_size` of the model."""
    max_delay_s: float = 0.001
    """Longest a request waits for company while an instance is free."""
    instances: int = 2
    """Calls in flight per model version: `instance_group` of the model."""
    max_waiting_rows: int = 1024
    """Rows waiting per model version before `QueueFull`."""
    call_timeout_s: float = 5.0
    """Longest a call to Triton may take where no caller in it asks for less."""

    def __post_init__(self) -> None:
        if self.max_rows < 1 or self.instances < 1 or self.max_waiting_rows < self.max_rows:
            raise ValueError(
                "max_rows and instances must be at least 1, max_waiting_rows at least max_rows"
            )
        if self.max_delay_s < 0 or self.call_timeout_s <= 0:
            raise ValueError("max_delay_s must not be negative, call_timeout_s must be positive")


@dataclass(eq=False, slots=True)
class _Request:
    inputs: Tensors
    signature: Signature
    rows: int
    deadline: float | None
    arrived: float
    answer: asyncio.Future[Tensors]


class MicroBatcher:
    """Batches requests to Triton. Belongs to one event loop."""

    def __init__(
        self,
        infer: InferencePort,
        *,
        clock: Callable[[], float],
        config: BatcherConfig | None = None,
        observer: BatchObserver | None = None,
    ) -> None:
        """Args:
        infer: makes one call to Triton; its failures are `InferenceError`.
        clock: monotonic seconds, the clock that deadlines are given in.
        config: how to group; the defaults suit a model with two instances.
        observer: told of every call; silent by default.
        """
        self._infer = infer
        self._clock = clock
        self._config = config or BatcherConfig()
        self._observer = observer or SilentObserver()
        self._lanes: dict[tuple[str, int], _Lane] = {}
        self._draining = False

    async def submit(
        self, model: str, version: int, inputs: Tensors, *, deadline: float | None = None
    ) -> Tensors:
        """Answer one request, alone or in company.

        Args:
            model: name of the model.
            version: version of the model, always pinned.
            inputs: tensors by name, all with the same leading axis of 1 … `max_rows` rows.
            deadline: on the batcher's clock; None leaves only `call_timeout_s`.

        Returns:
            Output tensors by name with the same leading axis, read-only.

        Raises:
            InferenceDeadline: the deadline passed, in the queue or in Triton.
            QueueFull: `max_waiting_rows` are waiting for this model version.
            TritonUnavailable: Triton cannot be reached, or the batcher is draining.
            InferenceFailed: Triton refused the call this request was in.
            ValueError: the inputs have no common leading axis, or too many rows.
        """
        rows = _row_count(inputs, self._config.max_rows)
        if self._draining:
            raise TritonUnavailable("the inference queue is shutting down")
        now = self._clock()
        if deadline is not None and deadline <= now:
            raise InferenceDeadline("the deadline had passed before the request was queued")
        loop = asyncio.get_running_loop()
        request = _Request(inputs, _signature(inputs), rows, deadline, now, loop.create_future())
        lane = self._lane(model, version)
        lane.enqueue(request)
        expiry = None
        if deadline is not None:
            expiry = loop.call_later(deadline - now, _expire, request)
        try:
            return await request.answer
        finally:
            if expiry is not None:
                expiry.cancel()
            lane.withdraw(request)

    async def drain(self) -> None:
        """Refuse new requests and wait until every accepted one is answered."""
        self._draining = True
        for lane in self._lanes.values():
            lane.flush()
        while calls := [call for lane in self._lanes.values() for call in lane.calls]:
            await asyncio.wait(calls)

    def _lane(self, model: str, version: int) -> _Lane:
        lane = self._lanes.get((model, version))
        if lane is None:
            lane = _Lane(model, version, self._infer, self._clock, self._config, self._observer)
            self._lanes[model, version] = lane
        return lane


class _Lane:
    """The requests waiting for one version of one model, and its calls in flight."""

    def __init__(
        self,
        model: str,
        version: int,
        infer: InferencePort,
        clock: Callable[[], float],
        config: BatcherConfig,
        observer: BatchObserver,
    ) -> None:
        self.calls: set[asyncio.Task[None]] = set()
        self._model = model
        self._version = version
        self._infer = infer
        self._clock = clock
        self._config = config
        self._observer = observer
        # Ordered, so that a request leaves from anywhere in constant time; both levels oldest
        # first.
        self._waiting: OrderedDict[Signature, OrderedDict[_Request, None]] = OrderedDict()
        self._waiting_rows = 0
        self._in_flight = 0
        self._timer: asyncio.Handle | None = None
        self._urgent = False

    def enqueue(self, request: _Request) -> None:
        if self._waiting_rows + request.rows > self._config.max_waiting_rows:
            raise QueueFull(f"too many requests are waiting for {self._model}")
        self._waiting.setdefault(request.signature, OrderedDict())[request] = None
        self._waiting_rows += request.rows
        self._schedule()

    def withdraw(self, request: _Request) -> None:
        """Take a request out of the queue, where it still is when its caller gave up."""
        if request in self._waiting.get(request.signature, ()):
            self._remove(request)

    def flush(self) -> None:
        """Send what waits, oldest group first, as far as instances are free."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting and self._in_flight < self._config.instances:
            batch = self._take()
            if batch:
                self._in_flight += 1
                call = asyncio.get_running_loop().create_task(self._call(batch))
                self.calls.add(call)
                call.add_done_callback(self.calls.discard)

    def _schedule(self) -> None:
        if self._in_flight >= self._config.instances:
            return
        urgent = self._in_flight == 0 or self._waiting_rows >= self._config.max_rows
        if self._timer is not None:
            if self._urgent or not urgent:
                return
            self._timer.cancel()
        self._urgent = urgent
        loop = asyncio.get_running_loop()
        # Urgent is the end of the loop's turn, not this instant: callers that became ready in the
        # same turn come along for free.
        self._timer = (
            loop.call_soon(self.flush)
            if urgent
            else loop.call_later(self._config.max_delay_s, self.flush)
        )

    def _take(self) -> list[_Request]:
        """Up to `max_rows` rows of the oldest group, without those nobody waits for any more."""
        signature, group = next(iter(self._waiting.items()))
        now = self._clock()
        batch: list[_Request] = []
        rows = 0
        while group:
            request = next(iter(group))
            if rows + request.rows > self._config.max_rows:
                # The other groups have waited longer than what stays behind.
                self._waiting.move_to_end(signature)
                break
            self._remove(request)
            if request.deadline is not None and request.deadline <= now:
                _expire(request)
            if not request.answer.done():
                batch.append(request)
                rows += request.rows
        return batch

    def _remove(self, request: _Request) -> None:
        group = self._waiting[request.signature]
        del group[request]
        self._waiting_rows -= request.rows
        if not group:
            del self._waiting[request.signature]

    async def _call(self, batch: Sequence[_Request]) -> None:
        rows = sum(request.rows for request in batch)
        started = self._clock()
        for request in batch:
            self._observer.request_waited(
                self._model, self._version, max(0.0, started - request.arrived)
            )
        self._observer.batch_sent(self._model, self._version, rows)
        outcome = "ok"
        try:
            inputs = _concatenate(batch, bucket(rows, self._config.max_rows) - rows)
            timeout_s = self._timeout(batch, started)
            _answer(batch, await self._infer(self._model, self._version, inputs, timeout_s))
        except InferenceError as error:
            outcome = error.outcome
            _fail(batch, error)
        except asyncio.CancelledError:
            outcome = "cancelled"
            _fail(batch, TritonUnavailable("the call to Triton was cancelled"))
            raise
        except Exception as error:  # whatever it is, no caller may be left waiting for ever
            failed = InferenceFailed("the answer of the model cannot be used", detail=repr(error))
            outcome = failed.outcome
            _fail(batch, failed)
        finally:
            self._in_flight -= 1
            self._observer.batch_finished(
                self._model, self._version, rows, max(0.0, self._clock() - started), outcome
            )
            self.flush()

    def _timeout(self, batch: Sequence[_Request], now: float) -> float:
        """Seconds until nobody in the batch can use the answer any more."""
        limit = self._config.call_timeout_s
        deadlines = [request.deadline for request in batch]
        return max(limit if d is None else min(limit, d - now) for d in deadlines)


def bucket(rows: int, max_rows: int) -> int:
    """Rows a call is padded up to: the next power of two, at most `max_rows`.

    A model then meets few shapes, each of which can be warmed up before traffic.
    """
    return min(1 << (rows - 1).bit_length(), max_rows)


def buckets(max_rows: int) -> list[int]:
    """All the row counts that calls are padded up to, ascending."""
    return sorted({bucket(rows, max_rows) for rows in range(1, max_rows + 1)})


def _row_count(inputs: Tensors, max_rows: int) -> int:
    counts = {tensor.shape[:1] for tensor in inputs.values()}
    if len(counts) != 1 or counts == {()}:
        raise ValueError("the input tensors need one common leading axis of rows")
    rows: int = counts.pop()[0]
    if not 1 <= rows <= max_rows:
        raise ValueError(f"a request needs 1 to {max_rows} rows, not {rows}")
    return rows


def _signature(inputs: Tensors) -> Signature:
    return tuple((name, tensor.dtype.str, tensor.shape[1:]) for name, tensor in inputs.items())


def _concatenate(batch: Sequence[_Request], padding: int) -> dict[str, NDArray[np.generic]]:
    """The rows of all requests in order, then `padding` rows of zeros."""
    joined = {}
    for name in batch[0].inputs:
        parts = [request.inputs[name] for request in batch]
        if padding:
            parts.append(np.zeros((padding, *parts[0].shape[1:]), parts[0].dtype))
        joined[name] = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return joined


def _answer(batch: Sequence[_Request], outputs: Tensors) -> None:
    """Give every request its own rows; the rows of the padding are nobody's."""
    start = 0
    for request in batch:
        stop = start + request.rows
        own = {name: tensor[start:stop] for name, tensor in outputs.items()}
        if any(len(tensor) != request.rows for tensor in own.values()):
            raise InferenceFailed("the model answered with fewer rows than it was asked for")
        if not request.answer.done():
            request.answer.set_result(own)
        start = stop


def _fail(batch: Sequence[_Request], error: InferenceError) -> None:
    for request in batch:
        if not request.answer.done():
            # A copy each: callers that raise one shared exception grow one shared traceback.
            request.answer.set_exception(copy.copy(error))


def _expire(request: _Request) -> None:
    if not request.answer.done():
        request.answer.set_exception(
            InferenceDeadline("the model's answer did not come before the deadline")
        )
