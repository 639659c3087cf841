"""How often an interest is usually engaged, how steadily, and whether more or less of late.

The rhythm is read from the bitmaps of occasions. An occasion is a run of neighbouring slots, so
a session that crosses from one slot into the next, or a weekend of two days, is one occasion. A
level tells only gaps that are wide in its slots; a finer level tells the others. Of all steady
stretches that end with the newest occasion, on any level, the longest is the rhythm: what the
interest did before it changed its rhythm has no say, nor has one week of daily visits in an
interest that has come back monthly ever since.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ebbing.interest.bank import HALF_LIVES_S
from ebbing.interest.occasions import LEVELS, OCCASION_SLOTS_S, SLOTS

__all__ = ["DAY_S", "MONTH_S", "WEEK_S", "Rhythm", "before_newest", "rhythm_of", "trend"]

Floats = NDArray[np.float64]

DAY_S = 86400.0
WEEK_S = 7 * DAY_S
MONTH_S = 30.44 * DAY_S
"""Mean length of a calendar month."""

FEWEST_GAPS: Final = 3
"""Gaps a rhythm is read from at least, and only where there are no others."""
TELLING_GAPS: Final = 5
"""Newest gaps that tell a rhythm whatever came before."""
MOST_GAPS: Final = 7
"""Newest gaps that are looked at on a level; more would tell no better what comes next."""
ENOUGH_OCCASIONS: Final = 6
"""Occasions from which on a level tells the usual gap of an irregular interest well enough."""
WIDE_SLOTS: Final = 5
"""Slots of a level, but the finest, that a gap must be wide to be told there: less, and a rhythm
of the finer level would beat against the slots and look like another one."""
LONGEST_REST_GAPS: Final = 4
"""Times the mean of the others that the longest gap counts as at most: what was longer was no rest
but an absence, and tells nothing of the interest that came back. (The default stands for the
others where there are none.)"""

# A stretch is steady if every gap is within this share of their mean, beside what slots blur. Of
# Poisson visits, one in 24 has three gaps within .25, one in two hundred five within .35.
SPREAD_OF_FEW: Final = 0.25
SPREAD: Final = 0.35
BLUR_SLOTS: Final = 0.25
BLUR_FINEST_SLOTS: Final = 1.0
"""On the finest level, where the gaps of days are four slots and their hours matter."""

DAY_LEVEL: Final = OCCASION_SLOTS_S.index(DAY_S)
NEARLY_DAILY_S: Final = 2 * DAY_S
SKIPPED_SLOTS: Final = 7
SKIPPED_DAYS: Final = 2
"""Finest slots, and days, apart at most in a daily interest: a visit before midnight and one after
the next leave a day empty between them, but not two."""

CALENDAR: Final = ((DAY_S, 0.15), (WEEK_S, 0.1), (MONTH_S, 0.1))
"""Calendar periods in seconds, and the share by which a gap may miss one and still keep it."""

SESSION, SHORT, LONG = (
    int(np.abs(np.log(HALF_LIVES_S / (days * DAY_S))).argmin()) for days in (0.25, 14, 60)
)
"""Bank indexes of the half-lives nearest six hours, two weeks and two months: the trend compares
the rates of the last two, and the first tells how much of them the newest occasion is."""
STEEPEST_TREND = 2.0

# Rows that are read of each interest: the slots of every level, coarsest first, then the runs.
_SLOT_ROWS, _RUN_ROWS = slice(0, LEVELS), slice(LEVELS, 2 * LEVELS)
_ROW_LEVELS = np.concatenate([np.arange(LEVELS)[::-1], np.arange(LEVELS)])
_WIDTHS_S = np.array(OCCASION_SLOTS_S)
# Runs tell a steady rhythm, and so do the finest slots, of which an interest that knows no pause
# has but one run.
_STEADY_ROWS = slice(LEVELS - 1, 2 * LEVELS)
_STEADY_LEVELS = _ROW_LEVELS[_STEADY_ROWS, None]
_SIGNS = np.array([1, -1], np.int16)[:, None, None]
_GAPS = np.arange(FEWEST_GAPS, MOST_GAPS + 1)[:, None, None]
_SPREADS = np.where(_GAPS < TELLING_GAPS, SPREAD_OF_FEW, SPREAD)
_BLURS = np.where(_STEADY_LEVELS > 0, BLUR_SLOTS, BLUR_FINEST_SLOTS)


def _twentieths(number: ArrayLike) -> NDArray[np.int16]:
    """Whole numbers of twentieths, which suffice and are fast."""
    rounded: NDArray[np.int16] = np.rint(20.0 * np.asarray(number)).astype(np.int16)
    return rounded


_SCALE, _BLUR = (_twentieths(number)[:, None] for number in (_GAPS, _BLURS * _GAPS))
_SHARES = _twentieths(_SIGNS + _SPREADS[:, None])
_NARROWEST = (np.where(_STEADY_LEVELS > 0, WIDE_SLOTS, 1) * _GAPS).astype(np.int16)

# Edges of the gaps that keep a calendar period, and what lies between them.
_EDGES_S = np.array([(1 + e) * p for p, share in CALENDAR for e in (-share, share)])
_PERIODS_S = np.array([np.nan, *(x for period, _ in CALENDAR for x in (period, np.nan))])

# An irregular interest is read from the finest slots that hold enough occasions; without any such,
# from the runs that show most.
_PREFERENCE = np.array([[21], [22], [23], [24], [0], [0], [0], [0]], np.int16)
_STRETCHES = (MOST_GAPS - FEWEST_GAPS + 1) * (LEVELS + 1)
_GAP_NUMBERS = np.arange(MOST_GAPS)[:, None]
_ONE = np.array(1, np.uint64)
_IS_RUN = (np.arange(2 * LEVELS) >= LEVELS)[:, None]


@dataclass(frozen=True, slots=True)
class Rhythm:
    """The rhythm of N interests, arrays (N,)."""

    gap_s: Floats
    """Usual time between occasions, seconds, start to start; the default where there was one."""
    longest_gap_s: Floats
    """Longest time between the occasions read, seconds; an absence counts as four of the others
    at most. Before four occasions it is not known how
    long an interest may rest, and it is the default at least."""
    occasions: Floats
    """Occasions read; at most eight, for the newest tell what comes next."""
    regular: NDArray[np.bool_]
    """Whether it was engaged at steady intervals, three at least."""
    period_s: Floats
    """Day, week or mean month where a regular interest keeps one, seconds; nan where not."""
    quiet_before_s: Floats
    """Time between the newest occasion and the one before, seconds; inf where none is known."""


def rhythm_of(occasions: NDArray[np.uint64], last: Floats, default_gap_s: float) -> Rhythm:
    """The rhythm of N interests.

    A gap is told from the ends of the stretch it is read from, (newest − oldest) / (n − 1): what
    slots blur in between cancels out.

    Args:
        occasions: (N, LEVELS) bitmaps as ``ebbing.interest.occasions`` has them.
        last: time of each interest's newest event, (N,) seconds since the epoch.
        default_gap_s: the gap assumed of an interest engaged once, seconds.
    """
    n = len(last)
    column = np.arange(n)
    places, before = _places(occasions)
    # The longest steady stretch; of two the coarser, which has seen more time.
    steady = _steady(places[:, _STEADY_ROWS])[::-1, ::-1].reshape(_STRETCHES, n)
    which = steady.argmax(axis=0)
    shorter, finer = np.divmod(which, LEVELS + 1)
    regular = steady[which, column]
    regular &= ~_skips_days(occasions, places, 2 * LEVELS - 1 - finer, MOST_GAPS - shorter)
    occupied = (places >= 0).sum(axis=0, dtype=np.int16)
    told = np.where(_IS_RUN, occupied, (occupied >= ENOUGH_OCCASIONS) * _PREFERENCE)
    row = np.where(regular, 2 * LEVELS - 1 - finer, told.argmax(axis=0))
    m = np.where(regular, MOST_GAPS - shorter, occupied[row, column] - 1)

    read = places.reshape(MOST_GAPS + 1, -1).take(row * n + column, axis=1)
    level = _ROW_LEVELS[row]
    width = _WIDTHS_S[level]
    # Of an occasion within one slot, the newest event tells the time better than the slot does.
    phase = last / _WIDTHS_S[:, None]
    phase -= np.floor(phase) + 0.5
    span = read[m, column] - read[0] + np.where(read[0] == 0, phase[level, column], 0)
    longest = np.where(m > _GAP_NUMBERS, read[1:] - read[:-1], 0).max(axis=0)
    longest, span = np.where(m > 1, longest, span) * width, span * width
    others = np.where(m > 1, (span - longest) / np.maximum(m - 1, 1), default_gap_s)
    rest = np.minimum(longest, LONGEST_REST_GAPS * others)
    gap = np.where(m > 0, (span - longest + rest) / np.maximum(m, 1), default_gap_s)
    longest = np.where(m < FEWEST_GAPS, np.maximum(rest, default_gap_s), rest)
    period = np.where(regular, _PERIODS_S[np.searchsorted(_EDGES_S, gap)], np.nan)

    # On the finest level that knows of an occasion before the newest.
    level = (before >= 0).argmax(axis=0)
    earlier, newest = before[level, column], places[0, LEVELS + level, column]
    quiet = earlier - newest + np.where(newest == 0, phase[level, column], 0)
    quiet_before = np.where(earlier >= 0, quiet * _WIDTHS_S[level], np.inf)
    return Rhythm(gap, longest, m + 1.0, regular, period, quiet_before)


def _places(occasions: NDArray[np.uint64]) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Where occasions lie, in slots before the newest event's; below 0 where there is none.

    Returns:
        The newest eight of each row, (8, rows, N), newest first, runs at their oldest slot; and
        (LEVELS, N) the newest slot of the newest but one occasion of each level.
    """
    slots = np.ascontiguousarray(occasions.T)
    shape = (MOST_GAPS + 1, 2 * LEVELS, slots.shape[1])
    left = np.empty((shape[0] + 1, *shape[1:]), np.uint64)
    left[0, _SLOT_ROWS] = slots[::-1]
    # Two sessions of a weekend can lie two days apart; of the finest slots every one counts.
    coarse = slots[1:]
    runs = np.concatenate([slots[:1], coarse | coarse << _ONE & coarse >> _ONE])
    left[0, _RUN_ROWS] = runs & ~(runs >> _ONE)
    for now, following in pairwise(left):
        # What is left without the lowest bit.
        np.subtract(now, _ONE, out=following)
        np.bitwise_and(now, following, out=following)
    older = slots & (slots + _ONE)
    bits = np.concatenate([(left[:-1] ^ left[1:]).ravel(), (older & -older).ravel()])
    # A power of two is told by the exponent of its floating point number, which for 0 is −127.
    places = (bits.astype(np.float32).view(np.int32) >> 23).astype(np.int16) - np.int16(127)
    split = places.size - slots.size
    return places[:split].reshape(shape), places[split:].reshape(slots.shape)


