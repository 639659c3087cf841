"""A user's interest vector I(u,t), read off the traces: short, long and blended.

Each reading is a non-negative mixture of the bank's sums, so it is linear in the events and in
units of events' worth: one fresh event of weight 1 is worth 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ebbing.interest.bank import HALF_LIVES_S
from ebbing.interest.trace import TraceTable

__all__ = ["InterestVectors", "interest_vectors", "previous_interest_vector", "weakest_first"]

Floats = NDArray[np.float64]


def _mixture(shortest_s: float, longest_s: float) -> Floats:
    """Equal weights on the half-lives within a span, (R,), summing to 1."""
    inside = (shortest_s <= HALF_LIVES_S) & (longest_s >= HALF_LIVES_S)
    weights: Floats = inside / inside.sum()
    return weights


SHORT_TERM = _mixture(0.5 * 86400.0, 14 * 86400.0)
"""Mixture of half-lives from half a day to two weeks: what the user is about now."""
LONG_TERM = _mixture(60 * 86400.0, 3 * 365.25 * 86400.0)
"""Mixture of half-lives from two months to three years: what the user is about at all."""
SHORT_SHARE = 0.5
"""Share of the short-term reading in the blended one."""
BLENDED = SHORT_SHARE * SHORT_TERM + (1 - SHORT_SHARE) * LONG_TERM


@dataclass(frozen=True, slots=True)
class InterestVectors:
    """I(u,t) over the N interests of a table, in its order, in events' worth."""

    short_term: Floats
    long_term: Floats
    blended: Floats


def interest_vectors(table: TraceTable, at: float) -> InterestVectors:
    """I(u,t) at ``at`` (seconds since the epoch, not before the newest event).

    Raises:
        ValueError: ``at`` is before the user's newest event.
    """
    bank = table.bank(at)
    return InterestVectors(bank @ SHORT_TERM, bank @ LONG_TERM, bank @ BLENDED)


def weakest_first(table: TraceTable) -> list[int]:
    """Numbers of the N interests, the weakest in the long term first: the order they go in."""
    strength = interest_vectors(table, table.span[1]).long_term
    order: list[int] = np.argsort(strength, kind="stable").tolist()
    return order


def previous_interest_vector(table: TraceTable, at: float) -> Floats:
    """I(u,t−1), blended: as it stood at the start of ``at``'s period, (N,)."""
    previous: Floats = table.bank_before_period(at) @ BLENDED
    return previous
