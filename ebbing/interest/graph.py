"""A user's interests as a graph: which come together, which follow which.

An event shows an interest by some amount, its weight times the interest's share. What it says of a
pair is the geometric mean of the two amounts: symmetric, in events' worth like the amounts, and 0
where one of them is missing. Over events these are sums of products of square roots, so all
pairs are two matrix products.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ebbing.interest.trace import Event

__all__ = [
    "HALF_LIFE_S",
    "MAX_ENGAGEMENTS",
    "SUCCESSION_WINDOW_S",
    "InterestGraph",
    "interest_graph",
]

Floats = NDArray[np.float64]

HALF_LIFE_S = 90 * 86400.0
"""Time after which an event counts half for the edges, seconds."""
SUCCESSION_WINDOW_S = 7 * 86400.0
"""Longest time between two events of which one follows the other, seconds."""
MAX_ENGAGEMENTS = 4096
"""Newest events that a graph is made of; older ones hardly count any more."""


@dataclass(frozen=True, slots=True)
class InterestGraph:
    """Edges between N interests, in events' worth as of one moment."""

    co_occurrence: Floats
    """(N, N), symmetric, diagonal 0: events that show both interests."""
    succession: Floats
    """(N, N), diagonal 0: events of the column's interest directly after one of the row's."""


def interest_graph(events: Iterable[Event], names: Sequence[str], at: float) -> InterestGraph:
    """The graph over ``names`` as of ``at``.

    Args:
        events: oldest first, none after ``at``. Interests that are not named count for nothing, but
            their events stand between others.
        names: the N interests, each once.
        at: the moment the events are decayed to, seconds since the epoch.
    """
    column = {name: i for i, name in enumerate(names)}
    times, rows, columns, amounts = [], [], [], []
    for row, (time, weight, interests) in enumerate(events):
        times.append(time)
        for name, share in interests:
            if name in column:
                rows.append(row)
                columns.append(column[name])
                amounts.append(weight * share)
    moments = np.array(times, np.float64)
    shown = np.zeros((len(times), len(names)))
    # An event's own list names an interest once; a sum keeps to that whatever it holds.
    np.add.at(shown, (np.array(rows, np.intp), np.array(columns, np.intp)), amounts)
    decay = np.exp2((moments - at) / HALF_LIFE_S)[:, None]
    roots, decayed = np.sqrt(shown), np.sqrt(shown * decay)
    followed = np.diff(moments) <= SUCCESSION_WINDOW_S
    together = decayed.T @ decayed
    after = roots[:-1][followed].T @ (roots * decay)[1:][followed]
    for edges in (together, after):
        np.fill_diagonal(edges, 0.0)
    return InterestGraph(together, after)