def _skips_days(
    occasions: NDArray[np.uint64],
    places: NDArray[np.int16],
    row: NDArray[np.intp],
    m: NDArray[np.intp],
) -> NDArray[np.bool_]:
    """Whether a stretch of days, told from ``m`` gaps of a row, belies the weeks before it, (N,).

    Most days of a week in a row are soon seen by chance, and a day left out then would look like
    the end.
    """
    column = np.arange(len(row))
    gap_s = (places[m, row, column] - places[0, row, column]) * _WIDTHS_S[_ROW_LEVELS[row]] / m
    skips: NDArray[np.bool_] = gap_s < NEARLY_DAILY_S
    daily = np.flatnonzero(skips)
    if len(daily):
        finest, days = occasions[daily, 0], occasions[daily, DAY_LEVEL]
        skips[daily] = _rests(finest, SKIPPED_SLOTS) | _rests(days, SKIPPED_DAYS)
    return skips


def _rests(bits: NDArray[np.uint64], slots: int) -> NDArray[np.bool_]:
    """Whether occasions of a level ever lie more than so many slots apart, (N,)."""
    near, known = bits.copy(), bits.copy()
    for _ in range(slots - 1):
        near |= near << _ONE
    for shift in (1, 2, 4, 8, 16, 32):
        known |= known >> np.array(shift, np.uint64)
    rested: NDArray[np.bool_] = (~near & known >> _ONE) > 0
    return rested


