from __future__ import annotations

import numpy as np
import pytest

from trainer.baselines import BASELINES, Logistic, Past, predict
from trainer.data.simulate import Simulation
from trainer.metrics import auc, log_loss
from trainer.return_prediction import DAY_S, cut_of, exploded


@pytest.fixture(scope="module")
def cuts(simulation: Simulation) -> tuple[Past, Past]:
    rows = exploded(simulation.log).asked()
    at, horizon_s = cut_of(rows), 20 * DAY_S
    return Past.of(rows, at - horizon_s, horizon_s), Past.of(rows, at, horizon_s)


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_says_a_probability_of_every_case(
    cuts: tuple[Past, Past], name: str
) -> None:
    earlier, now = cuts
    said = predict(BASELINES[name], earlier, now)
    assert said.score.shape == said.probability.shape == (len(now.cases),)
    assert ((said.probability > 0) & (said.probability < 1)).all()
    assert (said.chosen in BASELINES[name].grid) == bool(BASELINES[name].unknown)


def test_curves_sum_what_they_say(cuts: tuple[Past, Past]) -> None:
    _, now = cuts
    case, rows, cases = 3, now.rows, now.cases
    own = (
        (rows.users == cases.users[case])
        & (rows.interests == cases.interests[case])
        & (rows.times <= cases.at)
    )
    age = (cases.at - rows.times[own]) / DAY_S
    assert now.count[case] == own.sum()
    assert now.recency[case] == age.min()
    assert BASELINES["act_r"].score(now, 0.5)[case] == pytest.approx(
        np.log(np.sum(1 / np.sqrt(1 + age)))
    )
    assert BASELINES["exponential"].score(now, 7.0)[case] == pytest.approx(
        np.log(np.sum(0.5 ** (age / 7)) + 1e-9)
    )


@pytest.mark.parametrize("name", ["article_softmax", "article_softmax_windows"])
def test_the_softmax_shares_out_one_per_user(cuts: tuple[Past, Past], name: str) -> None:
    _, now = cuts
    p = BASELINES[name].score(now, 1.0)
    sums = np.bincount(now.cases.users, p)
    np.testing.assert_allclose(sums[np.unique(now.cases.users)], 1.0)


def test_logistic_recovers_and_keeps_the_direction_of_a_score() -> None:
    random = np.random.default_rng(0)
    x = random.normal(50.0, 20.0, (40_000, 2))
    outcome = random.random(len(x)) < 1 / (1 + np.exp(-(0.05 * x[:, 0] - 0.02 * x[:, 1] - 2)))
    head = Logistic.fit(x, outcome)
    np.testing.assert_allclose([head.intercept, *head.slopes], [-2, 0.05, -0.02], atol=0.1)
    # A score that falls where returns rise is not turned round: it tells the base rate.
    misled = Logistic.fit(-x[:, 0], outcome)(-x[:, 0])
    np.testing.assert_allclose(misled, outcome.mean())


def test_logistic_stays_finite_where_a_score_separates_the_outcomes() -> None:
    x = np.arange(20.0)
    probability = Logistic.fit(x, x > 9)(x)
    assert np.isfinite(probability).all()
    assert auc(probability, x > 9) == 1.0
    assert log_loss(probability, x > 9) < 0.1
