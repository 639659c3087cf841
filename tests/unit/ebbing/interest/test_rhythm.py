"""Rhythms of small lives, and what must not mislead them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ebbing.interest.bank import bank_sums
from ebbing.interest.occasions import occasion_maps
from ebbing.interest.rhythm import (
    DAY_S,
    MONTH_S,
    WEEK_S,
    Rhythm,
    before_newest,
    rhythm_of,
    trend,
)
from tests.harness.rhythms import RHYTHMS, cases_of, irregular, rhythmic

T = 19_676 * DAY_S + 9 * 3600.0
"""Nine in the morning, UTC."""
DEFAULT_S = 30 * DAY_S


def read(*lives) -> Rhythm:
    """The rhythm of interests engaged at these days after ``T``."""
    times = [T + np.asarray(days, float) * DAY_S for days in lives]
    segments = np.repeat(np.arange(len(times)), [len(one) for one in times])
    maps = occasion_maps(segments, len(times), np.concatenate(times))
    return rhythm_of(maps, np.array([one.max() for one in times]), DEFAULT_S)


@pytest.mark.parametrize(
    ("gap", "n", "period"),
    [
        (1, 4, DAY_S),
        (1, 40, DAY_S),
        (2, 9, math.nan),
        (3, 5, math.nan),
        (7, 4, WEEK_S),
        (7, 60, WEEK_S),
        (14, 5, math.nan),
        (30.44, 4, MONTH_S),
        (30.44, 24, MONTH_S),
        (91.3, 6, math.nan),
    ],
)
def test_steady_gaps_are_a_rhythm(gap: float, n: int, period: float) -> None:
    rhythm = read(gap * np.arange(n))
    assert rhythm.regular.all()
    assert rhythm.gap_s == pytest.approx(gap * DAY_S, rel=0.06)
    assert rhythm.longest_gap_s == pytest.approx(gap * DAY_S, rel=0.2)
    assert rhythm.period_s == pytest.approx(period, nan_ok=True)
    assert rhythm.occasions[0] == min(n, 8) or rhythm.occasions[0] >= 4


def test_a_weekend_is_one_occasion() -> None:
    saturdays = 7.0 * np.arange(8)
    rhythm = read(np.concatenate([saturdays, saturdays + 1.2]))
    assert rhythm.period_s.tolist() == [WEEK_S]


def test_a_burst_is_one_occasion() -> None:
    hour = np.arange(10) / 10 / 24
    bursts = (7.0 * np.arange(6)[:, None] + hour).ravel()
    assert read(bursts).period_s.tolist() == [WEEK_S]
    once = read(hour)
    assert once.occasions.tolist() == [1]
    assert not once.regular.any()
    assert math.isinf(once.quiet_before_s[0])


def test_hours_that_swing_leave_a_daily_interest_daily() -> None:
    chance = np.random.default_rng(3)
    rhythm = read(np.arange(12) + chance.uniform(0, 10 / 24, 12))
    assert rhythm.period_s.tolist() == [DAY_S]
    # Eight in the morning and ten in the evening by turns: 38 hours apart, then 10.
    turns = read(np.arange(12) + np.where(np.arange(12) % 2, 14 / 24, 0))
    assert turns.gap_s == pytest.approx(DAY_S, rel=0.1)
    assert turns.longest_gap_s[0] >= 1.5 * DAY_S


def test_what_it_was_before_has_no_say() -> None:
    weekly, monthly = 7.0 * np.arange(20), 133 + 30.44 * np.arange(1, 7)
    assert read(np.concatenate([weekly, monthly])).period_s.tolist() == [MONTH_S]
    restarted = 133 + 365 + 7.0 * np.arange(5)
    assert read(np.concatenate([weekly, restarted])).period_s.tolist() == [WEEK_S]


def test_an_absence_is_no_usual_gap() -> None:
    weekly = 7.0 * np.arange(8)
    back = read([*weekly, 49 + 120])
    assert back.gap_s[0] < 12 * DAY_S
    assert back.longest_gap_s[0] <= 4.2 * WEEK_S
    assert read([0, 1, 2, 3, 400]).gap_s == pytest.approx(4 * DEFAULT_S, rel=0.1)
    assert read([0, 395, 400]).gap_s[0] < DEFAULT_S


def test_days_in_a_row_do_not_hide_the_month() -> None:
    streaks = (30.44 * np.arange(8)[:, None] + np.arange(4)).ravel()
    assert read(streaks).period_s.tolist() == [MONTH_S]


def test_an_interest_without_pause_is_read_from_its_slots() -> None:
    rhythm = read(np.arange(0, 40, 0.2))
    assert rhythm.gap_s == pytest.approx(DAY_S / 4, rel=0.2)
    assert rhythm.occasions[0] == 8
    assert math.isinf(rhythm.quiet_before_s[0])


def test_before_four_occasions_the_longest_gap_is_not_known() -> None:
    once, twice, thrice = read([0]), read([0, 5]), read([0, 5, 10])
    assert once.gap_s.tolist() == [DEFAULT_S]
    assert twice.gap_s == pytest.approx(5 * DAY_S, rel=0.1)
    assert thrice.gap_s == pytest.approx(5 * DAY_S, rel=0.05)
    for rhythm in (once, twice, thrice):
        assert rhythm.longest_gap_s.tolist() == [DEFAULT_S]
        assert not rhythm.regular.any()


@pytest.mark.parametrize(
    ("days", "quiet"), [([0, 3], 3), ([0, 7, 8], 1), ([0, 50], 50), ([0, 1, 400], 399)]
)
def test_quiet_before_the_newest_occasion(days, quiet) -> None:
    assert read(days).quiet_before_s == pytest.approx(quiet * DAY_S, rel=0.1)


def test_interests_are_read_apart() -> None:
    lives = [[0.0], 7.0 * np.arange(9), np.arange(30.0), [0, 1, 50, 52, 53, 120]]
    together = read(*lives)
    for i, days in enumerate(lives):
        alone = read(days)
        for name in Rhythm.__dataclass_fields__:
            np.testing.assert_array_equal(getattr(together, name)[i], getattr(alone, name)[0])


def test_no_interests_have_no_rhythm() -> None:
    none = rhythm_of(np.zeros((0, 4), np.uint64), np.zeros(0), DEFAULT_S)
    assert none.gap_s.shape == none.period_s.shape == none.quiet_before_s.shape == (0,)


@pytest.mark.parametrize("bursts", [False, True])
@pytest.mark.parametrize("kind", RHYTHMS)
def test_generated_rhythms_are_seen(kind: str, bursts: bool) -> None:
    cases = cases_of(rhythmic(kind, 30, 30, bursts, 11), known=12)
    gaps = np.where(cases.rhythm.regular, cases.rhythm.gap_s, np.nan)
    assert np.mean(np.abs(gaps / cases.usual_gap_s - 1) < 0.15) >= 0.94


def test_most_days_are_not_a_daily_rhythm() -> None:
    chance = np.random.default_rng(3)
    lives = [np.flatnonzero(chance.random(120) < 0.8) for _ in range(100)]
    assert read(*lives).regular.mean() < 0.1
    week_before_a_rest = [*range(0, 20), *range(23, 31)]
    assert not read(week_before_a_rest).regular[0]


@pytest.mark.parametrize("hour", [-9.5, -8.9, 0.0, 2.9])
def test_midnight_does_not_hide_a_daily_rhythm(hour: float) -> None:
    chance = np.random.default_rng(4)
    days = np.arange(80) + (hour + chance.uniform(-3, 3, 80)) / 24
    assert read(days).period_s[0] == DAY_S


def test_chance_is_seldom_taken_for_a_rhythm() -> None:
    for gap_days in (2.0, 7.0, 30.0):
        cases = cases_of(irregular(gap_days, 40, 40, True, 5), known=8)
        assert cases.rhythm.regular.mean() < 0.25
        assert np.median(cases.rhythm.gap_s) == pytest.approx(gap_days * DAY_S, rel=0.2)


@pytest.mark.parametrize(
    "shown", [[0, 2, 4, 9], [0, 1, 2, 40], [0, 300], [5, 5.05, 9], [0, 90, 91]]
)
def test_the_maps_before_the_newest_occasion_are_those_of_the_earlier_events(shown) -> None:
    times = T + np.array(shown) * DAY_S
    maps = occasion_maps(np.zeros(len(times), int), 1, times)
    earlier, newest = before_newest(maps, times[-1:])
    expected = occasion_maps(np.zeros(len(times) - 1, int), 1, times[:-1])
    gap = times[-1] - times[-2]
    # Levels whose windows do not reach back to the earlier event know it alone.
    reach = [gap < 60 * width for width in (6 * 3600.0, DAY_S, 4 * DAY_S, 16 * DAY_S)]
    np.testing.assert_array_equal(earlier[0], np.where(reach, expected[0], 1))
    assert newest == pytest.approx(times[-2], abs=max(gap / 16, 3 * 3600.0))


def test_a_single_occasion_has_nothing_before_it() -> None:
    maps, newest = before_newest(np.ones((1, 4), np.uint64), np.array([T]))
    assert maps.tolist() == [[1, 1, 1, 1]]
    assert newest.tolist() == [T]


def bank(days, weight: float = 1.0) -> np.ndarray:
    times = T + np.asarray(days, float) * DAY_S
    n = len(times)
    return bank_sums(np.zeros(n, int), 1, times, np.full(n, weight), times[-1])


@pytest.mark.parametrize("gap", [0.1, 1, 3, 7, 14, 30.44, 60, 200, 365])
@pytest.mark.parametrize("weight", [0.1, 1.0, 8.0])
def test_a_steady_interest_has_no_trend_whatever_its_rate(gap: float, weight: float) -> None:
    assert trend(bank(np.arange(0, 1500, gap), weight)) == pytest.approx(0, abs=0.05)


def test_trends_have_a_direction() -> None:
    daily, weekly = np.arange(400.0), 7.0 * np.arange(60)
    assert trend(bank(np.concatenate([daily, 400 + 7.0 * np.arange(9)]))) < -0.5
    assert trend(bank(np.concatenate([weekly, 420 + np.arange(30.0)]))) > 0.5
    assert trend(np.zeros((2, 10))).tolist() == [0.0, 0.0]
    assert np.isfinite(trend(np.array([[0.0] * 5 + [1e-300, 1.0, 1, 1, 1]]))).all()
