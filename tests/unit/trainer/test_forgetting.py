from __future__ import annotations

import numpy as np
import pytest

from ebbing.interest.forgetting import (
    ACTIVITY_DECLINES,
    ACTIVITY_RATE,
    DECLINING,
    FEATURES,
    ForgettingParameters,
    retention,
    retention_features,
)
from trainer.data.log import EventLog
from trainer.data.replay import state_before
from trainer.data.simulate import Simulation
from trainer.forgetting import FittingError, auc, fit_forgetting, fit_logistic, return_cases

DAY_S = 86_400.0


def log_of(rows: list[tuple[str, str, float]], interests: dict[str, str]) -> EventLog:
    users = list(dict.fromkeys(user for user, _, _ in rows))
    items = list(interests)
    return EventLog.of(
        users,
        items,
        [((name, 1.0),) if name else () for name in interests.values()],
        np.array([users.index(user) for user, _, _ in rows]),
        np.array([items.index(item) for _, item, _ in rows]),
        np.ones(len(rows), np.int32),
        np.array([day * DAY_S for _, _, day in rows]),
    )


def test_cases_by_hand() -> None:
    log = log_of(
        [
            ("a", "x", 0), ("a", "x", 10), ("a", "y", 20), ("a", "x", 40),
            ("b", "y", 5),
            ("c", "y", 30), ("c", "z", 45), ("c", "y", 61),
        ],
        {"x": "p", "y": "q", "z": "r"},
    )  # fmt: skip
    cases = return_cases(log, 30 * DAY_S, 30 * DAY_S)
    # b does not come back at all, so b is no case; c's event at the cut itself is past.
    assert cases.count.tolist() == [2, 1, 1]
    assert (cases.first / DAY_S).tolist() == [0, 20, 30]
    assert (cases.last / DAY_S).tolist() == [10, 20, 30]
    assert cases.activity_total.tolist() == [3, 3, 1]
    assert cases.returned.tolist() == [True, False, False]


def test_cases_agree_with_the_serving_state(simulation: Simulation) -> None:
    log = simulation.log
    at = float(log.times.max()) - 30 * DAY_S
    cases = return_cases(log, at, 30 * DAY_S)
    user = int(log.users[0])
    stretch = slice(0, int(log.offsets[1]))
    stop = stretch.start + int((log.times[stretch] <= at).sum())
    table = state_before(log, stop) if stop < stretch.stop else None
    assert table is not None
    assert user == 0
    n = len(table.names)
    by_name = np.argsort(table.names)
    np.testing.assert_allclose(cases.count[:n], table.count[by_name])
    np.testing.assert_allclose(cases.last[:n], table.last[by_name])
    np.testing.assert_allclose(cases.activity_recent[:n], table.total_bank(at)[ACTIVITY_RATE])


def test_fitting_recovers_known_parameters() -> None:
    random = np.random.default_rng(0)
    at, n = 400 * DAY_S, 20_000
    last = at - random.exponential(60 * DAY_S, n)
    count = random.integers(2, 30, n)
    features = retention_features(
        count, last - count * 5 * DAY_S, last, count + random.integers(0, 20, n),
        random.exponential(3, n), at, 30 * DAY_S,
    )  # fmt: skip
    truth = ForgettingParameters(
        30 * DAY_S, -0.5, (0.8, -0.6, 0.2, -0.3, -0.1, 0.4), 30 * DAY_S, "truth"
    )
    returned = random.random(n) < retention(features, truth)
    intercept, coefficients = fit_logistic(features, returned)
    fitted = ForgettingParameters(30 * DAY_S, intercept, coefficients, 30 * DAY_S, "fitted")
    assert np.abs(retention(features, fitted) - retention(features, truth)).mean() < 0.01


def test_signs_are_kept_whatever_the_data_say() -> None:
    random = np.random.default_rng(0)
    features = random.random((500, len(FEATURES)))
    wishes = np.where(DECLINING, 3.0, 0.5)
    wishes[ACTIVITY_DECLINES] = -3.0
    returned = random.random(500) < 1 / (1 + np.exp(-(features @ wishes - 1)))
    _, coefficients = fit_logistic(features, returned)
    assert all(c <= 0 for c, down in zip(coefficients, DECLINING, strict=True) if down)
    assert coefficients[ACTIVITY_DECLINES] >= 0


def test_fitting_a_log_beats_its_base_rate(simulation: Simulation) -> None:
    fitted = fit_forgetting(simulation.log, "test")
    held_out = fitted.metrics["held_out"]
    assert held_out["auc"] > 0.7
    assert held_out["log_loss"] < held_out["base_log_loss"]
    assert fitted == fit_forgetting(simulation.log, "test")
    assert ForgettingParameters.from_json(fitted.parameters.to_json()) == fitted.parameters


@pytest.mark.parametrize("interest", ["p", ""])
def test_a_log_without_returns_is_refused(interest: str) -> None:
    log = log_of(
        [("a", "x", 0), ("a", "y", 50), ("b", "x", 10), ("b", "y", 90)], {"x": interest, "y": "q"}
    )
    with pytest.raises(FittingError, match="none came back within 30 days"):
        fit_forgetting(log, "test")


def test_auc_counts_ties_half() -> None:
    assert auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])) == 0.75
    assert auc(np.array([1.0, 1.0]), np.array([True, False])) == 0.5
