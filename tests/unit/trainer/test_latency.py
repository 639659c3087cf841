"""What calls take, by a clock that a test turns."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from ebbing.history import RANKING_INPUTS
from trainer.latency import CANDIDATES, WARM_UP_CALLS, LatencyLimit, TooSlowError, measure

SPECS = RANKING_INPUTS
ROWS = 3


class Recorded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []
        self.threads = 0

    def forward(self, *inputs: Tensor) -> Tensor:
        self.shapes.append(tuple(inputs[3].shape))
        self.threads = torch.get_num_threads()
        return inputs[1]


def samples() -> list[Tensor]:
    shapes = [[ROWS, *(20 if dim == -1 else dim for dim in spec.dims)] for spec in SPECS]
    return [torch.zeros(shape) for shape in shapes]


def ticking(*milliseconds: float) -> Iterator[float]:
    """A clock by which one call after another takes so long."""
    now = 0.0
    yield now
    for took in milliseconds:
        now += took / 1000.0
        yield now


def test_median_and_percentile_of_each_number_of_requests() -> None:
    model = Recorded()
    limit = LatencyLimit(p99_ms=50.0, rows=(1, 8), calls=4)
    times = [*ticking(1, 2, 3, 40), *ticking(5, 5, 5, 5)]
    figures = measure(model, SPECS, samples(), limit, iter(times).__next__)
    assert figures == {
        "1": {"median_ms": 2.0, "p99_ms": 40.0, "calls": 4},
        "8": {"median_ms": 5.0, "p99_ms": 5.0, "calls": 4},
    }
    calls = 4 + WARM_UP_CALLS
    assert model.shapes == [(1, CANDIDATES)] * calls + [(8, CANDIDATES)] * calls
    assert model.threads == 1


def test_a_hundredth_of_the_calls_may_be_slower() -> None:
    times = ticking(*[1.0] * 99, 5000.0)
    limit = LatencyLimit(p99_ms=50.0, rows=(1,), calls=100, seconds=60.0)
    figures = measure(Recorded(), SPECS, samples(), limit, times.__next__)
    assert figures["1"]["p99_ms"] == 1.0


def test_too_slow_says_how_slow() -> None:
    limit = LatencyLimit(p99_ms=50.0, rows=(1, 64), calls=2)
    times = iter([*ticking(1, 1), *ticking(10, 60)])
    with pytest.raises(TooSlowError, match=r"takes 60 ms \(99th .* 2 calls\) for 64 .* than 50 ms"):
        measure(Recorded(), SPECS, samples(), limit, times.__next__)


def test_slow_calls_are_not_repeated_for_ever() -> None:
    limit = LatencyLimit(p99_ms=5000.0, rows=(1,), calls=100, seconds=2.0)
    times = ticking(*[900.0] * 100)
    figures = measure(Recorded(), SPECS, samples(), limit, times.__next__)
    assert figures["1"]["calls"] == 3