def _steady(places: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Whether the newest three, four … seven gaps of each row are alike, (5, rows, N)."""
    # Of gaps and of their negatives, for the shortest is the longest of those.
    longest = (places[1:] - places[:-1])[:, None] * _SIGNS
    for so_far, following in pairwise(longest):
        np.maximum(so_far, following, out=following)
    spans = places[FEWEST_GAPS:] - places[0]
    alike = longest[FEWEST_GAPS - 1 :] * _SCALE <= _SHARES * spans[:, None] + _BLUR
    # A span below 0 ends past the oldest occasion.
    steady: NDArray[np.bool_] = alike[:, 0] & alike[:, 1] & (spans >= _NARROWEST)
    # A few tell only where there are no others.
    steady[: TELLING_GAPS - FEWEST_GAPS] &= places[FEWEST_GAPS + 1 : TELLING_GAPS + 1] < 0
    return steady


def before_newest(occasions: NDArray[np.uint64], last: Floats) -> tuple[NDArray[np.uint64], Floats]:
    """The maps as they were before the newest occasion, (N, LEVELS), and their newest time, (N,).

    The newest occasion is taken as the finest level shows it that knows of an earlier one. Levels
    finer than that know nothing of what lies before: there the earlier newest event stands
    alone; nor does a window hold again what had fallen out of it. An interest without an earlier
    occasion comes back as a single event at ``last``.
    """
    column = np.arange(len(last))
    slots = np.floor(last[:, None] / _WIDTHS_S)
    older = occasions & (occasions + _ONE)
    level = (older > 0).argmax(axis=1)
    bits = older[column, level]
    known = bits > 0
    back = np.frexp((bits & -bits).astype(np.float64))[1] - 1
    earlier = (slots[column, level] - back) * _WIDTHS_S[level]
    shift = slots - np.floor(earlier[:, None] / _WIDTHS_S)
    seen = known[:, None] & (np.arange(LEVELS) >= level[:, None]) & (shift < SLOTS)
    maps = np.where(seen, occasions >> np.where(seen, shift, 0).astype(np.uint64), _ONE) | _ONE
    return maps, np.where(known, earlier + _WIDTHS_S[level] / 2, last)


def trend(bank: Floats) -> Floats:
    """Whether an interest is engaged more (> 0) or less (< 0) often of late, (N,).

    The log of the rate of events of the last weeks over that of the last months, each read off
    the decayed sums: events at a steady rate λ sum to λ·h / ln 2, so a steady interest has a
    trend near 0 whatever its rate. Just after an occasion a sum is above its mean by half of it,
    which is taken off; and a rise, or fall, is believed as far as other occasions tell of it.

    Args:
        bank: (N, R) decayed sums, best as of each interest's newest event.
    """
    tiny = np.finfo(np.float64).tiny
    newest, short, long = (np.maximum(bank[:, r], tiny) for r in (SESSION, SHORT, LONG))
    ratio = np.log((short - newest / 2) / (long - newest / 2)) + np.log(
        HALF_LIVES_S[LONG] / HALF_LIVES_S[SHORT]
    )
    others = 1.0 - newest / np.where(ratio > 0, short, long)
    limited: Floats = np.clip(ratio * others, -STEEPEST_TREND, STEEPEST_TREND)
    return limited
