from __future__ import annotations

import numpy as np
import pytest

from trainer.metrics import (
    auc,
    calibration_error,
    classification,
    equal_mass_bins,
    equal_width_bins,
    figures,
    user_auc,
)

PROBABILITY = np.array([0.05, 0.10, 0.90, 0.95])
RETURNED = np.array([False, True, True, True])


def test_figures_by_hand() -> None:
    found = figures(PROBABILITY, PROBABILITY, RETURNED, np.array([1, 1, 2, 2]))
    assert found["cases"] == 4
    assert found["auc"] == 1.0
    # The second user came back to everything, so only the first one's order can be judged.
    assert found["user_auc"] == 1.0
    assert found["log_loss"] == pytest.approx(-np.log(0.95 * 0.10 * 0.90 * 0.95) / 4)
    assert found["brier"] == pytest.approx((0.05**2 + 0.9**2 + 0.1**2 + 0.05**2) / 4)
    # Bins are 1/15 wide, so that each of the four lies in its own.
    assert equal_width_bins(PROBABILITY).tolist() == [0, 1, 13, 14]
    assert found["ece"] == pytest.approx((0.05 + 0.90 + 0.10 + 0.05) / 4)


def test_a_bin_weighs_as_many_cases_as_it_holds() -> None:
    bins = np.array([0, 0, 0, 1])
    probability = np.array([0.2, 0.3, 0.4, 0.8])
    returned = np.array([False, True, False, True])
    expected = 3 / 4 * abs(0.3 - 1 / 3) + 1 / 4 * abs(0.8 - 1)
    assert calibration_error(probability, returned, bins) == pytest.approx(expected)


def test_bins_reach_both_ends_and_ties_stay_together() -> None:
    assert equal_width_bins(np.array([0.0, 1.0])).tolist() == [0, 14]
    assert equal_mass_bins(np.arange(30) / 30).tolist() == [n // 2 for n in range(30)]
    assert set(equal_mass_bins(np.full(30, 0.5)).tolist()) == {0}


def test_auc_counts_ties_half() -> None:
    assert auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])) == 0.75
    assert auc(np.array([1.0, 1.0]), np.array([True, False])) == 0.5


def test_users_count_the_same_however_many_cases_they_have() -> None:
    score = np.array([0.9, 0.1, 0.1, 0.2, 0.3, 0.4, 0.5])
    returned = np.array([True, False, True, False, False, False, False])
    users = np.array([4, 4, 7, 7, 7, 7, 9])
    assert user_auc(score, returned, users) == pytest.approx((1.0 + 0.0) / 2)
    assert user_auc(score, np.zeros(7, bool), users) is None


def test_a_probability_says_yes_from_a_half_on() -> None:
    found = classification(np.array([0.9, 0.5, 0.4, 0.1, 0.6]), np.array([1, 0, 1, 0, 1], bool))
    assert (found["pairs"], found["positive"]) == (5, 3)
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["recall"] == pytest.approx(2 / 3)
    assert found["f1"] == pytest.approx(2 / 3)
    assert found["auc"] == pytest.approx(5 / 6)
    assert found["log_loss"] == pytest.approx(-np.log(0.9 * 0.5 * 0.4 * 0.9 * 0.6) / 5)


def test_what_cannot_be_told_is_none() -> None:
    nothing = classification(np.zeros(0), np.zeros(0, bool))
    assert nothing.pop("pairs") == nothing.pop("positive") == 0
    assert set(nothing.values()) == {None}
    never = classification(np.array([0.1, 0.2]), np.array([False, False]))
    assert (never["accuracy"], never["precision"], never["recall"]) == (1.0, None, None)
    assert (never["f1"], never["auc"]) == (None, None)
    assert classification(np.array([0.1]), np.array([True]))["f1"] == 0.0
