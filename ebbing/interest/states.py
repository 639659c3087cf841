"""States of interests: how long each may be quiet before it rests, fades and is forgotten.

The limits follow from the interest's own trace and the parameters alone, so that what a user does
elsewhere, or the moment of asking, moves no limit: a state is a function of the set of events and
the moment, and the moment of its next change is known at the newest event.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ebbing.interest.occasions import OCCASION_SLOTS_S, SLOTS
from ebbing.interest.rhythm import (
    DAY_S,
    FEWEST_GAPS,
    MONTH_S,
    WEEK_S,
    Rhythm,
    before_newest,
    rhythm_of,
)

if TYPE_CHECKING:
    from ebbing.interest.assessment import Assessment

__all__ = [
    "InterestState",
    "QuietLimits",
    "StateThresholds",
    "next_change_s",
    "quiet_limits",
    "reason_text",
    "revived",
    "states_of",
]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

NOTABLE_TREND = 0.3
"""Trend from which on, up or down, it is worth a word."""

_PERIOD_NAMES = {DAY_S: "daily", WEEK_S: "weekly", MONTH_S: "monthly"}


class InterestState(IntEnum):
    """Where an interest stands; numbers are those of ``ebbing.v1.InterestState``."""

    UNSPECIFIED = 0
    NEW = 1
    ACTIVE = 2
    FADING = 3
    RESTING = 4
    FORGOTTEN = 5
    REVIVED = 6


@dataclass(frozen=True)
class StateThresholds:
    """Where one state ends and the next begins.

    ``gaps`` are multiples of an interest's usual gap, ``longest_gaps`` of its longest one.
    Retention moves the limits of an irregular interest between the least and the most.
    """

    fading: float = 0.5
    """Freshness, odds of a return over those just after an event, below which retention fades."""
    forgotten: float = 0.25
    """Freshness below which retention forgets."""
    established: int = 3
    """Events from which on an interest engaged on two occasions or more is no longer new."""
    shortest_gap_s: float = DAY_S
    """Usual gap that is assumed at least, seconds: a night's sleep tells nothing."""
    overdue_gaps: float = 1.2
    """A regular interest fades after so many gaps, or after its longest if that is longer."""
    abandoned_gaps: float = 1.4
    """A regular interest is forgotten after so many gaps, or after its longest if longer …"""
    abandoned_gaps_most: float = 1.5
    """… but after so many gaps at the latest."""
    fading_gaps_least: float = 1.5
    """An irregular interest does not fade before so many gaps, nor before its longest."""
    fading_gaps_most: float = 4.0
    """An irregular interest fades after so many gaps, whatever retention says."""
    forgotten_gaps_least: float = 2.5
    """An irregular interest is not forgotten before so many gaps …"""
    forgotten_longest_gaps: float = 2.0
    """… nor before so many of its longest gaps."""
    forgotten_gaps_most: float = 8.0
    """An irregular interest is forgotten after so many gaps, whatever retention says."""
    trend_weight: float = 0.25
    """Log of the time that a trend of 1 lengthens the patience with an irregular interest by."""

    def __post_init__(self) -> None:
        values = [getattr(self, field.name) for field in fields(self)]
        if not all(value >= 0 for value in values):
            raise ValueError("thresholds must be numbers from 0 on")
        if not self.forgotten <= self.fading <= 1:
            raise ValueError(
                "freshness must fall to fading, at most 1, before it falls to forgotten"
            )
        if not np.isfinite([self.shortest_gap_s, self.trend_weight]).all():
            raise ValueError("shortest_gap_s and trend_weight must be finite")
        for names in (
            ("overdue_gaps", "abandoned_gaps", "abandoned_gaps_most"),
            ("fading_gaps_least", "fading_gaps_most", "forgotten_gaps_most"),
            ("fading_gaps_least", "forgotten_gaps_least", "forgotten_gaps_most"),
        ):
            low, middle, high = (getattr(self, name) for name in names)
            if not 0 < low <= middle <= high:
                raise ValueError(f"needed: 0 < {' <= '.join(names)}")


