"""Pacing: when a subject is due, by its rhythm and by what was shown."""

from __future__ import annotations

import pytest

from ebbing.interest.forgetting import ForgettingParameters
from ebbing.interest.trace import TraceTable
from server.recommend.interests import InterestContext
from server.recommend.pacing import LONGEST_S, Pace, paces_of

DAY_S = 86400.0
AT_S = 1.7e9
PARAMETERS = ForgettingParameters.builtin()


def paced(last_days: float, shown_days: tuple[float, ...] = (), every: float = 7.0) -> Pace:
    """The pace of an interest engaged steadily until so many days ago."""
    events = [(AT_S - (last_days + every * n) * DAY_S, 1.0, [("a", 1.0)]) for n in range(12)]
    context = InterestContext.of(TraceTable.from_events(events), AT_S, PARAMETERS)
    (pace,) = paces_of(context, {"a": [AT_S - days * DAY_S for days in shown_days]})
    return pace


def test_a_weekly_subject_is_due_after_a_week() -> None:
    pace = paced(1)
    assert not pace.due
    assert pace.interval_s == pytest.approx(7 * DAY_S, rel=0.1)
    assert pace.next_s == pytest.approx(AT_S + 6 * DAY_S, abs=0.8 * DAY_S)
    assert paced(7).due
    assert paced(6.5).due, "a little early is in time"
    assert paced(7).next_s <= AT_S


def test_what_was_shown_meanwhile_rests_again() -> None:
    assert not paced(8, shown_days=(1,)).due
    # By then it is forgotten, and was shown in vain: it rests for two weeks.
    assert not paced(16, shown_days=(8,)).due
    assert paced(24, shown_days=(14,)).due
    # What was shown before the newest engagement led to it.
    assert paced(8, shown_days=(9, 10)).in_vain == 0


def test_what_is_forgotten_is_shown_more_seldom_each_time() -> None:
    intervals = [
        paced(60, tuple(float(n) for n in range(1, shown + 1))).interval_s for shown in range(8)
    ]
    assert intervals == sorted(intervals)
    assert intervals[3] == pytest.approx(8 * intervals[0])
    assert intervals[7] == intervals[5]


def test_what_is_alive_bears_being_shown_a_few_times() -> None:
    assert paced(6, (1, 2)).interval_s == paced(6).interval_s
    assert paced(6, (1, 2, 3)).interval_s == 2 * paced(6).interval_s


def test_intervals_have_bounds() -> None:
    assert paced(0.001, every=0.001).interval_s >= DAY_S / 4
    assert paced(4000, every=400.0).interval_s <= LONGEST_S


def test_the_soonest_comes_first_and_nobody_has_none() -> None:
    events = [
        *((AT_S - (1 + 7 * n) * DAY_S, 1.0, [("weekly", 1.0)]) for n in range(9)),
        *((AT_S - (1 + 2 * n) * DAY_S, 1.0, [("often", 1.0)]) for n in range(9)),
    ]
    context = InterestContext.of(TraceTable.from_events(events), AT_S, PARAMETERS)
    assert [pace.interest for pace in paces_of(context, {})] == ["often", "weekly"]
    nobody = InterestContext.of(TraceTable.empty(), AT_S, PARAMETERS)
    assert paces_of(nobody, {}) == []
