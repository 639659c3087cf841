from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from ebbing.interest.assessment import retention
from ebbing.interest.forgetting import ForgettingParameters
from ebbing.interest.standing import FALLS_BY_WAITING, FEATURES, GROWS_BY_WAITING
from ebbing.interest.trace import TraceTable
from trainer import forgetting as module
from trainer.company import Caution
from trainer.cuts import Cut, FittingError
from trainer.data.log import EventLog
from trainer.data.replay import traced_events
from trainer.data.simulate import Simulation
from trainer.evaluate_forgetting import served_retention
from trainer.forgetting import STEPS, FittedForgetting, fit_forgetting
from trainer.metrics import log_loss
from trainer.prior import PRIOR, learn_prior
from trainer.return_prediction import DAY_S, HORIZON_S, cases_at, exploded
from trainer.standing import popularity_at

INTERESTS = 12


def log_of(users: Any, interests: Any, days: Any, n: int = INTERESTS) -> EventLog:
    """Events on items of one interest each."""
    users = np.asarray(users, np.int64)
    return EventLog.of(
        [f"u{user}" for user in range(int(users.max()) + 1)],
        [f"i{item}" for item in range(n)],
        [((f"n{item}", 1.0),) for item in range(n)],
        users,
        np.asarray(interests, np.int64),
        np.ones(len(users)),
        np.asarray(days, np.float64) * DAY_S,
    )


def lives(in_company: bool, users: int = 300, seed: int = 0) -> EventLog:
    """Seven months of users whose interests come at rates of their own.

    In company, a user lives for the even interests or for the odd ones; otherwise no interest of a
    user says anything of another. The catalogue holds one more, which nobody engages.
    """
    random = np.random.default_rng(seed)
    days = 210.0
    rates = random.gamma(0.4, 0.7, size=(users, INTERESTS))
    if in_company:
        kind = random.integers(2, size=users)
        rates = np.where(np.arange(INTERESTS) % 2 == kind[:, None], 1.0, 0.15)
    counts = random.poisson(rates * days / 30)
    who, what = (np.repeat(index.ravel(), counts.ravel()) for index in np.indices(counts.shape))
    return log_of(who, what, random.random(len(who)) * days, INTERESTS + 1)


@dataclass
class Spied:
    """A fit, and what it had fitted before it was published."""

    log: EventLog
    fitted: FittedForgetting
    model: Any
    newest: Cut


