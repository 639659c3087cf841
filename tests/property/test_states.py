"""What holds of rhythms and states for any events and any retention."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ebbing.interest.bank import BANK_SIZE
from ebbing.interest.occasions import occasion_maps
from ebbing.interest.rhythm import Rhythm, rhythm_of, trend
from ebbing.interest.states import (
    InterestState,
    QuietLimits,
    StateThresholds,
    next_change_s,
    quiet_limits,
    revived,
    states_of,
)

YEAR_S = 365.25 * 86400.0
NOW = 1.7e9
ORDER = [
    {InterestState.NEW, InterestState.ACTIVE, InterestState.REVIVED},
    {InterestState.RESTING},
    {InterestState.FADING},
    {InterestState.FORGOTTEN},
]

times = st.lists(st.floats(NOW - 100 * YEAR_S, NOW + 100 * YEAR_S), min_size=1, max_size=30)
recent = st.lists(st.floats(NOW - YEAR_S, NOW), min_size=1, max_size=60)
steady = st.builds(
    lambda gap, n: [NOW - gap * i for i in range(n)], st.floats(3600.0, YEAR_S), st.integers(1, 60)
)
lives = st.lists(st.one_of(times, recent, steady), min_size=1, max_size=5)
quiets = st.one_of(st.floats(0, 200 * YEAR_S), st.just(float("inf")))
retentions = st.tuples(quiets, quiets).map(sorted)
trends = st.floats(-2, 2)
defaults = st.floats(60.0, YEAR_S)
thresholds = st.builds(
    StateThresholds,
    established=st.integers(0, 10),
    shortest_gap_s=st.floats(0.0, 7 * 86400.0),
    forgotten_gaps_least=st.floats(1.5, 8),
    forgotten_longest_gaps=st.floats(0, 5),
    trend_weight=st.floats(0, 1),
)


class Drawn:
    """Interests of these event times, and all that is told of them."""

    def __init__(self, lives, retention, trend_, default_s, limits: StateThresholds) -> None:
        ordered = [np.sort(life) for life in lives]
        n = len(ordered)
        segments = np.repeat(np.arange(n), [len(life) for life in ordered])
        self.thresholds = limits
        self.maps = occasion_maps(segments, n, np.concatenate([np.asarray(one) for one in lives]))
        self.first = np.array([life[0] for life in ordered])
        self.last = np.array([life[-1] for life in ordered])
        self.count = np.array([float(len(life)) for life in ordered])
        fades_s, forgets_s = (np.full(n, quiet) for quiet in retention)
        self.rhythm = rhythm_of(self.maps, self.last, default_s)
        self.limits = quiet_limits(
            self.rhythm, np.full(n, trend_), self.count, fades_s, forgets_s, limits
        )
        self.revived = revived(
            self.maps, self.first, self.last, self.rhythm, forgets_s, default_s, limits
        )

    def states(self, quiet_s) -> np.ndarray:
        quiet = np.broadcast_to(np.asarray(quiet_s, float), self.last.shape)
        return states_of(quiet, self.limits, self.rhythm, self.count, self.revived, self.thresholds)


drawn = st.builds(Drawn, lives, retentions, trends, defaults, thresholds)


@given(drawn)
def test_rhythms_are_numbers(told: Drawn) -> None:
    rhythm = told.rhythm
    assert np.isfinite(rhythm.gap_s).all()
    assert (rhythm.gap_s > 0).all()
    assert np.isfinite(rhythm.longest_gap_s).all()
    assert (rhythm.longest_gap_s > 0).all()
    assert ((rhythm.occasions >= 1) & (rhythm.occasions <= told.count)).all()
    assert (rhythm.quiet_before_s > 0).all()
    assert (rhythm.occasions[rhythm.regular] >= 4).all()
    assert np.isnan(rhythm.period_s[~rhythm.regular]).all()


@given(drawn)
def test_limits_come_in_order(told: Drawn) -> None:
    limits = told.limits
    assert (limits.fading_s > 0).all()
    assert (limits.fading_s <= limits.forgotten_s).all()
    assert np.isfinite(limits.forgotten_s).all()
    assert ((limits.resting_s < limits.fading_s) | np.isinf(limits.resting_s)).all()


@given(drawn, st.lists(st.floats(0, 300 * YEAR_S), min_size=2, max_size=10))
def test_quiet_leads_one_way(told: Drawn, moments: list[float]) -> None:
    course = [told.states(quiet) for quiet in sorted(moments)]
    for sooner, later in pairwise(course):
        for before, after in zip(sooner, later, strict=True):
            stage = [
                next(i for i, group in enumerate(ORDER) if s in group) for s in (before, after)
            ]
            assert stage[0] <= stage[1]
            assert stage[0] < stage[1] or before == after


@given(drawn)
def test_everything_is_forgotten_some_day(told: Drawn) -> None:
    assert (told.states(1e30) == InterestState.FORGOTTEN).all()


@given(drawn, st.floats(0, 100 * YEAR_S))
def test_states_change_exactly_where_it_is_said(told: Drawn, quiet: float) -> None:
    recency = np.full(told.last.shape, quiet)
    following = next_change_s(recency, told.limits)
    assert (following > recency).all()
    now, ever = told.states(recency), np.isfinite(following)
    np.testing.assert_array_equal(told.states(np.nextafter(following, 0))[ever], now[ever])
    changed = told.states(following)
    assert (changed[ever] != now[ever]).all()
    np.testing.assert_array_equal(told.states(np.full_like(recency, 1e30))[~ever], now[~ever])


@given(st.data(), lives, retentions, trends, defaults)
def test_states_are_of_the_set_of_events_and_of_each_interest_alone(
    data, lives, retention, trend_, default_s
) -> None:
    shuffled = [data.draw(st.permutations(life)) + life[:1] for life in lives]
    together = Drawn(lives, retention, trend_, default_s, StateThresholds())
    for i, life in enumerate(shuffled):
        alone = Drawn([life], retention, trend_, default_s, StateThresholds())
        for name in Rhythm.__dataclass_fields__:
            np.testing.assert_array_equal(
                getattr(alone.rhythm, name)[0], getattr(together.rhythm, name)[i]
            )
        assert alone.revived[0] == together.revived[i]
        # One event told twice is an event more, which alone may end what is new.
        for name in ("fading_s", "forgotten_s"):
            assert getattr(alone.limits, name)[0] == getattr(together.limits, name)[i]


@given(drawn)
def test_nothing_given_is_changed(told: Drawn) -> None:
    maps, last, count = told.maps.copy(), told.last.copy(), told.count.copy()
    rhythm = rhythm_of(told.maps, told.last, 1e6)
    quiet_limits(rhythm, last * 0, told.count, last * 0, last * 0, told.thresholds)
    np.testing.assert_array_equal(told.maps, maps)
    np.testing.assert_array_equal(told.last, last)
    np.testing.assert_array_equal(told.count, count)
    assert isinstance(told.limits, QuietLimits)


@given(
    st.lists(
        st.lists(st.floats(0, 1e12), min_size=BANK_SIZE, max_size=BANK_SIZE).map(sorted),
        min_size=1,
        max_size=8,
    ),
    st.floats(1e-6, 1e6),
)
def test_trends_are_bounded_and_know_no_units(banks, scale: float) -> None:
    bank = np.array(banks)
    found = trend(bank)
    assert np.isfinite(found).all()
    assert (np.abs(found) <= 2).all()
    plain = bank[:, 0] > 1e-200
    np.testing.assert_allclose(trend(bank * scale)[plain], found[plain], rtol=1e-6, atol=1e-9)