@dataclass(frozen=True, slots=True)
class QuietLimits:
    """Seconds of quiet after its newest event from which on an interest …, arrays (N,)."""

    resting_s: Floats
    """… rests; inf where it never does. Below ``fading_s`` where finite."""
    fading_s: Floats
    """… fades."""
    forgotten_s: Floats
    """… is forgotten; at least ``fading_s``."""


def _is_new(rhythm: Rhythm, count: Floats, thresholds: StateThresholds) -> Flags:
    new: Flags = (count < thresholds.established) | (rhythm.occasions < 2)
    return new


def quiet_limits(
    rhythm: Rhythm,
    trend: Floats,
    count: Floats,
    fades_s: Floats,
    forgets_s: Floats,
    thresholds: StateThresholds,
) -> QuietLimits:
    """How long each of N interests may be quiet.

    A regular interest is left alone until it is overdue. An irregular one follows retention, as
    far as its own gaps give reason to: not earlier than they have been long before, and not
    later than some multiple of them. A falling trend shortens this patience, a rising one
    lengthens it. An interest that retention alone would call fading, but that its own gaps do
    not, rests; unless it is new, and so has no rhythm to rest in.

    Args:
        rhythm: of the N interests.
        trend: their trends, (N,).
        count: their events, (N,).
        fades_s: quiet after which freshness has fallen to ``thresholds.fading``, (N,) seconds
            from 0 on; inf where it never does.
        forgets_s: the same of ``thresholds.forgotten``.
        thresholds: what bounds and multiplies.
    """
    t = thresholds
    # A calendar's week is better known than any gap measured; a month is not of one length.
    kept = rhythm.period_s <= WEEK_S
    gap = np.maximum(np.where(kept, rhythm.period_s, rhythm.gap_s), t.shortest_gap_s)
    longest = rhythm.longest_gap_s
    patience = np.exp(t.trend_weight * trend)

    least = np.where(rhythm.regular, t.overdue_gaps, t.fading_gaps_least) * gap
    most = np.where(rhythm.regular, t.abandoned_gaps, t.fading_gaps_most * patience) * gap
    told = np.where(rhythm.regular, 0.0, fades_s * patience)
    least = np.maximum(least, np.where(rhythm.regular, np.minimum(longest, most), longest))
    fading = np.clip(told, least, np.maximum(least, most))

    irregular_least = np.maximum(t.forgotten_gaps_least * gap, t.forgotten_longest_gaps * longest)
    irregular = np.clip(
        forgets_s * patience,
        irregular_least,
        np.maximum(irregular_least, t.forgotten_gaps_most * patience * gap),
    )
    regular = np.clip(longest, t.abandoned_gaps * gap, t.abandoned_gaps_most * gap)
    forgotten = np.maximum(np.where(rhythm.regular, regular, irregular), fading)
    rests = ~_is_new(rhythm, count, t) & (fades_s < fading)
    return QuietLimits(np.where(rests, fades_s, np.inf), fading, forgotten)


def states_of(
    recency_s: Floats,
    limits: QuietLimits,
    rhythm: Rhythm,
    count: Floats,
    revived: Flags,
    thresholds: StateThresholds,
) -> NDArray[np.int64]:
    """``InterestState`` numbers of N interests after ``recency_s`` seconds of quiet, (N,).

    Quiet beyond a limit decides. Before any limit, an interest that was forgotten is REVIVED; one
    of too few events, or of a single occasion, is NEW; every other one is ACTIVE.
    """
    new = _is_new(rhythm, count, thresholds)
    states: NDArray[np.int64] = np.where(new, int(InterestState.NEW), int(InterestState.ACTIVE))
    states[revived] = InterestState.REVIVED
    states[recency_s >= limits.resting_s] = InterestState.RESTING
    states[recency_s >= limits.fading_s] = InterestState.FADING
    states[recency_s >= limits.forgotten_s] = InterestState.FORGOTTEN
    return states


def next_change_s(recency_s: Floats, limits: QuietLimits) -> Floats:
    """Seconds of quiet at which each state changes next if nothing more comes, (N,); inf if never.

    At that very quiet the new state holds.
    """
    ladder = np.stack([limits.resting_s, limits.fading_s, limits.forgotten_s])
    change: Floats = np.where(ladder > recency_s, ladder, np.inf).min(axis=0)
    return change