@pytest.fixture(scope="module", params=["company", "no company", "generated"])
def spied(request: pytest.FixtureRequest, simulation: Simulation) -> Spied:
    log = simulation.log if request.param == "generated" else lives(request.param == "company")
    publish, seen = module._published, []

    def spy(model: Any, newest: Cut, *rest: Any) -> ForgettingParameters:
        seen.append((model, newest))
        return publish(model, newest, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_published", spy)
        fitted = fit_forgetting(log, "test")
    return Spied(log, fitted, *seen[0])


def test_the_gateway_says_what_was_fitted(spied: Spied) -> None:
    """At the newest cut, with the popularity of that moment, to the digits published."""
    cases = spied.newest.cases
    past = spied.log.until(cases.at)
    rows = exploded(past)
    parameters = module._published(
        spied.model, spied.newest, rows, spied.fitted.parameters.horizons, cases.at, "then"
    )
    served = served_retention(past, rows.names, cases, parameters)
    log_odds = np.log(served) - np.log1p(-served)
    np.testing.assert_allclose(log_odds, spied.model.log_odds(spied.newest), atol=1e-4)


def test_published_parameters_come_back(spied: Spied) -> None:
    parameters = spied.fitted.parameters
    text = parameters.to_json()
    again = ForgettingParameters.from_json(text)
    assert again.to_json() == text
    table = TraceTable.from_events(traced_events(spied.log, 0, int(spied.log.offsets[1])))
    at = table.span[1] + DAY_S
    for horizon_s in (None, *parameters.horizons_s):
        np.testing.assert_array_equal(
            retention(table, at, again, horizon_s), retention(table, at, parameters, horizon_s)
        )


def test_the_newest_cut_is_predicted_without_being_seen(spied: Spied) -> None:
    for figures in spied.fitted.metrics.values():
        assert figures["auc"] > 0.65
        assert figures["log_loss"] < 0.95 * figures["base_log_loss"]
        assert figures["cases"] == len(spied.newest.cases)
        assert figures["base_rate"] == spied.newest.cases.returned.mean()
    assert spied.fitted.metrics.keys() == {"held_out", "in_sample"}


def test_waiting_never_raises_retention(spied: Spied) -> None:
    parameters = spied.fitted.parameters
    signs = np.sign(parameters.coefficients)
    assert (signs[list(GROWS_BY_WAITING)] <= 0).all()
    assert (signs[list(FALLS_BY_WAITING)] >= 0).all()
    for user in range(0, 40, 8):
        table = TraceTable.from_events(
            traced_events(spied.log, *spied.log.offsets[user : user + 2].tolist())
        )
        course = [
            retention(table, table.span[1] + day * DAY_S, parameters)
            for day in (0, 0.1, 1, 7, 30, 100, 400, 2000)
        ]
        for sooner, later in pairwise(course):
            assert (later <= sooner).all()


def test_what_is_forgotten_in_the_log_is_forgotten(simulation: Simulation) -> None:
    log = simulation.log
    parameters = fit_forgetting(log, "test").parameters
    table = TraceTable.from_events(traced_events(log, 0, int(log.offsets[1])))
    now, later = (retention(table, table.span[1] + day * DAY_S, parameters) for day in (0, 60))
    assert (later < now / 2).all()


def test_retention_grows_with_the_horizon(spied: Spied) -> None:
    parameters = spied.fitted.parameters
    seconds, added = np.array(parameters.horizons).T
    assert (np.diff(seconds) > 0).all()
    assert (np.diff(added) >= 0).all()
    assert parameters.horizon_s in seconds
    # A week and two months tell themselves apart in logs of five months and more.
    assert added[0] < -0.5
    assert added[-1] > 0.3
    assert parameters.horizon_log_odds(parameters.horizon_s) == 0.0


def test_an_interest_nobody_engaged_is_taken_for_what_it_is(spied: Spied) -> None:
    log, parameters = spied.log, spied.fitted.parameters
    rows = exploded(log)
    never = np.setdiff1d(np.arange(len(rows.names)), rows.interests)
    assert set(parameters.population.names) == set(rows.names) - {rows.names[i] for i in never}
    if len(never):
        shares = popularity_at(rows, float(log.times.max()))[never[0]]
        typical = spied.newest.popularity[spied.newest.interests].mean(axis=0)
        expected = (shares - typical) @ spied.model.logistic.coefficients[len(FEATURES) :]
        found = parameters.population.effects(["unheard of"], [1.0])[0]
        assert found == pytest.approx([expected, 0.0, 0.0], rel=1e-5)


def test_company_is_taken_where_it_helps() -> None:
    widths = {
        planted: fit_forgetting(lives(planted), "test").parameters.population.says.shape[1]
        for planted in (True, False)
    }
    assert widths[True] > 0
    assert widths[False] == 0


@pytest.mark.parametrize("better", [0, 1])
def test_the_caution_that_tells_more_of_the_newest_cut_is_taken(
    better: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = Caution(pull=1e6, choice_share=0.0)
    cautions = [deaf, deaf]
    cautions[better] = Caution(pull=1.0, choice_share=0.3)
    monkeypatch.setattr(module, "CAUTIONS", tuple(cautions))
    population = fit_forgetting(lives(True), "test").parameters.population
    assert np.abs(population.says @ population.hears.T).max() > 0.1


def test_few_users_are_told_by_other_logs() -> None:
    """What is fitted on seven users says more of 300 others with a prior than without."""
    log, prior = lives(in_company=False), learn_prior([lives(in_company=False, seed=2)])
    at = float(log.times.max()) - HORIZON_S
    past, rows = log.until(at), exploded(log)
    cases = cases_at(rows.asked(), at, HORIZON_S)

    def loss(few: EventLog, prior: Mapping[str, float] | None) -> float:
        parameters = fit_forgetting(few, "test", prior=prior).parameters
        told = served_retention(past, rows.names, cases, parameters)
        return log_loss(told, cases.returned)

    draws = [lives(in_company=False, users=7, seed=seed) for seed in (1, 3, 4)]
    alone, told, published = (
        np.array([loss(few, given) for few in draws]) for given in (None, prior, PRIOR)
    )
    # One draw of seven may tell as much by itself; then the held-out cut leaves the prior out.
    assert (told <= alone).all()
    assert told.mean() < 0.996 * alone.mean()
    assert (published < 1.001 * alone).all()


def test_a_log_of_one_cut_is_told_by_other_logs() -> None:
    one_cut = log_of([0, 0, 0, 1, 1, 1], [0, 1, 0, 1, 0, 1], [0, 5, 36, 0, 5, 36])
    prior = {**PRIOR, "recency": -3.0}
    fitted = fit_forgetting(one_cut, "test", prior=prior).parameters
    assert fitted.coefficients[FEATURES.index("recency")] == pytest.approx(-3.0, rel=0.1)


def test_the_level_has_no_say_in_the_restraint() -> None:
    random = np.random.default_rng(0)
    log_odds = random.normal(size=200)
    returned = random.random(200) < 1 / (1 + np.exp(-log_odds))
    loss = module._loss_at_level(log_odds, returned)
    assert module._loss_at_level(log_odds + 3.0, returned) == pytest.approx(loss)
    assert module._loss_at_level(0.2 * log_odds, returned) > loss


def test_fitting_is_deterministic() -> None:
    log = lives(in_company=True)
    one, other = fit_forgetting(log, "test"), fit_forgetting(log, "test")
    assert one.parameters.to_json() == other.parameters.to_json()
    assert one.metrics == other.metrics


def test_what_comes_after_is_not_looked_at(simulation: Simulation) -> None:
    log = simulation.log
    at = float(np.quantile(log.times, 0.8))
    past = log.until(at)
    random = np.random.default_rng(0)
    n = 500
    longer = EventLog.of(
        log.user_ids,
        log.item_ids,
        log.interests,
        np.concatenate([past.users, random.integers(len(log.user_ids), size=n)]),
        np.concatenate([past.items, random.integers(len(log.item_ids), size=n)]),
        np.concatenate([past.types, np.ones(n)]),
        np.concatenate([past.times, at + 1 + random.random(n) * 60 * DAY_S]),
    )
    one, other = (fit_forgetting(each.until(at), "test") for each in (log, longer))
    assert one.parameters.to_json() == other.parameters.to_json()
    assert one.metrics == other.metrics


def test_every_step_is_told() -> None:
    told: list[int] = []
    fit_forgetting(lives(in_company=False), "test", advance=told.append)
    assert sum(told) == STEPS
    told.clear()
    one_cut = log_of([0, 0, 0, 1, 1, 1], [0, 1, 0, 1, 0, 1], [0, 5, 36, 0, 5, 36])
    fitted = fit_forgetting(one_cut, "test", advance=told.append)
    assert sum(told) == STEPS
    assert fitted.metrics.keys() == {"in_sample"}


def test_a_log_without_interests_is_refused() -> None:
    log = log_of([0, 0, 1], [0, 1, 1], [0, 40, 80])
    bare = EventLog.of(
        log.user_ids, log.item_ids, [()] * INTERESTS, log.users, log.items, log.types, log.times
    )
    with pytest.raises(FittingError, match="no event tells an interest"):
        fit_forgetting(bare, "test")


def test_a_log_of_interests_everybody_shares_is_refused() -> None:
    users, interests = np.indices((3, 50)).reshape(2, -1)
    with pytest.raises(FittingError, match="few enough users share; give items with interests, fi"):
        fit_forgetting(log_of(users, interests, interests, 50), "test")


@pytest.mark.parametrize(
    ("interests", "days", "message"),
    [
        ([0, 1, 2, 3], [0, 20, 40, 60], r"of \d user-interests none came back within 30 days"),
        ([0, 0, 0, 0], [0, 20, 40, 60], r"of \d user-interests all came back within 30 days"),
        ([0, 0, 1, 2], [0, 20, 50, 70], "at each cut all or none came back within 30 days"),
        ([0, 1, 0, 1], [0, 5, 10, 15], "span 15.0 days, less than the horizon of 30; give a long"),
    ],
)
def test_outcomes_that_are_all_alike_are_refused(
    interests: list[int], days: list[float], message: str
) -> None:
    with pytest.raises(FittingError, match=message):
        fit_forgetting(log_of([0] * len(days), interests, days), "test")


def test_users_who_never_come_back_are_refused() -> None:
    with pytest.raises(FittingError, match="no user comes back within 30 days of any cut"):
        fit_forgetting(log_of([0, 1, 2], [0, 1, 2], [0, 50, 90]), "test")
