"""Where a run's item encoder places items that its retrieval model does not know."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from ebbing.items import encode_items
from trainer.data.log import EventLog

Placing = Callable[[EventLog, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Items of a log (N,) by index → their vectors (N, D) and popularity (N,)."""

BATCH = 1024


def placing_by(encoder: nn.Module) -> Placing:
    """By what items are about and look like, as the gateway would ask an encoder."""

    def place(log: EventLog, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        vectors, popularity = [], []
        for start in range(0, len(items), BATCH):
            chosen = items[start : start + BATCH].tolist()
            asked = encode_items(
                [log.interests[item] for item in chosen],
                [{name: of[item] for name, of in log.contents.items()} for item in chosen],
            )
            with torch.no_grad():
                own, liked, *_ = encoder(*(torch.from_numpy(part) for part in asked))
            vectors.append(own.float().numpy())
            popularity.append(liked.float().numpy()[:, 0])
        return np.concatenate(vectors), np.concatenate(popularity)

    return place
