"""What holds of interest vectors and of the articles' formulas, whatever the log."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ebbing.interest.article import drift, recommendation_score, softmax_probabilities
from ebbing.interest.profile import interest_vectors, previous_interest_vector
from ebbing.interest.standing import DAY_S
from ebbing.interest.trace import TraceTable
from tests.harness.retention import logs

tables = logs(3 * 365 * DAY_S).map(TraceTable.from_events)
waits = st.floats(0, 20 * 365 * DAY_S)
vectors = st.integers(1, 8).flatmap(
    lambda n: st.tuples(*[st.lists(st.floats(0, 1e6), min_size=n, max_size=n)] * 2)
)
forgetting_scores = st.lists(st.floats(0, 1), min_size=1, max_size=50)


@given(tables, waits)
def test_interest_vectors_fade_between_short_and_long(table: TraceTable, wait: float) -> None:
    at = table.span[1] + wait
    reading = interest_vectors(table, at)
    assert (reading.short_term >= 0).all()
    assert (reading.short_term <= reading.long_term * (1 + 1e-12)).all()
    np.testing.assert_allclose(reading.blended, (reading.short_term + reading.long_term) / 2)
    moved = drift(reading.blended, previous_interest_vector(table, at))
    if table.names:
        assert moved is not None
        assert moved >= 0
    else:
        assert moved is None


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
