"""A retrieval model, eager or exported, that answers in item indexes of a log."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ebbing.history import item_keys
from trainer.data.log import EventLog

RetrievalFunction = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, ...]]


class Retriever:
    """A retrieval model, eager or exported, as item indexes of a log."""

    def __init__(self, model: RetrievalFunction, log: EventLog) -> None:
        self.model = model
        keys = item_keys(log.item_ids)
        self.order = np.argsort(keys)
        self.sorted = keys[self.order]

    def __call__(self, keys: np.ndarray, ages: np.ndarray, types: np.ndarray) -> np.ndarray:
        """Encoded histories (B, L) → (B, K) item indexes, best first; −1 where not in the log."""
        return self.scored(keys, ages, types)[0]

    def scored(
        self, keys: np.ndarray, ages: np.ndarray, types: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """As a call, with the scores (B, K) beside."""
        found, scores = [], []
        for start in range(0, len(keys), 256):
            part = slice(start, start + 256)
            with torch.no_grad():
                best, score, *_ = self.model(
                    torch.from_numpy(keys[part]),
                    torch.from_numpy(ages[part]),
                    torch.from_numpy(types[part]),
                )
            place = np.searchsorted(self.sorted, best.numpy()).clip(max=len(self.sorted) - 1)
            found.append(np.where(self.sorted[place] == best.numpy(), self.order[place], -1))
            scores.append(score.numpy())
        return np.concatenate(found), np.concatenate(scores)
