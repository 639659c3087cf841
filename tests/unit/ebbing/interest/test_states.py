"""States of small lives, of generated ones, and the words for them."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from ebbing.interest.occasions import occasion_maps
from ebbing.interest.rhythm import DAY_S, Rhythm, rhythm_of
from ebbing.interest.states import (
    InterestState,
    QuietLimits,
    StateThresholds,
    next_change_s,
    quiet_limits,
    reason_text,
    revived,
    states_of,
)
from tests.harness.rhythms import POISSON_GAP_DAYS, RHYTHMS, cases_of, irregular, rhythmic, told

T = 19_676 * DAY_S + 9 * 3600.0
DEFAULT_S = 30 * DAY_S
THRESHOLDS = StateThresholds()
NEVER, AT_ONCE = math.inf, 0.0
WEEKLY = tuple(7.0 * k for k in range(8))


class Life:
    """One interest engaged at these days after ``T``; retention falls at given days of quiet."""

    def __init__(
        self, *days: float, fades: float = 20, forgets: float = 60, trend: float = 0
    ) -> None:
        times = T + np.array(days) * DAY_S
        self.first, self.last = times[:1], times[-1:]
        self.maps = occasion_maps(np.zeros(len(times), int), 1, times)
        self.rhythm = rhythm_of(self.maps, self.last, DEFAULT_S)
        self.count = np.array([float(len(times))])
        self.trend = np.array([float(trend)])
        self.forgets_s = np.array([forgets * DAY_S])
        self.limits = quiet_limits(
            self.rhythm,
            self.trend,
            self.count,
            np.array([fades * DAY_S]),
            self.forgets_s,
            THRESHOLDS,
        )
        self.revived = revived(
            self.maps,
            self.first,
            self.last,
            self.rhythm,
            self.forgets_s,
            DEFAULT_S,
            THRESHOLDS,
        )

    def state(self, quiet_days: float) -> InterestState:
        recency = np.array([quiet_days * DAY_S])
        return InterestState(
            states_of(recency, self.limits, self.rhythm, self.count, self.revived, THRESHOLDS)[0]
        )

    def days(self) -> tuple[float, float, float]:
        limits = self.limits
        ladder = np.concatenate([limits.resting_s, limits.fading_s, limits.forgotten_s])
        resting, fading, forgotten = (ladder / DAY_S).tolist()
        return resting, fading, forgotten


@pytest.mark.parametrize(
    ("days", "quiet", "expected"),
    [
        ((0,), 0.1, InterestState.NEW),
        ((0, 0.01, 0.02, 0.03, 0.04), 0.1, InterestState.NEW),
        ((0, 2), 1, InterestState.NEW),
        ((0,), 400, InterestState.FORGOTTEN),
        ((0, 1, 2, 3), 0.1, InterestState.ACTIVE),
        ((0, 1, 2, 3), 3, InterestState.FORGOTTEN),
        (WEEKLY, 6, InterestState.ACTIVE),
        (WEEKLY, 9, InterestState.FADING),
        (WEEKLY, 10, InterestState.FORGOTTEN),
        ((0, 30, 60, 90), 32, InterestState.RESTING),
        ((0, 30, 60, 90), 38, InterestState.FADING),
        ((0, 30, 60, 90), 45, InterestState.FORGOTTEN),
        ((0, 3, 30, 34, 64, 66), 25, InterestState.RESTING),
        ((0, 1, 2, 3, 400), 0.1, InterestState.REVIVED),
        ((0, 1, 2, 3, 400, 400.1), 0.1, InterestState.REVIVED),
        ((0, 1, 2, 3, 400, 401), 0.1, InterestState.ACTIVE),
        ((*WEEKLY, 49 + 30), 0.1, InterestState.REVIVED),
        ((*WEEKLY, 49 + 9), 0.1, InterestState.ACTIVE),
        ((0, 7 * 365), 1, InterestState.REVIVED),
    ],
)
def test_states_of_lives(days, quiet: float, expected: InterestState) -> None:
    assert Life(*days).state(quiet) is expected


def test_a_quiet_life_passes_through_its_states_in_order() -> None:
    life = Life(0, 3, 20, 24, 44, 46, fades=10)
    course = [life.state(day) for day in np.arange(0, 300, 0.5)]
    assert list(dict.fromkeys(course)) == [
        InterestState.ACTIVE,
        InterestState.RESTING,
        InterestState.FADING,
        InterestState.FORGOTTEN,
    ]


def test_states_change_where_the_limits_say() -> None:
    life = Life(0, 30, 60, 90)
    quiet = 0.0
    seen = []
    while math.isfinite(following := next_change_s(np.array([quiet]), life.limits)[0]):
        just_before = np.nextafter(following, 0)
        assert life.state(just_before / DAY_S) is life.state(quiet / DAY_S)
        quiet = following
        seen.append(
            states_of(
                np.array([quiet]), life.limits, life.rhythm, life.count, life.revived, THRESHOLDS
            )[0]
        )
    assert seen == [InterestState.RESTING, InterestState.FADING, InterestState.FORGOTTEN]


@pytest.mark.parametrize("retention", [AT_ONCE, NEVER])
def test_a_regular_interest_is_judged_by_its_rhythm_alone(retention: float) -> None:
    life = Life(*WEEKLY, fades=retention, forgets=retention, trend=-2)
    _, fading, forgotten = life.days()
    assert 8 < fading < 9
    assert 9.5 < forgotten <= 10.5


def test_an_irregular_interest_follows_retention_within_its_own_gaps() -> None:
    days = (0, 3, 20, 24, 44, 46)
    gap = Life(*days).rhythm.gap_s[0] / DAY_S
    longest = Life(*days).rhythm.longest_gap_s[0] / DAY_S
    _, _, told_days = Life(*days, fades=30, forgets=50).days()
    assert told_days == 50
    _, fading, forgotten = Life(*days, fades=AT_ONCE, forgets=AT_ONCE).days()
    assert fading == pytest.approx(max(1.5 * gap, longest))
    assert forgotten == pytest.approx(max(2.5 * gap, 2 * longest))
    resting, fading, forgotten = Life(*days, fades=NEVER, forgets=NEVER).days()
    assert fading == pytest.approx(4 * gap)
    assert forgotten == pytest.approx(8 * gap)
    assert math.isinf(resting)


def test_trends_move_the_patience_with_an_irregular_interest() -> None:
    days = (0, 3, 20, 24, 44, 46)
    falling, steady, rising = (Life(*days, trend=trend).days() for trend in (-1, 0, 1))
    assert falling[2] < steady[2] < rising[2]


def test_one_occasion_is_forgotten_some_day_even_where_retention_never_falls() -> None:
    _, fading, forgotten = Life(0, fades=NEVER, forgets=NEVER).days()
    assert fading == pytest.approx(4 * 30)
    assert forgotten == pytest.approx(8 * 30)


def test_before_four_occasions_no_rhythm_is_presumed() -> None:
    for days in ((0, 1), (0, 1, 2), (0, 7), (0, 7, 14)):
        assert Life(*days, fades=AT_ONCE, forgets=AT_ONCE).days()[2] >= 60


def test_a_new_interest_does_not_rest() -> None:
    assert math.isinf(Life(0, 2, fades=1).days()[0])


@pytest.mark.parametrize("retention", [AT_ONCE, NEVER])
@pytest.mark.parametrize("bursts", [False, True])
@pytest.mark.parametrize("kind", RHYTHMS)
def test_generated_rhythms_are_left_alone_in_their_quiet_days(kind, bursts, retention) -> None:
    # A weekend and a row of days are several sessions each; four of them are no rhythm yet.
    known = 12 if kind in ("weekends", "days in a row, monthly") else 4
    cases = cases_of(rhythmic(kind, 40, 30, bursts, 13), known)
    judged = told(cases, retention, retention, 17)
    assert judged.false_alarms <= 0.01
    assert judged.detected >= 0.95


@pytest.mark.parametrize("retention", [AT_ONCE, NEVER])
def test_what_comes_irregularly_is_not_forgotten_within_its_gaps(retention: float) -> None:
    early = [
        told(cases_of(irregular(gap, 40, 40, True, 19), 4), retention, retention, 23).early
        for gap in POISSON_GAP_DAYS
    ]
    assert np.mean(early) <= 0.03


def test_revival_is_told_of_each_interest_apart() -> None:
    lives = [Life(0), Life(*WEEKLY), Life(*WEEKLY, 100), Life(0, 1, 2, 3, 400)]
    together = revived(
        np.concatenate([life.maps for life in lives]),
        np.concatenate([life.first for life in lives]),
        np.concatenate([life.last for life in lives]),
        Rhythm(
            *(
                np.concatenate([getattr(life.rhythm, name) for life in lives])
                for name in Rhythm.__dataclass_fields__
            )
        ),
        np.concatenate([life.forgets_s for life in lives]),
        DEFAULT_S,
        THRESHOLDS,
    )
    assert together.tolist() == [False, False, True, True]


def test_an_interest_without_pause_has_not_come_back() -> None:
    assert not Life(*range(0, 1200, 3)).revived.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fading": math.nan}, "from 0 on"),
        ({"established": -1}, "from 0 on"),
        ({"fading": 1.5}, "at most 1"),
        ({"forgotten": 0.6}, "falls to forgotten"),
        ({"shortest_gap_s": math.inf}, "finite"),
        ({"trend_weight": math.inf}, "finite"),
        ({"overdue_gaps": 1.45}, "overdue_gaps <= abandoned_gaps"),
        ({"overdue_gaps": 0.0}, "0 < overdue_gaps"),
        ({"abandoned_gaps_most": 1.0}, "abandoned_gaps_most"),
        ({"fading_gaps_most": 9.0}, "forgotten_gaps_most"),
        ({"forgotten_gaps_least": 1.0}, "forgotten_gaps_least"),
    ],
)
def test_thresholds_that_contradict_each_other_are_refused(change, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(THRESHOLDS, **change)


def text(life: Life, quiet: float, freshness: float = 0.4) -> str:
    assessment = SimpleNamespace(
        rhythm=life.rhythm,
        limits=life.limits,
        recency_s=np.array([quiet * DAY_S]),
        states=np.array([life.state(quiet)]),
        freshness=np.array([freshness]),
        trend=life.trend,
    )
    return reason_text(assessment, 0, THRESHOLDS)


def test_reasons_in_words() -> None:
    weekly = Life(*WEEKLY, fades=2, trend=-1)
    assert text(weekly, 9) == (
        "last 9 d ago; usual gap 7 d; weekly rhythm, overdue by 2 d; trend falling; "
        "forgotten after 10 d of quiet"
    )
    assert text(weekly, 3) == (
        "last 3 d ago; usual gap 7 d; weekly rhythm, due in 4 d; trend falling; "
        "freshness 40%, but within its own gaps; fades after 8 d of quiet"
    )
    assert text(Life(0), 0.2) == (
        "last 5 h ago; one occasion only, usual gap taken as 30 d; engaged too few times to tell; "
        "fades after 45 d of quiet"
    )
    assert text(Life(*WEEKLY, 49 + 30, trend=1), 0.1) == (
        "last 2 h ago; usual gap 11 d; longest 28 d, no steady rhythm; trend rising; "
        "came back after it had been forgotten; fades after 28 d of quiet"
    )
    assert text(Life(0, 3, 20, 24, 44, 46), 2) == (
        "last 2 d ago; usual gap 9 d; longest 20 d, no steady rhythm; fades after 20 d of quiet"
    )
    assert "steady rhythm, due in" in text(Life(*range(0, 30, 3)), 1)


def test_limits_of_no_interests() -> None:
    nothing = np.zeros(0)
    rhythm = rhythm_of(np.zeros((0, 4), np.uint64), nothing, DEFAULT_S)
    limits = quiet_limits(rhythm, nothing, nothing, nothing, nothing, THRESHOLDS)
    assert isinstance(limits, QuietLimits)
    assert next_change_s(nothing, limits).shape == (0,)
    assert revived(
        np.zeros((0, 4), np.uint64), *[nothing] * 2, rhythm, nothing, 1.0, THRESHOLDS
    ).shape == (0,)
