"""A bank of exponentially decayed sums: the trace of one set of events, one by one and in batches.

``S_r(t) = Σ_events w · 2^(−(t−τ)/h_r)`` over a fixed geometric bank of half-lives ``h_r``. The
sums are linear in the events, so a trace is a function of the *set* of events, whatever their
order of arrival, and any completely monotone forgetting curve can be read off it afterwards
(Bernstein's theorem: such a curve is a non-negative mixture of exponentials).

Each trace is kept in two parts, so that the state before the current period stays readable (the
drift of the articles compares the two): ``closed`` sums the events before the period of the
newest event, as of that period's start; ``open`` sums those within it, as of the newest event.

Beside its sums a trace keeps how many events there were, the first and the newest time, and the
ladder of its occasions (``ebbing.interest.occasions``): all of them functions of the set too.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ebbing.interest.occasions import LEVELS, Ladder, ladder, merge, occasion_maps, single

__all__ = [
    "BANK_SIZE",
    "HALF_LIVES_S",
    "PERIOD_S",
    "Row",
    "bank_sums",
    "decay",
    "event_row",
    "events_row",
    "merge_rows",
    "period_start",
    "trace_rows",
]

Floats = NDArray[np.float64]

BANK_SIZE = 10
HALF_LIVES_S: Floats = np.geomspace(24 * 60.0, 6.5 * 365.25 * 86400.0, BANK_SIZE)
"""Half-lives of the bank in seconds: 24 minutes to six and a half years. Of all geometric banks of
this size, the one whose mixtures come nearest to every t^−d, d = .2 … 1, from an hour to two years
(``ebbing.interest.curves``)."""
HALF_LIVES_S.setflags(write=False)
_RATES: Floats = -1.0 / HALF_LIVES_S
_ONES: Floats = np.ones(BANK_SIZE)

PERIOD_S = 7 * 86400.0
"""Length of the period whose start separates I(u,t−1) from I(u,t), seconds."""


def period_start(time: float) -> float:
    """Start of the period that holds ``time``, both in seconds since the epoch."""
    return math.floor(time / PERIOD_S) * PERIOD_S


def decay(elapsed: ArrayLike) -> Floats:
    """Decay factors 2^(−elapsed/h) for elapsed seconds ≥ 0, shape (..., BANK_SIZE)."""
    factors: Floats = np.exp2(np.multiply.outer(elapsed, _RATES))
    return factors


class Row(NamedTuple):
    """The trace of one interest, by itself."""

    open: Floats
    """(R,) sums of the events in the newest event's period, as of that event."""
    closed: Floats
    """(R,) sums of the events before that period, as of the period's start."""
    events: float
    first: float
    last: float
    occasions: Ladder


def event_row(time: float, weight: float) -> Row:
    """The trace of a single event; every trace is a merge of such rows."""
    return Row(_ONES * weight, np.zeros(BANK_SIZE), 1.0, time, time, single())


def events_row(times: Sequence[float], weights: Sequence[float]) -> Row:
    """The trace of one set of events, in ascending order of time; at least one."""
    first, last = times[0], times[-1]
    start = period_start(last)
    before = bisect_left(times, start)
    moments = np.array(times)
    moments[:before] -= start
    moments[before:] -= last
    decayed = np.array(weights)[:, None] * decay(-moments)
    opened, closed = decayed[before:].sum(axis=0), decayed[:before].sum(axis=0)
    return Row(opened, closed, float(len(times)), first, last, ladder(times))


def merge_rows(a: Row, b: Row) -> Row:
    """The trace of the events of both, which must be disjoint."""
    if a.last < b.last:
        a, b = b, a
    start, older = period_start(a.last), period_start(b.last)
    if start == older:
        opened = a.open + b.open * decay(a.last - b.last)
        closed = a.closed + b.closed
    else:
        opened = a.open
        closed = a.closed + b.closed * decay(start - older) + b.open * decay(start - b.last)
    return Row(
        opened,
        closed,
        a.events + b.events,
        min(a.first, b.first),
        a.last,
        merge(a.occasions, a.last, b.occasions, b.last),
    )


def bank_sums(
    segments: ArrayLike, n_segments: int, times: ArrayLike, weights: ArrayLike, at: ArrayLike
) -> Floats:
    """Decayed sums of many event sets at once: the batch form of ``TraceTable.bank``.

    Args:
        segments: which set each event belongs to, (E,) integers in [0, n_segments).
        n_segments: number of sets.
        times: event times, (E,) seconds since the epoch, none after ``at``.
        weights: event weights, (E,).
        at: the moment asked for, a number or one per set, seconds since the epoch.

    Returns:
        (n_segments, BANK_SIZE) sums.
    """
    which = np.asarray(segments, np.intp)
    moments = np.broadcast_to(np.asarray(at, np.float64), (n_segments,))[which]
    elapsed = moments - np.asarray(times, np.float64)
    amounts = np.asarray(weights, np.float64)
    sums = np.empty((n_segments, BANK_SIZE))
    # One rate at a time: no (E, R) intermediate on millions of events.
    for r, half_life in enumerate(HALF_LIVES_S):
        sums[:, r] = np.bincount(
            which, amounts * np.exp2(-elapsed / half_life), minlength=n_segments
        )
    return sums


def trace_rows(
    sizes: ArrayLike, times: Floats, weights: Floats
) -> tuple[Floats, Floats, Floats, NDArray[np.uint64]]:
    """The traces of many event sets at once: the batch form of ``merge_rows`` and ``event_row``.

    Args:
        sizes: number of events of each of N sets, (N,) integers above 0.
        times: event times, one set after another and ascending within each, (E,) seconds.
        weights: event weights, (E,).

    Returns:
        What ``TraceTable.of`` takes besides names: open and closed sums, times, occasion maps.
    """
    counts = np.asarray(sizes, np.intp)
    n = len(counts)
    if not n:
        empty = np.zeros((0, BANK_SIZE))
        return empty, empty, np.zeros((0, 3)), np.zeros((0, LEVELS), np.uint64)
    ends = np.cumsum(counts)
    begins = ends - counts
    which = np.repeat(np.arange(n), counts)
    last = times[ends - 1]
    starts = np.floor(last / PERIOD_S) * PERIOD_S
    within = times >= starts[which]
    ages = np.where(within, last[which], starts[which]) - times
    decayed = weights[:, None] * decay(ages)
    opened: Floats = np.add.reduceat(decayed * within[:, None], begins)
    closed: Floats = np.add.reduceat(decayed * ~within[:, None], begins)
    spans = np.array([counts, times[begins], last]).T
    return opened, closed, spans, occasion_maps(which, n, times)
