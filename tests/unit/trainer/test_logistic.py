from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from trainer.logistic import Logistic, fit_logistic, shift_to

RIDGE, GROUP_RIDGE = 2.0, 3.0


class Data(NamedTuple):
    features: np.ndarray
    groups: np.ndarray
    outcome: np.ndarray
    weight: np.ndarray
    offset: np.ndarray

    @property
    def n_groups(self) -> int:
        return int(self.groups.max()) + 2  # one that no case is of


@pytest.fixture(scope="module")
def data() -> Data:
    random = np.random.default_rng(3)
    n = 600
    features = random.normal(size=(n, 3)) * (1, 20, 0.01) + (0, 5, -2)
    groups = random.integers(0, 12, n)
    offset = random.normal(size=n)
    z = features @ (0.8, -0.05, 30.0) + 60 + random.normal(size=12)[groups] + offset
    outcome = random.random(n) < 1 / (1 + np.exp(-z))
    return Data(features, groups, outcome, random.uniform(0, 2, n), offset)


def fit(data: Data, signs: tuple[int, ...] = (0, 0, 0), ridge: float = RIDGE) -> Logistic:
    return fit_logistic(
        data.features, data.groups, data.outcome, data.weight, np.array(signs), data.n_groups,
        ridge, GROUP_RIDGE, data.offset,
    )  # fmt: skip


def loss(data: Data, fitted: Logistic) -> float:
    """The penalised loss as it is written down, of coefficients per standard deviation."""
    z = fitted.log_odds(data.features, data.groups) + data.offset
    nats = np.where(data.outcome, np.logaddexp(0, -z), np.logaddexp(0, z))
    standard = fitted.coefficients * data.features.std(axis=0)
    pull = RIDGE * standard @ standard + GROUP_RIDGE * fitted.effects @ fitted.effects
    return float(data.weight @ nats + pull / 2)


def test_no_step_from_the_fit_lowers_the_loss(data: Data) -> None:
    fitted = fit(data)
    spread = data.features.std(axis=0)
    middle = data.features.mean(axis=0)

    def moved(direction: int, by: float) -> Logistic:
        step = np.zeros(1 + len(spread) + data.n_groups)
        step[direction] = by
        of_feature = step[1 : 1 + len(spread)] / spread
        return Logistic(
            fitted.intercept + step[0] - of_feature @ middle,
            fitted.coefficients + of_feature,
            fitted.effects + step[1 + len(spread) :],
        )

    h = 1e-4
    slopes = [
        (loss(data, moved(direction, h)) - loss(data, moved(direction, -h))) / (2 * h)
        for direction in range(1 + len(spread) + data.n_groups)
    ]
    np.testing.assert_allclose(slopes, 0.0, atol=1e-2)
    assert loss(data, fitted) < loss(data, Logistic(0.0, np.zeros(3), np.zeros(data.n_groups))) - 9


def test_coefficients_are_pulled_to_those_expected(data: Data) -> None:
    """Which is to pull to 0 what they have beyond."""
    expected = np.array([2.0, 0.1, -5.0])

    def pulled(ridge: float) -> Logistic:
        return fit_logistic(
            data.features, data.groups, data.outcome, data.weight, np.zeros(3), data.n_groups,
            ridge, GROUP_RIDGE, data.offset, expected,
        )  # fmt: skip

    beyond = fit(data._replace(offset=data.offset + data.features @ expected), ridge=50.0)
    np.testing.assert_allclose(
        pulled(50.0).coefficients, beyond.coefficients + expected, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(pulled(1e9).coefficients, expected, rtol=1e-4)
    np.testing.assert_allclose(
        pulled(1e-9).coefficients, fit(data, ridge=1e-9).coefficients, rtol=1e-5
    )


def test_groups_are_a_ridge_on_dummies(data: Data) -> None:
    """Against plain gradient descent with a column a group, which eliminates nothing."""
    dummies = np.eye(data.n_groups)[data.groups]
    middle, spread = data.features.mean(axis=0), data.features.std(axis=0)
    X = np.column_stack([np.ones(len(dummies)), (data.features - middle) / spread, dummies])
    pull = np.array([0.0, *[RIDGE] * 3, *[GROUP_RIDGE] * data.n_groups])
    theta = np.zeros(X.shape[1])
    rate = 1 / (0.25 * np.linalg.norm((X * np.sqrt(data.weight)[:, None]), 2) ** 2 + GROUP_RIDGE)
    for _ in range(4000):
        p = 1 / (1 + np.exp(-(X @ theta + data.offset)))
        theta -= rate * (X.T @ (data.weight * (p - data.outcome)) + pull * theta)
    fitted = fit(data)
    np.testing.assert_allclose(fitted.coefficients * spread, theta[1:4], atol=1e-4)
    np.testing.assert_allclose(fitted.effects, theta[4:], atol=1e-4)
    np.testing.assert_allclose(fitted.log_odds(data.features, data.groups), X @ theta, atol=5e-4)
    assert fitted.effects[-1] == 0.0


@pytest.mark.parametrize("signs", [(-1, 0, 0), (-1, 1, -1), (0, 1, 0), (1, -1, 1)])
def test_signs_are_kept_whatever_the_data_say(data: Data, signs: tuple[int, ...]) -> None:
    free = fit(data)
    assert np.sign(free.coefficients).tolist() == [1, -1, 1]
    bound = fit(data, signs)
    assert (bound.coefficients * signs >= 0).all()
    against = np.sign(free.coefficients) * signs < 0
    assert (bound.coefficients[against] == 0).all()
    if not against.any():
        np.testing.assert_array_equal(bound.coefficients, free.coefficients)


def test_columns_that_say_nothing_get_nothing(data: Data) -> None:
    """Constant but for rounding, they would be blown up to say much."""
    n = len(data.features)
    noise = 1e6 + np.random.default_rng(0).normal(size=n) * 1e-6
    more = data._replace(features=np.column_stack([data.features, np.full(n, 7.0), noise]))
    fitted, alone = fit(more, (0, 0, 0, 1, -1)), fit(data)
    assert fitted.coefficients[3:].tolist() == [0.0, 0.0]
    np.testing.assert_allclose(fitted.coefficients[:3], alone.coefficients, rtol=1e-6)


def test_what_is_separable_stays_finite() -> None:
    x = np.linspace(-1, 1, 50)
    fitted = fit_logistic(
        x[:, None], np.zeros(50, np.int64), x > 0, np.ones(50), np.zeros(1), 1, 1e-3, 1.0
    )
    assert np.isfinite([fitted.intercept, *fitted.coefficients, *fitted.effects]).all()
    assert ((fitted.log_odds(x[:, None], np.zeros(50, np.int64)) > 0) == (x > 0)).all()


def test_shifting_meets_the_sum_expected() -> None:
    random = np.random.default_rng(0)
    z, weight = random.normal(size=300), random.uniform(0, 1, 300)
    shift = shift_to(z, weight, 40.0)
    assert weight @ (1 / (1 + np.exp(-(z + shift)))) == pytest.approx(40.0)
    assert shift_to(z + 1.5, weight, 40.0) == pytest.approx(shift - 1.5)


def test_shifting_to_none_or_all_stays_within_bounds() -> None:
    z, weight = np.zeros(9), np.ones(9)
    assert shift_to(z, weight, 0.0) == pytest.approx(np.log(0.05 / 0.95))
    assert shift_to(z, weight, 9.0) == pytest.approx(np.log(0.95 / 0.05))
