"""Models in 16 bits: what multiplies does so in bfloat16 or half, what adds up stays in 32 bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch

Precision = Literal["fp32", "bf16", "fp16"]
DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class Tolerance:
    """How far an exported model may be from the one that was trained."""

    largest: float
    """Largest difference of a float output."""
    relative: bool
    """Whether that is a share of the largest magnitude in the output."""
    moved: float
    """Largest share of integers, which name items in order of score, that may trade places."""
    lost: float
    """Largest share of integers that may be missing from an answer."""


TOLERANCES: dict[Precision, Tolerance] = {
    "fp32": Tolerance(1e-4, relative=False, moved=0.01, lost=0.01),
    "bf16": Tolerance(0.05, relative=True, moved=1.0, lost=0.10),
    "fp16": Tolerance(0.01, relative=True, moved=1.0, lost=0.03),
}
"""With 8 or 11 bits of a product instead of 24, items whose scores are near each other trade
places, and those near the end of an answer leave it."""

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def reduce_precision(frozen: torch.jit.ScriptModule, precision: Precision) -> None:
    """Rewrite the graphs of a frozen module, in place, as automatic mixed precision would run them.

    Weights become constants of 16 bits, so that file and memory shrink; matrix products and layers
    take 16 bits; softmax, norms and what else needs the range stay in 32, as do all outputs. The
    file answers alike on CPU and GPU.
    """
    if precision == "fp32":
        return
    with _autocast(_DTYPES[precision]):
        for method in frozen._c._method_names():
            graph = frozen._c._get_method(method).graph
            torch._C._jit_pass_autocast(graph)
            _widen_outputs(graph)
            torch._C._jit_pass_constant_propagation(graph)
            torch._C._jit_pass_dce(graph)


@contextmanager
def _autocast(dtype: torch.dtype) -> Iterator[None]:
    """Mixed precision on both kinds of device, wherever this runs: constants are folded here."""
    before = [(torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in DEVICES]
    for device in DEVICES:
        torch.set_autocast_enabled(device, True)
        torch.set_autocast_dtype(device, dtype)
    try:
        yield
    finally:
        for device, (enabled, kept) in zip(DEVICES, before, strict=True):
            torch.set_autocast_enabled(device, enabled)
            torch.set_autocast_dtype(device, kept)


def _widen_outputs(graph: torch._C.Graph) -> None:
    """Give outputs the 32 bits that the layout promises; integers are as they were."""
    results = list(graph.outputs())
    maker = results[0].node()
    if len(results) == 1 and maker.kind() == "prim::TupleConstruct":
        results, user = list(maker.inputs()), maker
    else:
        user = graph.return_node()
    for place, value in enumerate(results):
        graph.setInsertPoint(user)
        yes = graph.insertConstant(True)
        widened = graph.create("aten::_autocast_to_full_precision", [value, yes, yes])
        widened.insertBefore(user)
        widened.output().setType(value.type())
        user.replaceInput(place, widened.output())
