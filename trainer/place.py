"""Where a model is trained: the device, its arithmetic, and whether the memory suffices."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from trainer.models.sharded import is_sharded

DeviceName = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16"]

GIB = 2**30


class TrainingError(Exception):
    """Training that cannot go on; the message says what to change."""


@dataclass(frozen=True)
class Place:
    """A device and the arithmetic used on it."""

    device: torch.device
    """Where the model and its batches lie."""
    bf16: bool
    """Whether matrix products are made in bfloat16; weights, sums and losses stay float32."""

    @classmethod
    def choose(cls, device: DeviceName = "auto", precision: Precision = "auto") -> Place:
        """`auto` takes a GPU where there is one, and bfloat16 on a GPU that has it.

        Raises:
            TrainingError: a GPU is asked for and there is none.
        """
        there = torch.cuda.is_available()
        if device == "cuda" and not there:
            raise TrainingError("no CUDA device is there to train on: use --device cpu")
        name = "cuda" if device == "cuda" or (device == "auto" and there) else "cpu"
        able = name == "cuda" and torch.cuda.is_bf16_supported()
        return cls(torch.device(name), precision == "bf16" or (precision == "auto" and able))

    @property
    def is_cuda(self) -> bool:
        """Whether it is a GPU."""
        return self.device.type == "cuda"

    def autocast(self) -> AbstractContextManager[None]:
        """The arithmetic, while a loss is computed."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)


def peak_memory_bytes() -> int:
    """The most memory this process has held so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def check_memory(model: nn.Module, activations: int, place: Place, free: int | None) -> None:
    """Refuse a training that will not fit, before it starts.

    Args:
        model: what is trained; its weights, their gradients, the optimizer's two averages and the
            best weights so far are five times its size, and twice that of tables trained by rows.
        activations: bytes that a step needs beside, roughly.
        place: where it is trained.
        free: bytes there are; None lets it try.

    Raises:
        TrainingError: it does not fit; the message names both sizes and the remedy.
    """
    sizes = [(is_sharded(p), p.numel() * p.element_size()) for p in model.parameters()]
    weights = sum(size for _, size in sizes)
    kept = sum((2 if by_rows else 5) * size for by_rows, size in sizes)
    needed = kept + activations
    if free is not None and needed > free:
        raise TrainingError(
            f"training needs about {needed / GIB:.1f} GiB of {place.device.type} memory, of which "
            f"{kept / GIB:.1f} for {weights / GIB:.1f} GiB of weights, and "
            f"{free / GIB:.1f} GiB are free: lower the recipe's model.dim, batch_positions or "
            "negatives, drop items without events from the catalogue, or take a larger machine"
        )


@contextmanager
def memory_named() -> Iterator[None]:
    """Turn running out of memory into a `TrainingError`."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise TrainingError(_REMEDY) from error
    except RuntimeError as error:
        # The CPU allocator has no error of its own.
        if not any(words in str(error) for words in ("not enough memory", "allocate memory")):
            raise
        raise TrainingError(_REMEDY) from error


_REMEDY = (
    "memory ran out while training: lower the recipe's batch_positions, negatives or model.dim, "
    "or take a larger machine"
)
