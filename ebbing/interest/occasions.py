"""When an interest was engaged, as bits: a ladder of bitmaps from fine slots to coarse ones.

Bit k of a level is set where an event lies k slots before the slot of the newest event; slots
are aligned to the epoch. A burst within one slot is one occasion, so the ladder tells the rhythm
of an interest, which sums over raw events cannot: there a burst counts as often as it has events.

Bits are forgotten only by falling out of a window that never moves back. Hence a ladder is a
function of the *set* of times, as the decayed sums are: of no order, of no partition, and the
same with a time repeated.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "LEVELS",
    "OCCASION_SLOTS_S",
    "SLOTS",
    "Ladder",
    "ladder",
    "merge",
    "merged_maps",
    "occasion_maps",
    "single",
]

SLOTS = 64
"""Slots of a level, one bit each."""
OCCASION_SLOTS_S = (6 * 3600.0, 86400.0, 4 * 86400.0, 16 * 86400.0)
"""Width of the slots of each level, seconds: windows of 16 days, 64 days, 8 months, 2.8 years."""
LEVELS = len(OCCASION_SLOTS_S)

Ladder = tuple[int, ...]
"""The bitmaps of one interest, a 64-bit number a level; bit 0 is always set."""

# Each slot holds exactly four of the finer level, so one division places a time on every level.
_NESTED_BITS = 2
_LEVEL_BITS = _NESTED_BITS * np.arange(LEVELS)
_MASK = (1 << SLOTS) - 1
_FINEST_IN_SLOT = np.array([[1 << _NESTED_BITS * level] for level in range(LEVELS)])


def single() -> Ladder:
    """The ladder of one event."""
    return (1,) * LEVELS


def merge(a: Ladder, a_last: float, b: Ladder, b_last: float) -> Ladder:
    """The ladder of the events of both; ``a_last`` and ``b_last`` are their newest times, s."""
    if a_last < b_last:
        a, a_last, b, b_last = b, b_last, a, a_last
    newer, older = int(a_last // OCCASION_SLOTS_S[0]), int(b_last // OCCASION_SLOTS_S[0])
    merged = []
    for mine, other in zip(a, b, strict=True):
        shift = newer - older
        merged.append(mine | other << shift & _MASK if shift < SLOTS else mine)
        newer >>= _NESTED_BITS
        older >>= _NESTED_BITS
    return tuple(merged)


def merged_maps(
    maps: NDArray[np.uint64], last: NDArray[np.float64], times: NDArray[np.float64]
) -> NDArray[np.uint64]:
    """Ladders with one event more each: ``merge`` with ``single`` of many.

    Args:
        maps: the ladders, (N, LEVELS).
        last: their newest times, (N,) seconds since the epoch.
        times: of the events, (N,) seconds since the epoch.
    """
    width = OCCASION_SLOTS_S[0]
    newer, older = (
        np.floor_divide(moments, width).astype(np.int64)[:, None] >> _LEVEL_BITS
        for moments in (np.maximum(times, last), np.minimum(times, last))
    )
    shift = newer - older
    first = np.uint64(1)
    late = (times >= last)[:, None]
    mine, other = np.where(late, first, maps), np.where(late, maps, first)
    moved = other << np.minimum(shift, SLOTS - 1).astype(np.uint64)
    return np.where(shift < SLOTS, mine | moved, mine)


def ladder(times: Iterable[float]) -> Ladder:
    """The ladder of events at these times, seconds since the epoch; at least one, in any order."""
    slots = {int(time // OCCASION_SLOTS_S[0]) for time in times}
    newest = max(slots)
    maps = []
    for _ in range(LEVELS):
        bits = 0
        for slot in slots:
            age = newest - slot
            if age < SLOTS:
                bits |= 1 << age
        maps.append(bits)
        slots = {slot >> _NESTED_BITS for slot in slots}
        newest >>= _NESTED_BITS
    return tuple(maps)


def occasion_maps(segments: ArrayLike, n_segments: int, times: ArrayLike) -> NDArray[np.uint64]:
    """Ladders of many event sets at once: the batch form of ``merge``.

    Args:
        segments: which set each event belongs to, (E,) integers in [0, n_segments).
        n_segments: number of sets.
        times: event times, (E,) seconds since the epoch, finite.

    Returns:
        (n_segments, LEVELS) bitmaps; 0 for a set without events.
    """
    which, moments = np.asarray(segments, np.intp), np.asarray(times, np.float64)
    maps = np.zeros((n_segments, LEVELS), np.uint64)
    if which.size == 0:
        return maps
    if (which[1:] < which[:-1]).any():
        order = np.argsort(which, kind="stable")
        which, moments = which[order], moments[order]
    begins = np.flatnonzero(np.concatenate([[True], which[1:] != which[:-1]]))
    sizes = np.diff(begins, append=which.size)
    # Whole numbers as floats: exact, and without the overflow of integers for absurd times.
    slots = np.floor(np.floor_divide(moments, OCCASION_SLOTS_S[0]) / _FINEST_IN_SLOT)
    ages = np.repeat(np.maximum.reduceat(slots, begins, axis=1), sizes, axis=1) - slots
    bits = np.uint64(1) << np.minimum(ages, SLOTS - 1).astype(np.uint64)
    bits[ages >= SLOTS] = 0
    maps[which[begins]] = np.bitwise_or.reduceat(bits, begins, axis=1).T
    return maps
