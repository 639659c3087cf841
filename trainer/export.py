"""Export of trained modules to the format Triton loads, and proof that nothing changed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch._jit_internal import FunctionModifiers

from ebbing.features import CANDIDATE_FEATURES
from ebbing.history import HISTORY_LENGTH, TensorSpec, item_key
from ebbing.items import encode_items
from ebbing.torchscript import TorchScriptError, check_archive
from trainer.data.log import EventLog
from trainer.operators import check_graphs
from trainer.precision import TOLERANCES, Precision, Tolerance, reduce_precision

FP32 = TOLERANCES["fp32"]
PARITY_ATOL = FP32.largest
"""Largest difference between the eager module and its export in 32 bits, in any float output."""

PARITY_SEED = 20_250_601
"""Seed of the random histories the two are compared on."""

SAMPLE_DTYPES = {"INT64": torch.int64, "INT32": torch.int32, "FP32": torch.float32}


class ExportError(Exception):
    """A module that does not survive its export; the message says which output differs."""


class Exporter(Protocol):
    """Writes a module as a file Triton loads."""

    def export(self, module: nn.Module, samples: Sequence[tuple[Tensor, ...]], path: Path) -> float:
        """Write the module to `path` and compare the reloaded file with it on `samples`.

        Returns:
            The largest difference of any float output, as the precision's tolerance counts it.

        Raises:
            ExportError: it differs by more than the precision's tolerance, an output is not
                finite, or it uses operators a published model may not.
        """
        ...


class TorchScriptExporter:
    """Exports by scripting; frozen where that changes nothing, or where 16 bits need it."""

    def __init__(self, precision: Precision = "fp32") -> None:
        """`precision`: what the file computes in; its inputs and outputs stay what they are."""
        self.precision = precision

    def export(self, module: nn.Module, samples: Sequence[tuple[Tensor, ...]], path: Path) -> float:
        """As `Exporter.export`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with _knowingly_deprecated():
            scripted = torch.jit.script(module.eval())
            try:
                frozen = torch.jit.freeze(scripted, _exported_methods(module))
                reduce_precision(frozen, self.precision)
                torch.jit.save(frozen, path)
                return _compared(module, path, samples, TOLERANCES[self.precision])
            except ExportError:
                if self.precision != "fp32":
                    raise
                torch.jit.save(scripted, path)
                return _compared(module, path, samples, FP32)


def _exported_methods(module: nn.Module) -> list[str]:
    """Methods marked with `torch.jit.export`, which freezing would drop."""
    modifiers = {
        name: getattr(getattr(type(module), name, None), "_torchscript_modifier", None)
        for name in dir(type(module))
    }
    return [n for n, found in modifiers.items() if found is FunctionModifiers.EXPORT]


def _compared(
    module: nn.Module, path: Path, samples: Sequence[tuple[Tensor, ...]], tolerance: Tolerance
) -> float:
    try:
        return parity(module, load_exported(path), samples, tolerance)
    except TorchScriptError as error:
        raise ExportError(str(error)) from error


def load_exported(path: Path) -> nn.Module:
    """Load what `TorchScriptExporter` wrote, on the CPU.

    TorchScript is code that may run as it is loaded, so the file is read as text first; then the
    graphs that will run are looked through.

    Raises:
        TorchScriptError: it is not TorchScript, or uses operators a published model may not.
        RuntimeError, ValueError, OSError: it does not load all the same.
    """
    check_archive(path)
    with _knowingly_deprecated():
        module = torch.jit.load(path, map_location="cpu")
        check_graphs(module, path)
    return module.eval()


