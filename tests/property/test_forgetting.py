"""What holds of retention, states and the articles' formulas for any parameters and any log."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ebbing.interest.article import drift, recommendation_score, softmax_probabilities
from ebbing.interest.forgetting import (
    ACTIVITY_DECLINES,
    DECLINING,
    FEATURES,
    LONGEST_HALF_LIFE_S,
    ForgettingParameters,
    InterestState,
    assess,
    half_life,
    retention,
    retention_features,
)
from ebbing.interest.profile import interest_vectors, previous_interest_vector
from ebbing.interest.trace import TraceTable

DAY_S = 86400.0
NOW = 1.7e9


def coefficient(column: int) -> st.SearchStrategy[float]:
    """Any coefficient that parameters accept for a feature."""
    if DECLINING[column]:
        return st.floats(-5, 0)
    return st.floats(0, 5) if column == ACTIVITY_DECLINES else st.floats(-5, 5)


parameters = st.builds(
    ForgettingParameters,
    horizon_s=st.floats(DAY_S, 365 * DAY_S),
    intercept=st.floats(-10, 10),
    coefficients=st.tuples(*(coefficient(i) for i in range(len(FEATURES)))),
    default_gap_s=st.floats(60.0, 365 * DAY_S),
    version=st.just("drawn"),
)
events = st.tuples(
    st.floats(NOW - 3 * 365 * DAY_S, NOW),
    st.floats(0.1, 10),
    st.lists(
        st.tuples(st.sampled_from(["a", "b", "c/d"]), st.floats(0.1, 10)),
        min_size=1,
        max_size=3,
        unique_by=lambda pair: pair[0],
    ),
)
tables = st.lists(events, min_size=1, max_size=20).map(TraceTable.from_events)
waits = st.floats(0, 20 * 365 * DAY_S)
vectors = st.integers(1, 8).flatmap(
    lambda n: st.tuples(*[st.lists(st.floats(0, 1e6), min_size=n, max_size=n)] * 2)
)
forgetting_scores = st.lists(st.floats(0, 1), min_size=1, max_size=50)


@given(tables, parameters, waits)
def test_retention_is_a_probability(table: TraceTable, fitted, wait: float) -> None:
    assessed = assess(table, table.span[1] + wait, fitted)
    for values in (assessed.retention, assessed.freshness):
        assert values.shape == (len(table.names),)
        assert ((values >= 0) & (values <= 1 + 1e-12)).all()
    assert set(assessed.states.tolist()) <= set(InterestState) - {InterestState.UNSPECIFIED}


@given(tables, parameters, st.lists(waits, min_size=2, max_size=8))
def test_retention_never_grows_by_waiting(table: TraceTable, fitted, moments) -> None:
    course = [assess(table, table.span[1] + wait, fitted) for wait in sorted(moments)]
    for sooner, later in pairwise(course):
        assert (later.retention <= sooner.retention * (1 + 1e-12)).all()
        assert (later.freshness <= sooner.freshness * (1 + 1e-9)).all()


@given(tables, parameters, waits)
def test_half_life_halves_retention(table: TraceTable, fitted, wait: float) -> None:
    at = table.span[1] + wait
    halving = half_life(table, at, fitted)
    now = assess(table, at, fitted).retention
    for i, seconds in enumerate(halving):
        if np.isinf(seconds):
            late = assess(table, at + LONGEST_HALF_LIFE_S, fitted).retention[i]
            assert late > now[i] / 2
        else:
            assert 0 < seconds <= LONGEST_HALF_LIFE_S
            halved = assess(table, at + seconds, fitted).retention[i]
            assert halved == pytest.approx(now[i] / 2, rel=1e-5)


@given(tables, parameters, waits, st.integers(0, len(FEATURES) - 1))
def test_signs_that_let_retention_grow_are_refused(table, fitted, wait, column) -> None:
    wrong = list(fitted.coefficients)
    wrong[column] = -1.0 if column == ACTIVITY_DECLINES else 1.0
    assume(DECLINING[column] or column == ACTIVITY_DECLINES)
    with pytest.raises(ValueError, match="grow by waiting"):
        replace(fitted, coefficients=tuple(wrong))


@given(parameters)
def test_parameters_survive_json(fitted: ForgettingParameters) -> None:
    assert ForgettingParameters.from_json(fitted.to_json()) == fitted


@given(tables, parameters, waits)
def test_features_of_many_are_those_of_each(table: TraceTable, fitted, wait: float) -> None:
    at = table.span[1] + wait
    together = retention_features(
        table.count, table.first, table.last, table.event_count, 1.5, at, fitted.default_gap_s
    )
    assert together.shape == (len(table.names), len(FEATURES))
    for i in range(len(table.names)):
        alone = retention_features(
            table.count[i],
            table.first[i],
            table.last[i],
            table.event_count,
            1.5,
            at,
            fitted.default_gap_s,
        )
        np.testing.assert_array_equal(together[i], alone)
        assert retention(alone, fitted) == pytest.approx(retention(together, fitted)[i])


@given(tables, waits)
def test_interest_vectors_fade_between_short_and_long(table: TraceTable, wait: float) -> None:
    at = table.span[1] + wait
    reading = interest_vectors(table, at)
    assert (reading.short_term >= 0).all()
    assert (reading.short_term <= reading.long_term * (1 + 1e-12)).all()
    np.testing.assert_allclose(reading.blended, (reading.short_term + reading.long_term) / 2)
    moved = drift(reading.blended, previous_interest_vector(table, at))
    assert moved is not None
    assert moved >= 0


@given(vectors, st.floats(1e-3, 1e3))
def test_drift_is_a_scale_free_distance(pair, scale: float) -> None:
    now, before = (np.array(vector) for vector in pair)
    assume(np.linalg.norm(now) > 1e-6)
    moved = drift(now, before)
    assert moved is not None
    assert moved >= 0
    assert drift(now, now) == 0
    assert drift(scale * now, scale * before) == pytest.approx(moved, rel=1e-9, abs=1e-12)
    assert drift(now, np.zeros_like(now)) == pytest.approx(1)


@given(vectors)
def test_drift_of_no_interest_is_undefined(pair) -> None:
    assert drift(np.zeros(len(pair[0])), pair[1]) is None


@given(forgetting_scores, st.floats(0, 1000))
def test_softmax_is_a_distribution_that_follows_minus_f(scores: list[float], alpha: float) -> None:
    probabilities = softmax_probabilities(scores, alpha)
    assert probabilities.sum() == pytest.approx(1)
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    most_forgotten_last = np.argsort(scores, kind="stable")
    assert (np.diff(probabilities[most_forgotten_last]) <= 1e-15).all()


@given(forgetting_scores, st.floats(0, 100), st.floats(-10, 10))
def test_softmax_sees_differences_alone(scores: list[float], alpha: float, shift: float) -> None:
    shifted = [score + shift for score in scores]
    np.testing.assert_allclose(
        softmax_probabilities(scores, alpha), softmax_probabilities(shifted, alpha), rtol=1e-9
    )


@given(forgetting_scores, st.floats(0, 100), st.data())
def test_r_lies_between_the_weights(scores: list[float], alpha: float, data) -> None:
    weights = data.draw(
        st.lists(st.floats(0, 1), min_size=len(scores), max_size=len(scores)), label="weights"
    )
    result = recommendation_score(weights, softmax_probabilities(scores, alpha))
    assert min(weights) - 1e-9 <= result <= max(weights) + 1e-9
