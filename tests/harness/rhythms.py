"""Generated interests of known rhythm, and how well their states are told.

Every moment of a life is a case: the maps of the events so far give the limits, which are held
against what came next (was it called forgotten in its quiet days?) and against the life's usual
gap (had it been abandoned here, would it be called so in time?).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ebbing.interest.occasions import occasion_maps
from ebbing.interest.rhythm import DAY_S, MONTH_S, WEEK_S, Rhythm, rhythm_of
from ebbing.interest.states import StateThresholds, quiet_limits

Floats = NDArray[np.float64]

EPOCH_S = 1.6e9
DEFAULT_GAP_S = 30 * DAY_S
KNOWN_OCCASIONS = 4
"""Occasions from which on a rhythm can be known."""


@dataclass(frozen=True)
class Life:
    """One interest, engaged in a known rhythm."""

    usual_gap_s: float
    """The rhythm's true gap between occasions, seconds."""
    occasions: tuple[Floats, ...]
    """Event times of each occasion, seconds since the epoch, ascending."""


Chance = np.random.Generator
Days = Callable[[Chance, int], Floats]


def _every(gap_days: float, jitter_days: float) -> Days:
    return lambda chance, n: gap_days * np.arange(n) + chance.uniform(-1, 1, n) * jitter_days


def _weekends(chance: Chance, n: int) -> Floats:
    """Saturdays, Sundays or both of every week."""
    which = chance.choice(3, size=n, p=[0.25, 0.25, 0.5])
    saturdays = 7.0 * np.flatnonzero(which != 1)
    return np.sort(np.concatenate([saturdays, 7.0 * np.flatnonzero(which != 0) + 1]))


def _streaks(chance: Chance, n: int) -> Floats:
    """Some days in a row every month."""
    lengths = chance.integers(2, 5, n)
    return np.concatenate([30.44 * i + np.arange(k) for i, k in enumerate(lengths)])


RHYTHMS: dict[str, tuple[float, float, Days]] = {
    "daily": (DAY_S, 3.0, _every(1, 0)),
    "daily, any waking hour": (DAY_S, 7.0, _every(1, 0)),
    "every 3 days": (3 * DAY_S, 7.0, _every(3, 0)),
    "weekly": (WEEK_S, 3.0, _every(7, 0)),
    "weekly ± 1 day": (WEEK_S, 7.0, _every(7, 1)),
    "weekends": (WEEK_S, 7.0, _weekends),
    "every 2 weeks ± 1 day": (2 * WEEK_S, 7.0, _every(14, 1)),
    "every 4 weeks": (4 * WEEK_S, 7.0, _every(28, 0)),
    "monthly ± 3 days": (MONTH_S, 7.0, _every(30.44, 3)),
    "days in a row, monthly": (MONTH_S, 7.0, _streaks),
}
"""Usual gap in seconds, spread of the hour of day in ± hours, and the days of n occasions."""

POISSON_GAP_DAYS = (0.5, 1.0, 2.0, 4.0, 7.0, 10.0, 20.0, 30.0, 60.0)


def rhythmic(kind: str, lives: int, occasions: int, bursts: bool, seed: int) -> list[Life]:
    """Lives of one of ``RHYTHMS``, each at its own hour; bursts are of up to ten events."""
    gap, hours, days = RHYTHMS[kind]
    chance = np.random.default_rng(seed)
    made = []
    for _ in range(lives):
        start = EPOCH_S + chance.uniform(0, 60) * DAY_S
        on = days(chance, occasions)
        times = np.sort(start + on * DAY_S + chance.uniform(-hours, hours, len(on)) * 3600.0)
        made.append(Life(gap, tuple(_session(chance, time, bursts) for time in times)))
    return made


def irregular(gap_days: float, lives: int, occasions: int, bursts: bool, seed: int) -> list[Life]:
    """Lives of Poisson occasions."""
    chance = np.random.default_rng(seed)
    made = []
    for _ in range(lives):
        start = EPOCH_S + chance.uniform(0, 60) * DAY_S
        times = start + np.cumsum(chance.exponential(gap_days * DAY_S, occasions))
        made.append(Life(gap_days * DAY_S, tuple(_session(chance, time, bursts) for time in times)))
    return made


def _session(chance: Chance, time: float, bursts: bool) -> Floats:
    n = chance.integers(1, 11) if bursts else 1
    return np.sort(time + np.r_[0.0, chance.uniform(0, 3600, n - 1)])


@dataclass(frozen=True)
class Cases:
    """Every life after every one of its occasions from the fourth on but the last, (C,)."""

    rhythm: Rhythm
    count: Floats
    """Events so far."""
    last: Floats
    """Newest event, seconds since the epoch."""
    following: Floats
    """Event that came next, seconds since the epoch."""
    usual_gap_s: Floats
    """True usual gap, seconds."""


def cases_of(lives: list[Life], known: int = KNOWN_OCCASIONS) -> Cases:
    """Cases from the occasion number ``known`` on, where each session counts as one."""
    times, counts, following, gaps = [], [], [], []
    for life in lives:
        sizes = np.cumsum([len(session) for session in life.occasions])
        events = np.concatenate(life.occasions)
        for k in range(known, len(life.occasions)):
            times.append(events[: sizes[k - 1]])
            counts.append(sizes[k - 1])
            following.append(life.occasions[k][0])
            gaps.append(life.usual_gap_s)
    segments = np.repeat(np.arange(len(times)), counts)
    last = np.array([t[-1] for t in times])
    maps = occasion_maps(segments, len(times), np.concatenate(times))
    rhythm = rhythm_of(maps, last, DEFAULT_GAP_S)
    return Cases(rhythm, np.array(counts, float), last, np.array(following), np.array(gaps))


@dataclass(frozen=True)
class Told:
    """How well states were told."""

    false_alarms: float
    """Share of (life, day) checks, one a day at a random time, that say FORGOTTEN of an interest
    that then came back."""
    early: float
    """Share of cases called forgotten within 1.5 usual gaps before the next occasion came."""
    detected: float
    """Share of cases that, abandoned now, would be FORGOTTEN within 1.5 usual gaps."""
    regular: float
    """Share of cases in which a steady rhythm is seen."""


def told(
    cases: Cases,
    fades_s: float,
    forgets_s: float,
    seed: int,
    thresholds: StateThresholds | None = None,
) -> Told:
    """Judge the limits of all cases, were retention to fall at ``fades_s`` and ``forgets_s``."""
    n = len(cases.last)
    full = np.ones(n)
    limits = quiet_limits(
        cases.rhythm,
        0 * full,
        cases.count,
        fades_s * full,
        forgets_s * full,
        thresholds or StateThresholds(),
    )
    phase = np.random.default_rng(seed).uniform(0, DAY_S, n)

    def checks(until: Floats) -> Floats:
        return np.floor((until - phase) / DAY_S) - np.floor((cases.last - phase) / DAY_S)

    forgotten_at = cases.last + limits.forgotten_s
    false = np.where(
        forgotten_at < cases.following, checks(cases.following) - checks(forgotten_at), 0
    )
    in_time = limits.forgotten_s <= 1.5 * cases.usual_gap_s
    return Told(
        false_alarms=float(false.sum() / checks(cases.following).sum()),
        early=float(np.mean(in_time & (forgotten_at < cases.following))),
        detected=float(np.mean(in_time)),
        regular=float(np.mean(cases.rhythm.regular)),
    )