@contextmanager
def _knowingly_deprecated() -> Iterator[None]:
    """PyTorch deprecates TorchScript, but it is what Triton's libtorch backend loads."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        yield


def parity(
    one: nn.Module,
    other: nn.Module,
    samples: Sequence[tuple[Tensor, ...]],
    tolerance: Tolerance = FP32,
) -> float:
    """Largest difference of two modules over all samples and float outputs.

    Raises:
        ExportError: as `difference`.
    """
    worst = 0.0
    with torch.no_grad():
        for inputs in samples:
            answers = zip(outputs_of(one(*inputs)), outputs_of(other(*inputs)), strict=True)
            for number, (a, b) in enumerate(answers):
                worst = max(worst, difference(f"output {number}", a, b, tolerance))
    return worst


def difference(name: str, wanted: Tensor, answer: Tensor, tolerance: Tolerance = FP32) -> float:
    """Largest difference of two float tensors, as `tolerance` counts it; 0 for integers.

    Raises:
        ExportError: they differ by more than that, in shape or in type, or hold NaN.
    """
    if wanted.shape != answer.shape or wanted.dtype != answer.dtype:
        raise ExportError(
            f"{name}: {list(wanted.shape)} {wanted.dtype} became "
            f"{list(answer.shape)} {answer.dtype}"
        )
    if not wanted.is_floating_point():
        # Items whose scores tie may trade places; a wrong vocabulary moves most of them.
        moved = float((wanted != answer).float().mean())
        if moved > tolerance.moved:
            raise ExportError(f"{name}: {moved:.1%} of the integers differ")
        lost = _lost(wanted, answer)
        if lost > tolerance.lost:
            raise ExportError(f"{name}: {lost:.1%} of the integers are missing")
        return 0.0
    if not (bool(wanted.isfinite().all()) and bool(answer.isfinite().all())):
        raise ExportError(f"{name} holds NaN or infinity")
    worst = float((wanted - answer).abs().max())
    if tolerance.relative:
        worst /= max(float(wanted.abs().max()), 1e-12)
    if worst > tolerance.largest:
        of = " of its largest value" if tolerance.relative else ""
        raise ExportError(f"{name} differs by {worst:.2g}{of}, more than {tolerance.largest:.0e}")
    return worst


def _lost(wanted: Tensor, answer: Tensor) -> float:
    """Share of the integers of each row that its answer does not have, wherever in it."""
    if wanted.dim() < 2:
        return float((wanted != answer).float().mean())
    rows = zip(wanted.flatten(1).tolist(), answer.flatten(1).tolist(), strict=True)
    shares = [len(set(row) - set(found)) / len(set(row)) for row, found in rows]
    return sum(shares) / len(shares)


def outputs_of(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A module's result as a tuple, whether it has one output or several."""
    return (result,) if isinstance(result, Tensor) else tuple(result)


def sample_inputs(
    specs: Sequence[TensorSpec], keys: np.ndarray, rows: int, random: np.random.Generator
) -> tuple[Tensor, ...]:
    """Random inputs of a model, as the layout has them: right-aligned, some keys unknown.

    Args:
        specs: the model's inputs.
        keys: (I,) item keys the model may know.
        rows: batch size; row 0 is an empty history, row 1, if there is one, all unknown.
        random: where the numbers come from.
    """
    filled = random.integers(0, HISTORY_LENGTH + 1, size=rows)
    filled[0] = 0
    real = np.arange(HISTORY_LENGTH) >= (HISTORY_LENGTH - filled)[:, None]
    history = random.choice(keys, size=real.shape)
    unknown = random.random(real.shape) < 0.05
    if rows > 1:
        unknown[1] = True
    history = np.where(unknown, random.integers(1, 2**63 - 1, size=real.shape), history)
    ages = -np.sort(-random.exponential(30 * 86_400.0, size=real.shape), axis=1)
    candidates = random.choice(keys, size=(rows, 20))
    values = {
        "HISTORY_KEYS__0": np.where(real, history, 0),
        "HISTORY_AGES__1": np.where(real, ages, 0.0),
        "HISTORY_TYPES__2": np.where(real, random.integers(1, 14, size=real.shape), 0),
        "CANDIDATE_KEYS__3": candidates,
        "CANDIDATE_FEATURES__4": random.random((rows, 20, len(CANDIDATE_FEATURES))),
    }
    return tuple(
        torch.from_numpy(values[spec.name]).to(SAMPLE_DTYPES[spec.dtype]) for spec in specs
    )


def item_samples(log: EventLog, batches: int = 4, batch: int = 32) -> list[tuple[Tensor, ...]]:
    """Seeded inputs of an item encoder: items of a log, some interests unknown; the first of each
    batch is about nothing, the second about what nobody knows."""
    random = np.random.default_rng(PARITY_SEED)
    samples = []
    for _ in range(batches):
        items = random.integers(len(log.item_ids), size=batch).tolist()
        encoded = encode_items(
            [(), (("nobody/knows", 1.0),), *(log.interests[item] for item in items[2:])],
            [{name: vectors[item] for name, vectors in log.contents.items()} for item in items],
        )
        unknown = random.random(encoded.interest_keys.shape) < 0.05
        keys = np.where(
            unknown & (encoded.interest_keys != 0), item_key("nobody"), encoded.interest_keys
        )
        parts = encoded._replace(interest_keys=keys)
        samples.append(tuple(torch.from_numpy(part) for part in parts))
    return samples


def parity_samples(
    specs: Sequence[TensorSpec], keys: np.ndarray, histories: int = 128, batch: int = 32
) -> list[tuple[Tensor, ...]]:
    """Seeded inputs to compare on, in batches."""
    random = np.random.default_rng(PARITY_SEED)
    return [sample_inputs(specs, keys, batch, random) for _ in range(histories // batch)]
