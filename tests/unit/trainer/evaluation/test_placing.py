from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ebbing.history import item_key
from tests.harness.rankings import log_of_rows
from trainer.evaluation import placing
from trainer.evaluation.placing import placing_by


class Counting(nn.Module):
    """Tells of an item whether it is about odd numbers, and how popular these are."""

    def forward(self, keys: Tensor, shares: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
        odd = ((keys[:, :, 0] == item_key("odd")) * shares).sum(dim=1, keepdim=True)
        return torch.cat([odd, 1 - odd], dim=1), 10 * odd, torch.zeros(len(odd), 1)


def test_items_are_placed_by_what_they_are_about(monkeypatch) -> None:
    monkeypatch.setattr(placing, "BATCH", 2)
    vectors, popularity = placing_by(Counting())(log_of_rows([(0, 0)]), np.array([1, 4, 5]))
    assert vectors.tolist() == [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
    assert popularity.tolist() == [10.0, 0.0, 10.0]
