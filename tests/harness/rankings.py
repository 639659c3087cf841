"""Logs whose tests can be worked out by hand, and a model that scores as it is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ebbing.history import item_keys
from trainer.data.log import EventLog

ITEMS = tuple(f"i{n}" for n in range(6))
Row = tuple[int, int]


class Told:
    """A retrieval model whose scores of the items of `ids` are told."""

    def __init__(self, ids: Sequence[str], scores: Callable[[Tensor, Tensor], Tensor]) -> None:
        """`scores`: keys (B, L), number (N,) of each item → (B, N)."""
        keys = item_keys(ids)
        self.order = np.argsort(keys)
        self.keys = torch.from_numpy(keys[self.order])
        self.told = scores

    def scores(self, keys: Tensor, ages: Tensor, types: Tensor) -> Tensor:
        return self.told(keys, torch.from_numpy(self.order)).float()

    def catalogue(self) -> Tensor:
        return self.keys

    def vectors(self) -> Tensor:
        return torch.eye(len(self.keys))[torch.from_numpy(self.order)]

    def __call__(self, keys: Tensor, ages: Tensor, types: Tensor) -> tuple[Tensor, Tensor]:
        best, where = torch.topk(self.scores(keys, ages, types), min(200, len(self.keys)))
        return self.keys[where], best


def log_of_rows(rows: Sequence[Row], items: Sequence[str] = ITEMS, step: float = 100.0) -> EventLog:
    """Views of (user, item), `step` seconds apart in the order given; item n is about n % 2."""
    users, numbers = (np.array(column) for column in zip(*rows, strict=True))
    return EventLog.of(
        [f"u{n}" for n in range(users.max() + 1)],
        items,
        [((("even", "odd")[n % 2], 1.0),) for n in range(len(items))],
        users,
        numbers,
        np.ones(len(rows), np.int32),
        np.arange(len(rows)) * step,
    )
