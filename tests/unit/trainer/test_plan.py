"""The plan beside the module it plans."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from trainer.catalogue_loss import AT_ONCE
from trainer.large import LargeObjective, Negatives, Steps
from trainer.models.large import LargeSequenceModel
from trainer.plan import (
    H200,
    LargeShape,
    flops,
    largest_catalogue,
    memory,
    moved,
    parameters,
    rows_used,
    seconds,
    table,
)


def counted(shape: LargeShape) -> int:
    with torch.device("meta"):
        model = LargeSequenceModel(shape.items, shape.config)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    "shape", [LargeShape(), LargeShape().scaled(1000), LargeShape(items=7, dim=12, heads=3)]
)
def test_parameters_are_those_of_the_module(shape: LargeShape) -> None:
    assert counted(shape) == parameters(shape)


def test_the_large_model_is_large_and_fits() -> None:
    shape = LargeShape()
    assert shape.items == 10_000_000
    assert parameters(shape) >= 10**9
    assert sum(memory(shape).values()) < 0.5 * H200.memory_bytes
    assert 1e-4 < max(seconds(shape).values()) < 0.1


def test_the_largest_catalogue_just_fits() -> None:
    shape = LargeShape(items=largest_catalogue(LargeShape()))
    assert sum(memory(shape).values()) == pytest.approx(0.9 * H200.memory_bytes, rel=0.01)


class Moved(TorchDispatchMode):
    """Counts the bytes that operators read and write; views of a tensor move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view and func.__name__ != "_unsafe_view.default":
            self.bytes += sum(
                min(each.numel() * each.element_size(), each.untyped_storage().nbytes())
                for each in tree_leaves((args, kwargs, out))
                if isinstance(each, torch.Tensor) and each.layout == torch.strided
            )
        return out


def step(shape: LargeShape, bf16: bool = False) -> Callable[[], torch.Tensor]:
    model = LargeSequenceModel(shape.items, shape.config)
    rows = torch.randint(2, shape.items + 2, (shape.sequences, shape.length))
    negatives = Negatives(rows.flatten(), shape.items, shape.negatives)
    steps = Steps(LargeObjective(model, negatives, 0.01), 0.01, bf16=bf16)
    times = torch.rand(shape.sequences, shape.length + 1).cumsum(dim=1)
    return partial(steps, rows, torch.ones_like(rows), times, rows)


def test_products_are_those_that_run() -> None:
    shape = LargeShape(items=500, dim=32, heads=2, sequences=8, negatives=64, logged_events=100)
    one = step(shape)
    with FlopCounterMode(display=False) as counter:
        one()
    assert counter.get_total_flops() == pytest.approx(sum(flops(shape).values()), rel=0.05)


@pytest.mark.parametrize(
    "change", [{}, {"negatives": 4096}, {"dim": 256}, {"heads": 8}, {"sequences": 64}]
)
def test_a_step_takes_the_memory_of_the_plan(change: dict[str, int], tmp_path: Path) -> None:
    small = LargeShape(items=2_000, dim=64, heads=2, sequences=24, negatives=256, logged_events=100)
    shape = replace(small, **change)
    one = step(shape)
    one()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        one()
    profiler.export_chrome_trace(str(tmp_path / "trace.json"))
    trace = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    changes = sorted(
        (event["ts"], event["args"]["Bytes"]) for event in trace if event.get("name") == "[memory]"
    )
    peak = max(accumulate(size for _, size in changes))
    kinds = ("vectors of the rows used, and their gradients", "activations", "logits")
    planned = sum(memory(shape, AT_ONCE["cpu"])[kind] for kind in kinds)
    assert peak == pytest.approx(planned, rel=0.2)


@pytest.mark.parametrize("change", [{}, {"negatives": 2048}, {"heads": 8}])
def test_a_step_moves_the_bytes_of_the_plan(change: dict[str, int]) -> None:
    small = LargeShape(items=300, dim=128, heads=2, sequences=32, negatives=256, logged_events=100)
    shape = replace(small, **change)
    one = step(shape, bf16=True)
    one()
    with Moved() as counter:
        one()
    assert counter.bytes == pytest.approx(sum(moved(shape).values()), rel=0.2)


def test_rows_used_are_at_most_those_planned() -> None:
    shape = LargeShape().scaled(1000)
    assert rows_used(shape) == 32 * 51 + 512 + 2


def test_the_plan_reads() -> None:
    text = table(LargeShape())
    assert text.startswith("2,560,668,320 parameters")
    assert text.count("\n| ") > 12
