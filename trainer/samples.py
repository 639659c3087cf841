"""Sample requests with the answers of the eager model: what a published file must reproduce."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ebbing.history import MODEL_TENSORS
from trainer.export import PARITY_SEED, SAMPLE_DTYPES, outputs_of, sample_inputs

SAMPLE_ROWS = 4


def record(model: str, module: nn.Module, keys: np.ndarray) -> dict[str, Any]:
    """Tensors by name, as nested lists: `SAMPLE_ROWS` random requests and their answers."""
    inputs, outputs = MODEL_TENSORS[model]
    asked = sample_inputs(inputs, keys, SAMPLE_ROWS, np.random.default_rng(PARITY_SEED))
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
