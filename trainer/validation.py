"""What tells when to stop: the last training event of some users, ranked in the whole catalogue."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from trainer.data.log import EventLog
from trainer.data.sequences import SequenceBatch, Sequences
from trainer.models.sequence import SequenceModel
from trainer.models.vocabulary import FIRST_ITEM_ROW

SCORED_AT_ONCE = 4_000_000
"""Scores held at a time: users times items."""


@dataclass(frozen=True)
class Validation:
    """Means over the users held out; NaN without any."""

    loss: float = math.nan
    """Cross-entropy over the catalogue, in nats."""
    hit_rate_at_10: float = math.nan
    ndcg_at_10: float = math.nan


def validation_split(
    log: EventLog, n: int, random: np.random.Generator, known: np.ndarray | None = None
) -> tuple[EventLog, np.ndarray]:
    """The log without the last event of n random users, and the indexes of those users.

    At most a tenth of the users who have three events or more: a small log has none to spare.

    Args:
        known: (E,) bool, events that the model has been trained on: none of them validates it.
    """
    able = np.flatnonzero(np.diff(log.offsets) >= 3)
    if known is not None:
        able = able[~known[log.offsets[able + 1] - 1]]
    chosen = np.sort(random.choice(able, size=min(n, len(able) // 10), replace=False))
    return log.without(log.offsets[chosen + 1] - 1), chosen


class Held:
    """The users held out, with their whole sequences."""

    def __init__(self, sequences: Sequences, users: np.ndarray, size: int) -> None:
        """`size`: V, the rows of the vocabulary."""
        batch = max(SCORED_AT_ONCE // size, 1)
        self.sequences = sequences
        self.groups = [users[start : start + batch] for start in range(0, len(users), batch)]

    @torch.no_grad()
    def measure(self, model: SequenceModel, device: torch.device) -> Validation:
        """Rank the last event of each; what is in the user's history is not a candidate.

        Histories are as long as the model's: an item had before that is a candidate again, which
        only makes the figure harder to reach.
        """
        if not self.groups:
            return Validation()
        was_training = model.training
        model.eval()
        table = model.items()
        parts = [_ranked(model, table, self.sequences.batch(users)) for users in self.groups]
        model.train(was_training)
        losses, places = (torch.cat(column).double().cpu() for column in zip(*parts, strict=True))
        hit = (places < 10).double()
        return Validation(
            float(losses.mean()),
            float(hit.mean()),
            float((hit / torch.log2(places + 2.0)).mean()),
        )


def _ranked(model: SequenceModel, table: Tensor, batch: SequenceBatch) -> tuple[Tensor, Tensor]:
    """Losses and places, from 0, of the last event of each sequence, (B,) each."""
    rows, types, times, targets = batch.tensors(table.device)
    each = torch.arange(len(rows), device=table.device)
    last = (targets > 0).sum(dim=1) - 1
    users = model(table, rows, types, times)[each, last]
    scores = model.score(table, users)
    target = targets[each, last] - FIRST_ITEM_ROW
    losses = nn.functional.cross_entropy(scores, target, reduction="none")
    wanted = scores[each, target]
    # Rows below the first item's, padding among them, are shown as the target, which ties.
    had = torch.where(rows < FIRST_ITEM_ROW, target[:, None], rows - FIRST_ITEM_ROW)
    scores = scores.scatter(1, had, -torch.inf).scatter(1, target[:, None], wanted[:, None])
    return losses, (scores > wanted[:, None]).sum(dim=1)
