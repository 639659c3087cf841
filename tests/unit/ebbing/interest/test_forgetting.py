"""States of small lives, and what parameters are refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from ebbing.interest.forgetting import (
    ACTIVITY_RATE,
    FEATURES,
    ForgettingParameters,
    InterestState,
    StateThresholds,
    assess,
    half_life,
    reason_text,
    retention_features,
)
from ebbing.interest.trace import HALF_LIVES_S, TraceTable

DAY_S = 86400.0
T = 1.7e9
BUILTIN = ForgettingParameters.builtin()


def life(*days: float) -> TraceTable:
    """One interest, engaged on these days."""
    return TraceTable.from_events([(T + day * DAY_S, 1.0, [("tea", 1.0)]) for day in days])


def state(
    table: TraceTable, day: float, thresholds: StateThresholds | None = None
) -> InterestState:
    return InterestState(assess(table, T + day * DAY_S, BUILTIN, thresholds).states[0])


@pytest.mark.parametrize(
    ("days", "day", "expected"),
    [
        ((0,), 0.1, InterestState.NEW),
        ((0, 1, 2, 3), 3.1, InterestState.ACTIVE),
        ((0, 30, 60, 90), 130, InterestState.RESTING),
        ((0, 10, 20, 30), 46, InterestState.FADING),
        ((0, 1, 2, 3), 400, InterestState.FORGOTTEN),
        ((0,), 4000, InterestState.FORGOTTEN),
        ((0, 1, 2, 3, 400), 400.1, InterestState.REVIVED),
        ((0, 1, 2, 3, 400, 401), 401.1, InterestState.ACTIVE),
    ],
)
def test_states_of_lives(days, day, expected) -> None:
    assert state(life(*days), day) is expected


def test_a_quiet_life_passes_through_its_states_in_order() -> None:
    table = life(0, 10, 20, 30)
    course = [state(table, day) for day in np.arange(30.0, 800.0, 0.5)]
    seen = list(dict.fromkeys(course))
    assert seen == [
        InterestState.ACTIVE,
        InterestState.RESTING,
        InterestState.FADING,
        InterestState.FORGOTTEN,
    ]
    assert course == sorted(course, key=seen.index)


def test_thresholds_are_arguments() -> None:
    table = life(0, 10, 20, 30)
    never = StateThresholds(fading=0.0, forgotten=0.0, fading_gaps=math.inf)
    assert state(table, 700, never) is InterestState.ACTIVE


def test_many_gaps_of_quiet_fade_an_interest_whatever_its_freshness() -> None:
    table = life(0, 10, 20, 30)
    gaps_alone = StateThresholds(fading=0.0, forgotten=0.0, fading_gaps=4.0)
    assert state(table, 70, gaps_alone) is InterestState.ACTIVE
    assert state(table, 70.1, gaps_alone) is InterestState.FADING
    assessed = assess(table, T + 70.1 * DAY_S, BUILTIN, gaps_alone)
    assert "more than 4 of its own gaps" in reason_text(assessed, 0, gaps_alone)


def test_an_assessment_gives_its_reasons_in_seconds() -> None:
    assessed = assess(life(0, 10, 20), T + 25 * DAY_S, BUILTIN)
    assert assessed.recency_s.tolist() == [5 * DAY_S]
    assert assessed.gap_s.tolist() == [10 * DAY_S]
    once = assess(life(0), T, BUILTIN)
    assert once.gap_s.tolist() == [BUILTIN.default_gap_s]
    assert once.freshness == pytest.approx([1.0])


def test_the_empty_table_has_no_states() -> None:
    assessed = assess(TraceTable.empty(), T, BUILTIN)
    assert assessed.states.shape == (0,)
    assert half_life(TraceTable.empty(), T, BUILTIN).shape == (0,)


def test_the_past_cannot_be_asked_for() -> None:
    with pytest.raises(ValueError, match="before the newest event"):
        assess(life(0), T - 1, BUILTIN)


def test_retention_that_waiting_does_not_touch_has_no_half_life() -> None:
    flat = replace(BUILTIN, coefficients=(0.5, 0.0, 0.0, 0.0, 0.0, 0.0))
    assert half_life(life(0), T, flat).tolist() == [math.inf]


def test_hopeless_parameters_still_give_numbers() -> None:
    hopeless = replace(BUILTIN, intercept=-1000.0)
    assessed = assess(life(0, 1, 2, 3), T + 4 * DAY_S, hopeless)
    assert assessed.retention.tolist() == [0.0]
    assert assessed.freshness.tolist() == [0.0]


def test_the_activity_rate_is_the_half_life_nearest_a_month() -> None:
    distances = np.abs(HALF_LIVES_S - 30 * DAY_S)
    assert distances[ACTIVITY_RATE] == distances.min()


def test_features_by_hand() -> None:
    features = retention_features(3, T, T + 20 * DAY_S, 7, 2.5, T + 25 * DAY_S, 1.0)
    expected = [math.log1p(x) for x in (3, 5, 10, 0.5, 7, 2.5)]
    np.testing.assert_allclose(features, expected)
    assert len(FEATURES) == 6


def test_gaps_are_at_least_an_hour() -> None:
    features = retention_features(2, T, T, 2, 2.0, T, 1.0)
    assert features[FEATURES.index("log_gap")] == pytest.approx(math.log1p(1 / 24))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"coefficients": (0.0,) * 5}, "6 coefficients"),
        ({"horizon_s": 0.0}, "above 0"),
        ({"horizon_s": float("nan")}, "finite"),
        ({"default_gap_s": -1.0}, "above 0"),
        ({"intercept": float("inf")}, "finite"),
        ({"coefficients": (0.0, float("nan"), 0.0, 0.0, 0.0, 0.0)}, "finite"),
        ({"coefficients": (0.0, 0.1, 0.0, 0.0, 0.0, 0.0)}, "grow by waiting"),
        ({"coefficients": (0.0, 0.0, 0.0, 0.0, 0.0, -0.1)}, "grow by waiting"),
    ],
)
def test_parameters_out_of_range_are_refused(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        replace(BUILTIN, **change)


def test_json_round_trip() -> None:
    assert ForgettingParameters.from_json(BUILTIN.to_json()) == BUILTIN


def _with(**changes: object) -> str:
    return json.dumps({**json.loads(BUILTIN.to_json()), **changes})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not forgetting parameters"),
        ("[]", "not forgetting parameters"),
        ("{}", "not forgetting parameters"),
        ("null", "not forgetting parameters"),
        (_with(features=["log_count"]), "other features"),
        (_with(surprise=1), "not forgetting parameters"),
        (_with(coefficients=None), "not forgetting parameters"),
        (_with(horizon_s="a month"), "not forgetting parameters"),
        (_with(coefficients=["a"] * 6), "not forgetting parameters"),
        (BUILTIN.to_json()[:-20], "not forgetting parameters"),
    ],
)
def test_json_that_is_no_parameters_is_refused(text, message) -> None:
    with pytest.raises(ValueError, match=message):
        ForgettingParameters.from_json(text)
