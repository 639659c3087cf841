"""The articles' formulas at their edges; their values are in tests/golden."""

from __future__ import annotations

import numpy as np
import pytest

from ebbing.interest.article import drift, recommendation_score, softmax_probabilities


def test_drift_is_symmetric_in_what_came_and_what_went() -> None:
    assert drift([1.0, 1.0], [1.0, 0.0]) == drift([1.0, 1.0], [0.0, 1.0])


def test_an_untouched_interest_does_not_drift() -> None:
    assert drift([2.0], [2.0]) == 0.0


def test_drift_of_nothing_is_undefined() -> None:
    assert drift([0.0, 0.0], [1.0, 0.0]) is None
    assert drift([], []) is None


def test_alpha_zero_makes_all_alike() -> None:
    np.testing.assert_allclose(softmax_probabilities([0.0, 0.5, 1.0], 0.0), np.full(3, 1 / 3))


def test_a_large_alpha_leaves_the_least_forgotten() -> None:
    probabilities = softmax_probabilities([0.9, 0.1, 0.5], 1000.0)
    np.testing.assert_allclose(probabilities, [0, 1, 0], atol=1e-100)


def test_no_candidates_have_no_probabilities() -> None:
    assert softmax_probabilities([], 1.0).shape == (0,)
    assert recommendation_score([], []) == 0.0


def test_r_needs_a_weight_for_each_probability() -> None:
    with pytest.raises(ValueError, match="not aligned"):
        recommendation_score([1.0, 2.0], [1.0])
