from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ebbing.history import RANKING_INPUTS, RETRIEVAL_INPUTS
from trainer.export import (
    ExportError,
    TorchScriptExporter,
    load_exported,
    parity,
    parity_samples,
    sample_inputs,
)


class Scaled(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.long(), x * self.scale


X = [(torch.arange(4.0),)]


def test_what_is_exported_answers_alike(tmp_path: Path) -> None:
    path = tmp_path / "new" / "model.pt"
    assert TorchScriptExporter().export(Scaled(2.0), X, path) == 0.0
    assert load_exported(path)(X[0][0])[1].tolist() == [0.0, 2.0, 4.0, 6.0]


def test_a_difference_is_refused() -> None:
    with pytest.raises(ExportError, match="output 1 differs by"):
        parity(Scaled(1.0), Scaled(1.1), X)


def test_integers_must_agree() -> None:
    class Other(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x.long() + 1, x

    with pytest.raises(ExportError, match=r"output 0: 100\.0% of the integers differ"):
        parity(Scaled(1.0), Other(), X)


def test_shapes_must_agree() -> None:
    class Other(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x.long()[:2], x

    with pytest.raises(ExportError, match="became"):
        parity(Scaled(1.0), Other(), X)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_a_number_is_refused(bad: float, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="output 1 holds NaN or infinity"):
        TorchScriptExporter().export(Scaled(bad), X, tmp_path / "model.pt")


def test_samples_hold_the_hard_cases() -> None:
    keys = np.arange(1, 10)
    history, ages, types = sample_inputs(RETRIEVAL_INPUTS, keys, 16, np.random.default_rng(0))
    assert (history[0] == 0).all()
    assert not np.isin(history[1], keys).any()
    padding = history == 0
    assert (ages[padding] == 0).all()
    assert (types[padding] == 0).all()
    assert (types[~padding] > 0).all()
    assert (padding[:, 1:] <= padding[:, :-1]).all()


def test_samples_are_the_same_every_time() -> None:
    one, two = (parity_samples(RANKING_INPUTS, np.arange(1, 10)) for _ in range(2))
    assert sum(len(inputs[0]) for inputs in one) == 128
    for a, b in zip(one, two, strict=True):
        for x, y in zip(a, b, strict=True):
            torch.testing.assert_close(x, y, rtol=0, atol=0)
