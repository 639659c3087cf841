"""Figures of one scorer's answers: how high the wanted item stands, and what slates are like."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from trainer.data.log import EventLog
from trainer.evaluation.places import LONGEST, Places

CUTOFFS = (1, 5, 10, 20, 50)
"""Lengths of the slates that are looked at."""

SLATE = 10
"""Length of the slate whose coverage, novelty and diversity are reported."""

assert max(*CUTOFFS, SLATE) <= LONGEST

Measured = Mapping[str, np.ndarray]
"""Name → (T,) figure of each test, NaN where it has none; the mean over tests is reported."""


def rank_figures(ranks: np.ndarray) -> dict[str, np.ndarray]:
    """Hit rates, gains and reciprocal ranks of T tests with one wanted item each.

    With one wanted item, DCG's ideal is 1, so that NDCG@k is 1 / log2(1 + rank) within the first k
    and 0 beyond (Järvelin & Kekäläinen 2002).

    Args:
        ranks: (T,) from 1.
    """
    rank = ranks.astype(np.float64)
    gain = 1.0 / np.log2(1.0 + rank)
    return {
        **{f"hit_rate_at_{k}": (ranks <= k).astype(np.float64) for k in CUTOFFS},
        **{f"ndcg_at_{k}": np.where(ranks <= k, gain, 0.0) for k in CUTOFFS},
        "mrr": 1.0 / rank,
    }


def of_slates(means: Mapping[str, float]) -> dict[str, float]:
    """What follows from mean hit rates, taking a slate as the prediction that all in it is wanted.

    Recall is the hit rate, precision its k-th part, as one item is wanted of k; F1 is their
    harmonic mean, 2 · hit rate / (k + 1). Accuracy is the share of tests whose first item is right.
    """
    found = {"accuracy": means["hit_rate_at_1"]}
    for k in CUTOFFS:
        hits = means[f"hit_rate_at_{k}"]
        found |= {f"precision_at_{k}": hits / k, f"recall_at_{k}": hits}
        found[f"f1_at_{k}"] = 2.0 * hits / (k + 1)
    return found


def coverage(slates: np.ndarray, n_items: int) -> float:
    """Share of the catalogue that is in somebody's slate of `SLATE`; slates (T, ≥ `SLATE`)."""
    shown = np.unique(slates[:, :SLATE])
    return float((shown >= 0).sum() / n_items)


class SlateFigures:
    """Novelty and diversity of slates of a log's items."""

    def __init__(self, log: EventLog, known: EventLog, vectors: np.ndarray) -> None:
        """Set up.

        Args:
            log: whose items they are.
            known: its training events.
            vectors: (I, D) item vectors, NaN rows for items without any.
        """
        self.information = self_information(known)
        norm = np.linalg.norm(vectors, axis=1, keepdims=True)
        self.vectors = vectors / np.where(norm > 0, norm, np.nan)
        self.starts, self.names, self.shares = _unit_interests(log)

    def __call__(self, places: Places) -> dict[str, np.ndarray]:
        """Figures (T,) of slates of `SLATE`; NaN where there is none, or too short a slate."""
        slates = places.slates[:, :SLATE]
        return {
            f"novelty_at_{SLATE}": self.novelty(slates),
            f"interest_diversity_at_{SLATE}": self.interest_diversity(slates),
            f"vector_diversity_at_{SLATE}": self.vector_diversity(slates),
        }

    def novelty(self, slates: np.ndarray) -> np.ndarray:
        """Mean self-information of the items, bits (Zhou et al. 2010)."""
        return _mean(np.where(slates >= 0, self.information[slates], np.nan))

    def vector_diversity(self, slates: np.ndarray) -> np.ndarray:
        """Mean over pairs of 1 − cosine of item vectors; items without one are left out."""
        own = self.vectors[slates]
        there = (slates >= 0) & np.isfinite(own[..., 0])
        total = np.where(there[..., None], own, 0.0).sum(axis=1, dtype=np.float64)
        return _diversity((total**2).sum(axis=1), there.sum(axis=1))

    def interest_diversity(self, slates: np.ndarray) -> np.ndarray:
        """Mean over pairs of 1 − cosine of interest shares; items about nothing are left out."""
        lengths = np.where(slates >= 0, np.diff(self.starts)[slates], 0)
        flat = lengths.ravel()
        within = np.arange(flat.sum()) - np.repeat(np.cumsum(flat) - flat, flat)
        entries = np.repeat(self.starts[slates.ravel()], flat) + within
        rows = np.repeat(np.repeat(np.arange(len(slates)), slates.shape[1]), flat)
        width = int(self.names.max(initial=0)) + 1
        pairs, where = np.unique(rows * width + self.names[entries], return_inverse=True)
        sums = np.bincount(where, self.shares[entries], len(pairs))
        squares = np.bincount(pairs // width, sums**2, len(slates))
        return _diversity(squares, (lengths > 0).sum(axis=1))


def self_information(known: EventLog) -> np.ndarray:
    """(I,) bits: −log2 of the share of users who had an item; one who had it is assumed at least,
    and one user more than there are."""
    n = len(known.item_ids)
    pairs = np.unique(known.users * n + known.items)
    had = np.bincount(pairs % n, minlength=n)
    users = len(np.unique(known.users)) + 1
    information: np.ndarray = np.log2(users) - np.log2(np.maximum(had, 1))
    return information


def _unit_interests(log: EventLog) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Interests of items as sparse rows of length 1: (I + 1,) starts, (N,) names, (N,) shares."""
    index: dict[str, int] = {}
    names, shares, lengths = [], [], []
    for interests in log.interests:
        lengths.append(len(interests))
        norm = sum(share**2 for _, share in interests) ** 0.5
        for name, share in interests:
            names.append(index.setdefault(name, len(index)))
            shares.append(share / norm)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return starts, np.array(names, np.int64), np.array(shares, np.float64)


def _diversity(squared_sum: np.ndarray, n: np.ndarray) -> np.ndarray:
    """1 − mean cosine over pairs, from the squared length of the sum of n unit vectors: of n² dot
    products, n are those of a vector with itself."""
    pairs = np.where(n > 1, n * (n - 1), np.nan)
    # Sums of unit vectors are exact to the last digits only.
    return np.clip(1.0 - (squared_sum - n) / pairs, 0.0, 2.0)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over axis 1 of what is not NaN; NaN where there is nothing."""
    there = np.isfinite(values)
    n = there.sum(axis=1)
    total = np.where(there, values, 0.0).sum(axis=1)
    return total / np.where(n > 0, n, np.nan)
