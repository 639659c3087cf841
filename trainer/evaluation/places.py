"""Where the wanted items stand in the whole catalogue, and what stands before them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from trainer.data.log import EventLog
from trainer.evaluation.scorers import Scorer, had_before

LONGEST = 50
"""Items of a slate that are kept of each test."""

BATCH_SCORES = 2_000_000
"""Scores that are held at once."""


@dataclass(frozen=True)
class Places:
    """What a scorer answered to T tests."""

    ranks: np.ndarray
    """(T,) int64 rank of the wanted item, from 1; everything that scores the same counts as before
    it, and what the scorer does not know comes last."""
    slates: np.ndarray
    """(T, `LONGEST`) int32 items, best first; −1 where there are no more."""

    def __getitem__(self, which: np.ndarray) -> Places:
        return Places(self.ranks[which], self.slates[which])


def places_of(
    log: EventLog,
    events: np.ndarray,
    scorer: Scorer,
    repeats: bool,
    advance: Callable[[int], None] = lambda _: None,
) -> Places:
    """Ask a scorer for the items of some events.

    Args:
        log: the events'; its items are the catalogue.
        events: (T,) event numbers.
        scorer: who is asked.
        repeats: whether what a user had before is ranked too.
        advance: told of tests done.
    """
    ranks, slates = [np.zeros(0, np.int64)], [np.zeros((0, LONGEST), np.int32)]
    for part in batches(events, max(BATCH_SCORES // len(log.item_ids), 1)):
        scores = scorer(part)
        left_out = np.zeros(scores.shape, bool)
        if not repeats:
            rows, past = had_before(log, part)
            left_out[rows, log.items[past]] = True
        ranks.append(ranks_among(scores, log.items[part], left_out))
        slates.append(best_of(scores, left_out))
        advance(len(part))
    return Places(np.concatenate(ranks), np.concatenate(slates))


def ranks_among(scores: np.ndarray, wanted: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """(B,) ranks of the wanted items (B,) by scores (B, I), those left out (B, I) not counted."""
    own = np.take_along_axis(scores, wanted[:, None], axis=1)
    ranks: np.ndarray = ((scores >= own) & ~left_out).sum(axis=1)
    return ranks


def best_of(scores: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """(B, `LONGEST`) items by scores (B, I), best first; −1 where none is left with a score."""
    allowed = torch.from_numpy(np.where(left_out, -np.inf, scores))
    best, items = torch.topk(allowed, min(LONGEST, scores.shape[1]), dim=1)
    slates = np.full((len(scores), LONGEST), -1, np.int32)
    slates[:, : items.shape[1]] = torch.where(best > -torch.inf, items, -1).numpy()
    return slates


def batches(events: np.ndarray, most: int) -> Iterator[np.ndarray]:
    """Events in parts of at most so many, 256 at most."""
    size = min(most, 256)
    for start in range(0, len(events), size):
        yield events[start : start + size]
