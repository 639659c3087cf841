"""Sample requests with the answers of the eager model: what a published file must reproduce."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ebbing.history import MODEL_TENSORS
from trainer.export import SAMPLE_DTYPES, outputs_of

SAMPLE_ROWS = 4


def record(model: str, module: nn.Module, asked: Sequence[Tensor]) -> dict[str, Any]:
    """Tensors by name, as nested lists: the first `SAMPLE_ROWS` requests and their answers."""
    inputs, outputs = MODEL_TENSORS[model]
    asked = [tensor[:SAMPLE_ROWS] for tensor in asked]
    with torch.no_grad():
        answered = outputs_of(module(*asked))
    return {
        "inputs": {s.name: t.tolist() for s, t in zip(inputs, asked, strict=True)},
        "outputs": {s.name: t.tolist() for s, t in zip(outputs, answered, strict=True)},
    }


def restore(model: str, recorded: Mapping[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
    """The inputs and outputs of `record`, in the order of the layout.

    Raises:
        KeyError, TypeError, ValueError: it is not such a record.
    """
    inputs, outputs = (
        [torch.tensor(recorded[part][spec.name], dtype=SAMPLE_DTYPES[spec.dtype]) for spec in specs]
        for part, specs in zip(("inputs", "outputs"), MODEL_TENSORS[model], strict=True)
    )
    return inputs, outputs
