"""How long a model takes for sample requests, as it will be served: one thread, a few shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ebbing.history import TensorSpec

CANDIDATES = 200
"""What a gateway has ranked for a slate unless it is told otherwise."""
WARM_UP_CALLS = 3
"""Calls that are not counted: the first ones of a shape compile it."""


@dataclass(frozen=True)
class LatencyLimit:
    """How long a model may take where it is published."""

    p99_ms: float = 1000.0
    """Longest time all but a hundredth of the calls may take, milliseconds. The default is half
    of what a gateway waits for Triton: what is slower answers nobody."""
    rows: tuple[int, ...] = (1, 8, 64)
    """Requests in a call; each number is measured, and the limit is on each."""
    calls: int = 50
    """Calls measured of each."""
    seconds: float = 2.0
    """After so long no more are made of one, though there were fewer."""


class TooSlowError(Exception):
    """A model that takes longer than it may; the message has the figures."""


def measure(
    module: nn.Module,
    specs: Sequence[TensorSpec],
    samples: Sequence[Tensor],
    limit: LatencyLimit,
    clock: Callable[[], float],
) -> dict[str, dict[str, float]]:
    """Median and 99th percentile of calls, by the number of requests in one.

    Args:
        module: the model.
        specs: its inputs.
        samples: requests, batch axis first; repeated as often as need be.
        limit: what to measure, and how long it may take.
        clock: seconds.

    Raises:
        TooSlowError: a percentile is above the limit.
    """
    figures = {}
    for rows in limit.rows:
        inputs = [_widened(s, tensor, rows) for s, tensor in zip(specs, samples, strict=True)]
        with _one_thread(), torch.inference_mode():
            times = sorted(_times(module, inputs, limit, clock))
        p99 = _percentile(times, 0.99)
        figures[str(rows)] = {
            "median_ms": round(_percentile(times, 0.5), 3),
            "p99_ms": round(p99, 3),
            "calls": len(times),
        }
        if p99 > limit.p99_ms:
            raise TooSlowError(
                f"takes {p99:.0f} ms (99th percentile of {len(times)} calls) for {rows} requests, "
                f"more than {limit.p99_ms:g} ms"
            )
    return figures


def _times(
    module: nn.Module, inputs: Sequence[Tensor], limit: LatencyLimit, clock: Callable[[], float]
) -> Iterator[float]:
    """Milliseconds of each call."""
    for _ in range(WARM_UP_CALLS):
        module(*inputs)
    begun = before = clock()
    for _ in range(limit.calls):
        module(*inputs)
        now = clock()
        yield 1000.0 * (now - before)
        if now - begun > limit.seconds:
            return
        before = now


def _widened(spec: TensorSpec, tensor: Tensor, rows: int) -> Tensor:
    """The requests repeated to so many rows, and to `CANDIDATES` where the size is free."""
    sizes = [rows, *(CANDIDATES if dim == -1 else dim for dim in spec.dims)]
    times = [math.ceil(size / max(had, 1)) for size, had in zip(sizes, tensor.shape, strict=True)]
    return tensor.repeat(times)[tuple(slice(size) for size in sizes)].contiguous()


def _percentile(ordered: Sequence[float], share: float) -> float:
    """Nearest-rank percentile."""
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


@contextmanager
def _one_thread() -> Iterator[None]:
    """As Triton's instances run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