def revived(
    occasions: NDArray[np.uint64],
    first: Floats,
    last: Floats,
    rhythm: Rhythm,
    forgets_s: Floats,
    default_gap_s: float,
    thresholds: StateThresholds,
) -> Flags:
    """Whether each of N interests was forgotten when its newest occasion began, (N,).

    It is then REVIVED until a second occasion follows, told from the first on the finest level of
    the maps that holds both. The limits as they stood before are read off the maps without the
    newest occasion: as exact as the maps are, which know the quiet before it to a slot of the
    finest level that reaches back so far, and nothing finer of what lies before. Retention is
    taken as it is today, and the trend as steady, for neither can be told of then; and beyond the
    gaps after which an interest fades whatever retention says, retention has no say: of a rhythm
    long past the maps may not show how steady it was. Where they show no earlier occasion, but
    there was one before they begin, it came back after years.

    Args:
        occasions: (N, LEVELS) bitmaps.
        first: time of each interest's first event, (N,) seconds since the epoch.
        last: time of its newest event, (N,) seconds.
        rhythm: its rhythm today, as ``rhythm_of`` reads it off ``occasions``.
        forgets_s: as ``quiet_limits`` takes it, (N,).
        default_gap_s: the gap assumed of an interest engaged once, seconds.
        thresholds: as ``quiet_limits`` takes them.
    """
    maps, newest = before_newest(occasions, last)
    earlier = rhythm_of(maps, newest, default_gap_s)
    faded = rhythm.quiet_before_s >= thresholds.fading_gaps_most * earlier.gap_s
    none = np.zeros(len(last))
    told = np.where(faded, 0.0, forgets_s)
    limits = quiet_limits(earlier, none, none, told, told, thresholds)
    coarsest = OCCASION_SLOTS_S[-1]
    before_maps = np.floor(last / coarsest) - np.floor(first / coarsest) >= SLOTS
    # A coarsest map without a gap is no return, however long ago the first event lies.
    after_years = before_maps & (occasions[:, -1] != np.iinfo(np.uint64).max)
    returned: Flags = np.where(
        np.isinf(rhythm.quiet_before_s),
        after_years,
        rhythm.quiet_before_s >= limits.forgotten_s,
    )
    return returned


def reason_text(assessment: Assessment, i: int, thresholds: StateThresholds) -> str:
    """Why interest ``i`` of an assessment is in its state, in one line of English."""
    rhythm, limits = assessment.rhythm, assessment.limits
    recency, gap = float(assessment.recency_s[i]), float(rhythm.gap_s[i])
    state = InterestState(int(assessment.states[i]))
    words = [f"last {_time(recency)} ago"]
    if rhythm.occasions[i] < 2:
        words.append(f"one occasion only, usual gap taken as {_time(gap)}")
    else:
        words.append(f"usual gap {_time(gap)}")
    if rhythm.regular[i]:
        kind = _PERIOD_NAMES.get(float(rhythm.period_s[i]), "steady")
        wait = gap - recency
        due = f"due in {_time(wait)}" if wait > 0 else f"overdue by {_time(-wait)}"
        words.append(f"{kind} rhythm, {due}")
    elif rhythm.occasions[i] > FEWEST_GAPS:
        words.append(f"longest {_time(float(rhythm.longest_gap_s[i]))}, no steady rhythm")
    if abs(assessment.trend[i]) >= NOTABLE_TREND:
        words.append("trend rising" if assessment.trend[i] > 0 else "trend falling")
    if state is InterestState.NEW:
        words.append("engaged too few times to tell")
    elif state is InterestState.REVIVED:
        words.append("came back after it had been forgotten")
    elif state is InterestState.RESTING:
        words.append(f"freshness {assessment.freshness[i]:.0%}, but within its own gaps")
    name, limit = (
        ("forgotten", limits.forgotten_s[i])
        if state in (InterestState.FADING, InterestState.FORGOTTEN)
        else ("fades", limits.fading_s[i])
    )
    if np.isfinite(limit):
        words.append(f"{name} after {_time(float(limit))} of quiet")
    return "; ".join(words)


def _time(seconds: float) -> str:
    return f"{seconds / DAY_S:.0f} d" if seconds >= 1.5 * DAY_S else f"{seconds / 3600:.0f} h"
