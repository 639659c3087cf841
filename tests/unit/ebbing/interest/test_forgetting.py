"""Retention by small examples, how long quiet may last, and what parameters are refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from ebbing.interest.bank import HALF_LIVES_S
from ebbing.interest.forgetting import (
    ABSENCE,
    LONGEST_QUIET_S,
    OVERDUE,
    PARTS,
    RECENCY,
    RECENT,
    ForgettingParameters,
    HorizonOutOfFamily,
    freshness,
    half_life_s,
    log_odds_parts,
    quiet_until,
    retention,
)
from ebbing.interest.population import MOST_LOG_ODDS
from ebbing.interest.standing import DAY_S, FEATURES, MIN_GAP_S, RECENT_RATE, standing_of
from ebbing.interest.trace import TraceTable
from tests.harness.retention import altered, fitted

T = 1.7e9
BUILTIN = ForgettingParameters.builtin()
FITTED = fitted()


def life(*days: float) -> TraceTable:
    """One interest, engaged on these days."""
    return TraceTable.from_events([(T + day * DAY_S, 1.0, [("tea", 1.0)]) for day in days])


def chance(table: TraceTable, day: float, parameters: ForgettingParameters, **asked) -> float:
    at = T + day * DAY_S
    parts = log_odds_parts(standing_of(table), table.names, at, parameters, **asked)
    return float(retention(parts)[0])


def falling(recency: float, overdue: float, absence: float = 0.0) -> ForgettingParameters:
    """The built-in parameters with other slopes."""
    c = list(BUILTIN.coefficients)
    c[RECENCY], c[OVERDUE], c[ABSENCE] = recency, overdue, absence
    return replace(BUILTIN, coefficients=tuple(c))


def test_retention_is_the_logistic_of_its_parts() -> None:
    parts = np.array([[-1.0, 0.5, 2.0], [0.0, 0.0, 0.0], [-800.0, 0.0, 0.0], [800.0, 0.0, 0.0]])
    expected = [1 / (1 + math.exp(-1.5)), 0.5, 0.0, 1.0]
    assert retention(parts).tolist() == pytest.approx(expected, rel=1e-15, abs=1e-300)


def test_the_builtin_parameters_by_hand() -> None:
    log_odds = -1.5 + 0.9 * math.log(4) - 0.5 * math.log(6) - 0.4 * math.log(1.5)
    short = 2.0 ** (-DAY_S / HALF_LIVES_S[RECENT_RATE])
    recent = math.log1p(sum(short**k for k in (5, 15, 25)))
    found = chance(life(0, 10, 20), 25, BUILTIN)
    assert found == pytest.approx(1 / (1 + math.exp(-log_odds - 0.1 * recent)), rel=1e-12)


def test_typical_cases_have_the_base_for_their_log_odds() -> None:
    table, at = life(0, 10, 20), T + 25 * DAY_S
    parts = log_odds_parts(standing_of(table), table.names, at, FITTED)
    measured = parts[0, 1 : 1 + len(FEATURES)] / FITTED.coefficients + FITTED.typical
    typical = replace(FITTED, typical=tuple(measured.tolist()))
    again = log_odds_parts(standing_of(table), table.names, at, typical)[0]
    np.testing.assert_allclose(again[1 : 1 + len(FEATURES)], 0.0, atol=1e-12)
    assert again[0] == FITTED.base
    assert again.shape == (len(PARTS),)


# Horizons.


@pytest.mark.parametrize(
    ("days", "added"),
    [(7, -1.1), (14, -0.5), (30, 0.0), (90, 0.7), (math.sqrt(30 * 90), 0.35), (None, 0.0)],
)
def test_horizons_lie_between_those_fitted_by_their_logarithm(days, added) -> None:
    horizon_s = None if days is None else days * DAY_S
    assert FITTED.horizon_log_odds(horizon_s) == pytest.approx(added, abs=1e-12)


def test_the_longer_the_horizon_the_likelier_the_return() -> None:
    asked = np.geomspace(*FITTED.horizons_s, 200).clip(*FITTED.horizons_s).tolist()
    chances = [chance(life(0, 10, 20), 25, FITTED, horizon_s=horizon) for horizon in asked]
    assert (np.diff(chances) > 0).all()


@pytest.mark.parametrize("days", [6.999, 90.001, 0.0, -30.0, math.inf, -math.inf, math.nan])
def test_a_horizon_outside_the_family_is_told_the_ends(days: float) -> None:
    with pytest.raises(HorizonOutOfFamily, match="from 7 to 90 days") as refused:
        FITTED.horizon_log_odds(days * DAY_S)
    assert (refused.value.shortest_s, refused.value.longest_s) == (7 * DAY_S, 90 * DAY_S)


# Freshness and quiet.

SLOPES = (0.0, -1e-320, -1e-150, -1e-9, -1e-3, -0.1, -0.5, -1.0, -5.0, -50.0, -MOST_LOG_ODDS)
LEVELS = (1.0, 1 - 1e-9, 0.999, 0.9, 0.5, 0.25, 0.01, 1e-6, 1e-100)
GAPS_S = np.geomspace(MIN_GAP_S, 2 * LONGEST_QUIET_S, 300)


@pytest.mark.parametrize("recency", SLOPES)
@pytest.mark.parametrize("overdue", SLOPES)
def test_freshness_falls_to_a_level_whatever_the_gap(recency: float, overdue: float) -> None:
    parameters = falling(recency, overdue)
    just_before = np.full_like(GAPS_S, LONGEST_QUIET_S * (1 - 1e-6))
    for level, quiet_s in zip(LEVELS, quiet_until(LEVELS, GAPS_S, parameters), strict=True):
        told = np.isfinite(quiet_s)
        lost = np.log(freshness(quiet_s[told], GAPS_S[told], parameters))
        np.testing.assert_allclose(lost, math.log(level), rtol=1e-9, atol=1e-15)
        assert (freshness(just_before, GAPS_S, parameters)[~told] >= level).all()


def test_quiet_by_hand() -> None:
    # Freshness (1 + days)^−.5 and (1 + gaps)^−.4 alone; absence counts with recency.
    gap = np.array([7 * DAY_S])
    (recency,) = quiet_until((0.5,), gap, falling(-0.5, 0.0))
    (absence,) = quiet_until((0.5,), gap, falling(-0.25, 0.0, -0.25))
    (overdue,) = quiet_until((0.5,), gap, falling(0.0, -0.4))
    assert recency == pytest.approx([3 * DAY_S], rel=1e-12)
    assert absence == pytest.approx([3 * DAY_S], rel=1e-12)
    assert overdue == pytest.approx([(2**2.5 - 1) * 7 * DAY_S], rel=1e-12)


def test_freshness_that_never_falls() -> None:
    flat = falling(0.0, 0.0)
    now, never = quiet_until((1.0, 0.5), np.array([DAY_S, 7 * DAY_S]), flat)
    assert now.tolist() == [0.0, 0.0]
    assert never.tolist() == [math.inf, math.inf]
    assert freshness(np.array([1e12]), np.array([DAY_S]), flat).tolist() == [1.0]


def test_freshness_starts_at_one() -> None:
    assert freshness(np.zeros(3), np.full(3, DAY_S), FITTED).tolist() == [1.0] * 3


def test_no_interest_has_no_quiet() -> None:
    assert [quiet.shape for quiet in quiet_until((0.5, 0.25), np.zeros(0), BUILTIN)] == [(0,)] * 2


# Half-life.


def halving(table: TraceTable, day: float, parameters: ForgettingParameters) -> list[float]:
    at, standing = T + day * DAY_S, standing_of(table)
    parts = log_odds_parts(standing, table.names, at, parameters)
    return half_life_s(parts, standing, at, parameters).tolist()


@pytest.mark.parametrize("parameters", [BUILTIN, FITTED], ids=lambda p: p.version)
@pytest.mark.parametrize("days", [(0,), (0, 1, 2, 3), (0, 0.01), (0, 400), (-9000, -3000, 0)])
def test_after_a_half_life_half_of_retention_is_left(days, parameters) -> None:
    for day in (days[-1], days[-1] + 3, days[-1] + 300):
        (seconds,) = halving(life(*days), day, parameters)
        now = chance(life(*days), day, parameters)
        if math.isinf(seconds):
            assert chance(life(*days), day + 3652.5, parameters) > now / 2
        else:
            left = chance(life(*days), day + seconds / DAY_S, parameters)
            assert left == pytest.approx(now / 2, rel=2e-6)


def test_retention_that_waiting_does_not_touch_has_no_half_life() -> None:
    c = list(BUILTIN.coefficients)
    for i in (RECENCY, OVERDUE, ABSENCE, RECENT):
        c[i] = 0.0
    assert halving(life(0), 0, replace(BUILTIN, coefficients=tuple(c))) == [math.inf]


def test_activity_that_ebbs_halves_a_retention() -> None:
    c = [0.0] * len(FEATURES)
    c[RECENT] = 5.0
    ebbing = replace(BUILTIN, base=-8.0, coefficients=tuple(c))
    (seconds,) = halving(life(0), 0, ebbing)
    left = chance(life(0), seconds / DAY_S, ebbing)
    assert left == pytest.approx(chance(life(0), 0, ebbing) / 2, rel=2e-6)


@pytest.mark.parametrize("base", [-MOST_LOG_ODDS, MOST_LOG_ODDS])
def test_hopeless_and_certain_interests_still_have_numbers(base: float) -> None:
    extreme = replace(BUILTIN, base=base)
    assert chance(life(0), 1, extreme) == (base > 0)
    (seconds,) = halving(life(0), 1, extreme)
    # The odds of what is hopeless halve all the same; what is certain stays so.
    assert math.isinf(seconds) == (base > 0)


# Parameters.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"coefficients": (0.0,) * 5}, "15 features are needed: frequency"),
        ({"typical": (0.0,) * 16}, "15 features are needed"),
        ({"horizon_s": 0.0}, "must be in the family"),
        ({"horizon_s": 29 * DAY_S}, "must be in the family"),
        ({"horizon_s": math.nan}, "must be in the family"),
        ({"horizon_s": 14 * DAY_S}, "add nothing"),
        ({"default_gap_s": 0.0}, "above 0"),
        ({"default_gap_s": -1.0}, "above 0"),
        ({"default_gap_s": math.nan}, "above 0"),
        ({"default_gap_s": math.inf}, "a hundred years"),
        ({"base": math.inf}, "finite"),
        ({"base": math.nan}, "finite"),
        ({"base": 1001.0}, "beyond ±1000"),
        ({"typical": (math.nan, *FITTED.typical[1:])}, "finite"),
        ({"typical": (1e9, *FITTED.typical[1:])}, "beyond ±1000"),
        ({"coefficients": (-math.inf, *FITTED.coefficients[1:])}, "finite"),
        ({"coefficients": (1e300, *FITTED.coefficients[1:])}, "beyond ±1000"),
        ({"horizons": ()}, "a family of horizons"),
        ({"horizons": ((0.0, -1.0), *FITTED.horizons[1:])}, "a family of horizons"),
        ({"horizons": (*FITTED.horizons, (math.inf, 2.0))}, "a family of horizons"),
        ({"horizons": ((math.nan, -1.2), *FITTED.horizons)}, "a family of horizons"),
        ({"horizons": FITTED.horizons[::-1]}, "ascending"),
        ({"horizons": (*FITTED.horizons, FITTED.horizons[-1])}, "ascending"),
        ({"horizons": (*FITTED.horizons, (120 * DAY_S, 0.6))}, "must ascend"),
        ({"horizons": (*FITTED.horizons, (120 * DAY_S, math.nan))}, "finite"),
    ],
)
def test_parameters_out_of_range_are_refused(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        replace(FITTED, **change)


@pytest.mark.parametrize(
    ("feature", "wrong"),
    [(RECENCY, 0.1), (OVERDUE, 1e-12), (ABSENCE, 3.0), (RECENT, -0.1)],
)
def test_signs_that_let_retention_grow_are_refused(feature: int, wrong: float) -> None:
    c = list(FITTED.coefficients)
    c[feature] = wrong
    with pytest.raises(ValueError, match="grow by waiting"):
        replace(FITTED, coefficients=tuple(c))


@pytest.mark.parametrize("parameters", [BUILTIN, FITTED], ids=lambda p: p.version)
def test_json_round_trip(parameters: ForgettingParameters) -> None:
    again = ForgettingParameters.from_json(parameters.to_json())
    assert again.to_json() == parameters.to_json()
    assert (again.version, again.horizons) == (parameters.version, parameters.horizons)


FEW = dict(list(json.loads(FITTED.to_json())["features"].items())[1:])
BROKEN = {name: {"typical": 0.0, "coefficient": None} for name in FEATURES}
NUMBERS_IN_WORDS = {name: {"typical": "0.5", "coefficient": 0.0} for name in FEATURES}
HALVED = {name: {"typical": 0.0} for name in FEATURES}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not forgetting parameters"),
        ("[]", "not forgetting parameters"),
        ("{}", "not forgetting parameters"),
        ("null", "not forgetting parameters"),
        (FITTED.to_json()[:-20], "not forgetting parameters"),
        (altered(FITTED, surprise=1), "not forgetting parameters"),
        (altered(FITTED, features=["frequency"]), "other features"),
        (altered(FITTED, features=FEW), "other features"),
        (altered(FITTED, features=None), "not forgetting parameters"),
        (altered(FITTED, features=BROKEN), "not forgetting parameters"),
        (altered(FITTED, features=HALVED), "not forgetting parameters"),
        (altered(FITTED, features=NUMBERS_IN_WORDS), "not forgetting parameters"),
        (altered(FITTED, base="low"), "not forgetting parameters"),
        (altered(FITTED, base=None), "not forgetting parameters"),
        (altered(FITTED, base=math.nan), "finite"),
        (altered(FITTED, base=math.inf), "finite"),
        (altered(FITTED, default_gap_s="a month"), "not forgetting parameters"),
        (altered(FITTED, horizon_s="a month"), "in the family"),
        (altered(FITTED, horizons=None), "not forgetting parameters"),
        (altered(FITTED, horizons=[1, 2]), "not forgetting parameters"),
        (altered(FITTED, horizons=[[1, 2, 3]]), "not forgetting parameters"),
        (altered(FITTED, horizons=[["a week", 0.0]]), "not forgetting parameters"),
        (altered(FITTED, horizons=[["604800", -1.0], [30 * DAY_S, 0.0]]), "not forgetting"),
        (altered(FITTED, horizons=[]), "a family of horizons"),
        (altered(FITTED, population=None), "not forgetting parameters"),
        (altered(FITTED, population={"interests": []}), "not forgetting parameters"),
        (
            altered(FITTED, population={"interests": {"tea": {}}, "unknown_popularity": 0}),
            "not forgetting parameters",
        ),
        (
            altered(FITTED, population={"interests": {}, "unknown_popularity": "low"}),
            "not forgetting parameters",
        ),
    ],
)
def test_json_that_is_no_parameters_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ForgettingParameters.from_json(text)
