"""Baselines that are counted, not trained, and served like any other retrieval model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from trainer.data.log import EventLog
from trainer.models.simple import DecayModel, PopularModel
from trainer.models.vocabulary import Vocabulary

DAY_S = 86_400.0
WIDTH = 64
"""Width of the item vectors: random projections of the interests, which keep who is alike."""
PROJECTION_SEED = 20_251_129


@dataclass(frozen=True)
class PopularConfig:
    """The items most engaged lately, the same for everybody."""

    window_days: float = 365.0
    """What counts as lately: so long before the end of the log; a day at least has events."""


@dataclass(frozen=True)
class DecayConfig:
    """A user's own items and interests by exponentially decayed counts."""

    half_life_days: float = 30.0
    """Time in which the count of an event halves."""
    own: float = 0.2
    """Weight of the user's own items."""
    interest: float = 0.6
    """Weight of the user's interests; popularity has what is left of 1."""


SimpleConfig = PopularConfig | DecayConfig


def fit_simple(
    log: EventLog,
    config: SimpleConfig,
    vocabulary: Vocabulary,
    row_of: np.ndarray,
    item_of: np.ndarray,
) -> nn.Module:
    """The module that is served.

    Args:
        log: what is counted.
        config: which baseline.
        vocabulary: the rows.
        row_of: (I,) row of each item of the log.
        item_of: (V,) item of each row, −1 for the special ones.
    """
    columns, shares = _interests(log, item_of)
    table = _projected(columns, shares)
    rows = row_of[log.items]
    if isinstance(config, PopularConfig):
        lately = log.times >= log.times.max(initial=0.0) - config.window_days * DAY_S
        counts = np.bincount(rows[lately], minlength=vocabulary.size())
        # Items without an engagement in the window follow, by those before it.
        earlier = np.bincount(rows, minlength=vocabulary.size())
        score = torch.from_numpy(np.log(counts + 1e-6 * (earlier + 1.0))).float()
        return PopularModel(vocabulary, table, score).eval()
    counts = torch.from_numpy(np.bincount(rows, minlength=vocabulary.size())).float()
    engaged = torch.zeros(int(columns.max()) + 1).index_add(
        0, columns.flatten(), (counts[:, None] * (shares > 0)).flatten()
    )
    within = torch.where(shares > 0, counts[:, None] / engaged[columns].clamp(min=1.0), 0.0)
    return DecayModel(
        vocabulary,
        table,
        counts / counts.sum().clamp(min=1.0),
        columns,
        shares,
        within,
        config.half_life_days * DAY_S,
        config.own,
        config.interest,
    ).eval()


def _interests(log: EventLog, item_of: np.ndarray) -> tuple[Tensor, Tensor]:
    """Interests of each row as (V, J) numbers and shares; both 0 where it has fewer."""
    names: dict[str, int] = {}
    most = max((len(pairs) for pairs in log.interests), default=0)
    columns = np.zeros((len(item_of), max(most, 1)), np.int64)
    shares = np.zeros(columns.shape, np.float32)
    for row, item in enumerate(item_of.tolist()):
        for place, (path, share) in enumerate(log.interests[item] if item >= 0 else ()):
            columns[row, place] = names.setdefault(path, len(names))
            shares[row, place] = share
    return torch.from_numpy(columns), torch.from_numpy(shares)


def _projected(columns: Tensor, shares: Tensor) -> Tensor:
    """(V, D) sums of the interests' random directions, each of length about 1."""
    random = torch.Generator().manual_seed(PROJECTION_SEED)
    directions = torch.randn(int(columns.max()) + 1, WIDTH, generator=random) / WIDTH**0.5
    return (directions[columns] * shares[:, :, None]).sum(dim=1)
