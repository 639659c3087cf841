"""Diversity: at most so many items of an interest, and no item too much like those before it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from server.recommend.about import levels, main_interest
from server.state.store import Interests

__all__ = ["capped", "intra_list_diversity", "similarity", "spread"]

Floats = NDArray[np.float64]


def similarity(interests: Sequence[Interests]) -> Floats:
    """How alike C items are by what they are about, (C, C) in 0 … 1.

    The cosine of their shares over interests and the interests' parents; an item of which nothing
    is known is like none but itself.
    """
    columns: dict[str, int] = {}
    entries: list[tuple[int, int, float]] = []
    for row, pairs in enumerate(interests):
        for path, share in pairs:
            above = levels(path)
            for level in above:
                column = columns.setdefault(level, len(columns))
                entries.append((row, column, share / len(above)))
    shares = np.zeros((len(interests), max(len(columns), 1)))
    for row, column, share in entries:
        shares[row, column] += share
    shares /= np.maximum(np.linalg.norm(shares, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    alike: Floats = shares @ shares.T
    np.fill_diagonal(alike, 1.0)
    return alike


def spread(scores: Floats, alike: Floats, wanted: int, diversity: float) -> list[int]:
    """Maximal marginal relevance (Carbonell and Goldstein, 1998): which items, best first.

    Each next item has the greatest (1 − diversity) · score − diversity · likeness to the most
    similar of those chosen, with scores over the best one's.

    Args:
        scores: (C,) from 0 on, best first.
        alike: (C, C) in 0 … 1.
        wanted: how many are chosen at most.
        diversity: 0 keeps the order, 1 looks at likeness alone.

    Returns:
        At most ``wanted`` indexes.
    """
    if diversity <= 0 or len(scores) < 2:
        return list(range(min(wanted, len(scores))))
    most = max(float(scores.max()), float(np.finfo(np.float64).tiny))
    worth = (1.0 - diversity) * scores / most
    closest = np.zeros(len(scores))
    left = np.ones(len(scores), bool)
    chosen: list[int] = []
    while len(chosen) < min(wanted, len(scores)):
        value = np.where(left, worth - diversity * closest, -np.inf)
        best = int(np.argmax(value))
        chosen.append(best)
        left[best] = False
        np.maximum(closest, alike[best], out=closest)
    return chosen


def capped(interests: Sequence[Interests], most: int, order: Sequence[int]) -> list[int]:
    """An order with what is over ``most`` of one main interest moved behind all else.

    The main interest of an item is the one with its greatest share. Nothing is left out: a slate
    that could not be filled otherwise takes the rest in its order.
    """
    if most <= 0:
        return list(order)
    seen: Counter[str] = Counter()
    within: list[int] = []
    over: list[int] = []
    for i in order:
        main = main_interest(interests[i])
        seen[main] += bool(main)
        (over if seen[main] > most else within).append(i)
    return within + over


def intra_list_diversity(alike: Floats) -> float:
    """Mean unlikeness of the pairs of a list, 0 … 1; 0 for fewer than two items."""
    n = len(alike)
    return float(1.0 - (alike.sum() - n) / (n * (n - 1))) if n > 1 else 0.0
