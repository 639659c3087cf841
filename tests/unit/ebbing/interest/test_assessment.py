"""Assessments of small lives: that their parts agree, and when their states change."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from ebbing.interest.assessment import Outlook, assess, half_life, retention, states_at
from ebbing.interest.forgetting import (
    OVERDUE,
    RECENCY,
    ForgettingParameters,
    HorizonOutOfFamily,
)
from ebbing.interest.states import InterestState, StateThresholds
from ebbing.interest.trace import TraceTable
from tests.harness.retention import fitted

DAY_S = 86400.0
T = 1.7e9
BUILTIN = ForgettingParameters.builtin()
FITTED = fitted()


def life(*days: float, name: str = "tea") -> TraceTable:
    """One interest, engaged on these days."""
    return TraceTable.from_events([(T + day * DAY_S, 1.0, [(name, 1.0)]) for day in days])


def state(table: TraceTable, day: float) -> InterestState:
    return InterestState(states_at(table, T + day * DAY_S, BUILTIN)[0])


MANY = TraceTable.from_events(
    [
        *((T + day * DAY_S, 1.0, [("tea", 1.0)]) for day in range(0, 90, 7)),
        *((T + day * DAY_S, 2.0, [("sports/football", 0.5)]) for day in (0, 3, 60)),
        (T + 80 * DAY_S, 1.0, [("sports/cricket", 0.3), ("unheard/of", 0.7)]),
        *((T + day * DAY_S, 1.0, [("music", 1.0)]) for day in range(5)),
    ]
)
LATER = T + 91 * DAY_S


@pytest.mark.parametrize(
    ("days", "day", "expected"),
    [
        ((0,), 0.1, InterestState.NEW),
        ((0, 1, 2, 3), 3.1, InterestState.ACTIVE),
        ((0, 7, 14, 21, 28), 33, InterestState.RESTING),
        ((0, 7, 14, 21, 28), 38, InterestState.FORGOTTEN),
        ((0, 1, 2, 3), 400, InterestState.FORGOTTEN),
        ((0,), 4000, InterestState.FORGOTTEN),
        ((0, 1, 2, 3, 400), 400.1, InterestState.REVIVED),
        ((0, 1, 2, 3, 400, 401.5, 403), 403.1, InterestState.ACTIVE),
    ],
)
def test_states_of_lives(days, day, expected) -> None:
    assert state(life(*days), day) is expected


def test_a_quiet_life_passes_through_its_states_in_order() -> None:
    table = life(0, 10, 20, 30)
    course = [state(table, day) for day in np.arange(30.0, 200.0, 0.25)]
    assert list(dict.fromkeys(course)) == [
        InterestState.ACTIVE,
        InterestState.RESTING,
        InterestState.FADING,
        InterestState.FORGOTTEN,
    ]
    assert course == sorted(course, key=list(dict.fromkeys(course)).index)


def test_changes_lead_from_state_to_state_until_none_is_left() -> None:
    table, at = life(0, 10, 20, 30), T + 30 * DAY_S
    seen = []
    while math.isfinite(at):
        assessed = assess(table, at, BUILTIN)
        seen.append(InterestState(assessed.states[0]))
        if math.isfinite(float(assessed.changes[0])):
            just_before = float(assessed.changes[0]) - 1e-3
            assert states_at(table, just_before, BUILTIN)[0] == seen[-1]
        at = float(assessed.changes[0])
    assert seen == [
        InterestState.ACTIVE,
        InterestState.RESTING,
        InterestState.FADING,
        InterestState.FORGOTTEN,
    ]


@pytest.mark.parametrize("shift", np.linspace(0.0, 1e6, 50))
def test_at_the_moment_of_a_change_the_new_state_holds(shift: float) -> None:
    days = (np.array([0, 10, 20, 30]) * DAY_S + shift / 7) / DAY_S
    table = life(*days)
    now = assess(table, table.span[1], FITTED)
    for _ in range(3):
        following = assess(table, float(now.changes[0]), FITTED)
        assert following.states[0] != now.states[0]
        assert following.changes[0] > now.changes[0]
        now = following


def test_what_is_forgotten_comes_back_and_stays_revived_for_an_occasion() -> None:
    quiet = life(0, 1, 2, 3)
    assert state(quiet, 399.9) is InterestState.FORGOTTEN
    back = quiet.add([("tea", 1.0)], T + 400 * DAY_S)
    assert state(back, 400) is InterestState.REVIVED
    assert state(back.add([("tea", 1.0)], T + 400.01 * DAY_S), 400.1) is InterestState.REVIVED
    assert state(back, 1400) is InterestState.FORGOTTEN


@pytest.mark.parametrize("parameters", [BUILTIN, FITTED], ids=lambda p: p.version)
def test_all_ways_of_asking_agree(parameters: ForgettingParameters) -> None:
    assessed = assess(MANY, LATER, parameters)
    np.testing.assert_array_equal(assessed.retention, retention(MANY, LATER, parameters))
    np.testing.assert_array_equal(assessed.states, states_at(MANY, LATER, parameters))
    np.testing.assert_array_equal(assessed.recency_s, LATER - MANY.last)
    outlook = Outlook.of(MANY, parameters)
    np.testing.assert_array_equal(assessed.states, outlook.states(LATER - MANY.last))
    for i in range(len(MANY.names)):
        alone = outlook.only(i).assessed(LATER, assessed.retention[i : i + 1])
        for name in ("retention", "freshness", "recency_s", "states", "changes", "trend"):
            assert getattr(alone, name) == getattr(assessed, name)[i : i + 1]
        for part in ("rhythm", "limits"):
            for name in type(getattr(alone, part)).__dataclass_fields__:
                np.testing.assert_array_equal(
                    getattr(getattr(alone, part), name),
                    getattr(getattr(assessed, part), name)[i : i + 1],
                )


def test_what_else_the_user_does_moves_no_state_but_does_move_retention() -> None:
    busy = MANY.add([("rum", 1.0)], LATER)
    one, two = (assess(table, LATER, FITTED) for table in (MANY, busy))
    n = len(MANY.names)
    np.testing.assert_array_equal(one.states, two.states[:n])
    np.testing.assert_array_equal(one.changes, two.changes[:n])
    np.testing.assert_array_equal(one.freshness, two.freshness[:n])
    assert (one.retention != two.retention[:n]).all()


def test_freshness_is_told_of_the_interest_alone() -> None:
    c, gap_s = FITTED.coefficients, 7 * DAY_S
    assessed = assess(life(0, 7, 14), T + 20 * DAY_S, FITTED)
    slope = c[RECENCY] + c[-1]
    expected = math.exp(slope * math.log(7) + c[OVERDUE] * math.log(1 + 6 * DAY_S / gap_s))
    assert assessed.freshness.tolist() == pytest.approx([expected], rel=1e-12)
    assert assess(life(0), T, FITTED).freshness.tolist() == [1.0]


def test_thresholds_are_arguments() -> None:
    table, at = life(0, 10, 20, 30), T + 31 * DAY_S
    slow = StateThresholds(established=5)
    assert states_at(table, at, BUILTIN).tolist() == [InterestState.ACTIVE]
    assert states_at(table, at, BUILTIN, slow).tolist() == [InterestState.NEW]
    assert assess(table, at, BUILTIN, slow).states.tolist() == [InterestState.NEW]


def test_the_longer_the_horizon_the_likelier_the_return() -> None:
    days = (7, 14, 29.99, 30, 30.01, 60, 90)
    chances = [retention(MANY, LATER, FITTED, day * DAY_S) for day in days]
    assert (np.diff(chances, axis=0) > 0).all()
    np.testing.assert_array_equal(chances[3], retention(MANY, LATER, FITTED))
    halves = [half_life(MANY, LATER, FITTED, day * DAY_S) for day in days]
    assert (np.diff(halves, axis=0) > 0).all()


@pytest.mark.parametrize("ask", [retention, assess, half_life], ids=lambda ask: ask.__name__)
@pytest.mark.parametrize("days", [6.9, 90.1, 0.0, -1.0, math.inf, math.nan])
def test_horizons_outside_the_family_are_refused(ask, days: float) -> None:
    with pytest.raises(HorizonOutOfFamily) as refused:
        ask(MANY, LATER, FITTED, horizon_s=days * DAY_S)
    assert (refused.value.shortest_s, refused.value.longest_s) == FITTED.horizons_s


@pytest.mark.parametrize("ask", [retention, assess, states_at, half_life])
@pytest.mark.parametrize("at", [T - 1, -math.inf, math.nan])
def test_the_past_cannot_be_asked_for(ask, at: float) -> None:
    with pytest.raises(ValueError, match="before the newest event"):
        ask(life(0), at, BUILTIN)
    # An event of another interest is an event of the user.
    with pytest.raises(ValueError, match="before the newest event"):
        ask(life(-10).add([("rum", 1.0)], T), at, BUILTIN)


def test_the_moment_of_the_newest_event_can_be_asked_for() -> None:
    assessed = assess(life(0), T, BUILTIN)
    assert assessed.recency_s.tolist() == [0.0]
    assert 0 < assessed.retention[0] < 1


@pytest.mark.parametrize("table", [TraceTable.empty(), TraceTable.empty().add([], T)])
def test_a_user_without_interests(table: TraceTable) -> None:
    for parameters in (BUILTIN, FITTED):
        assessed = assess(table, T, parameters, horizon_s=14 * DAY_S)
        for name in ("retention", "freshness", "recency_s", "states", "changes", "trend"):
            assert getattr(assessed, name).shape == (0,)
        assert half_life(table, T, parameters).shape == (0,)
        assert states_at(table, T, parameters).shape == (0,)


def test_many_interests_are_each_assessed_as_their_traces_say() -> None:
    parts = [life(*range(0, 2 + k % 30, 1 + k % 7), name=f"i/{k}") for k in range(128)]
    table = TraceTable.empty()
    for part in parts:
        shared = TraceTable.of(
            part.rows, part.open_sums, part.closed_sums, part.times, part.occasion_maps
        )
        table = table.merge(shared)
    at = T + 40 * DAY_S
    whole = assess(table, at, FITTED)
    assert whole.retention.shape == (128,)
    assert np.isfinite(whole.retention).all()
    for k in (0, 1, 63, 127):
        alone = assess(parts[k], at, FITTED)
        i = table.names.index(f"i/{k}")
        assert whole.states[i] == alone.states[0]
        assert whole.changes[i] == alone.changes[0]
        assert whole.freshness[i] == pytest.approx(alone.freshness[0], rel=1e-12)


def test_an_unknown_interest_is_assessed_as_its_kin() -> None:
    lives = {name: life(0, 3, 5, name=name) for name in ("sports/football", "sports/rugby")}
    at = T + 9 * DAY_S
    alone = replace(
        FITTED.population,
        says=np.zeros_like(FITTED.population.says),
        hears=np.zeros_like(FITTED.population.hears),
    )
    parameters = replace(FITTED, population=alone)

    def log_odds(table: TraceTable) -> float:
        (chance,) = retention(table, at, parameters)
        return float(np.log(chance) - np.log1p(-chance))

    mean = np.mean([log_odds(table) for table in lives.values()])
    for name in ("sports/cricket", "sports"):
        assert log_odds(life(0, 3, 5, name=name)) == pytest.approx(mean, rel=1e-12)
    stranger = log_odds(life(0, 3, 5, name="unheard/of"))
    assert stranger == pytest.approx(mean - (0.5 - 0.6 - 0.1 + 0.2) / 2 - 1.4, rel=1e-12)
    rolled = lives["sports/football"].roll_up()
    assert log_odds(rolled) == pytest.approx(mean, rel=1e-12)
