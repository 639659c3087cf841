"""Explanations of small lives: what is measured, in which unit, in which words."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from ebbing.interest.assessment import assess
from ebbing.interest.explanation import Contribution, explain
from ebbing.interest.forgetting import PARTS, ForgettingParameters, HorizonOutOfFamily
from ebbing.interest.population import MOST_LOG_ODDS
from ebbing.interest.trace import TraceTable
from tests.harness.retention import fitted

DAY_S = 86400.0
T = 1.7e9
BUILTIN = ForgettingParameters.builtin()
FITTED = fitted()
TABLE = TraceTable.from_events(
    [
        *((T + day * DAY_S, 1.0, [("tea", 1.0)]) for day in (0, 10, 20)),
        (T + 18 * DAY_S, 1.0, [("sports/cricket", 1.0)]),
    ]
)
AT = T + 25 * DAY_S


def told(name: str = "tea", horizon_s: float | None = None) -> dict[str, Contribution]:
    return {part.name: part for part in explain(TABLE, AT, name, FITTED, horizon_s)}


@pytest.mark.parametrize("parameters", [BUILTIN, FITTED], ids=lambda p: p.version)
@pytest.mark.parametrize("horizon_days", [None, 14, 45])
def test_contributions_add_up(parameters, horizon_days) -> None:
    horizon_s = horizon_days and horizon_days * DAY_S
    chances = assess(TABLE, AT, parameters, horizon_s=horizon_s).retention
    for name, chance in zip(TABLE.names, chances.tolist(), strict=True):
        parts = explain(TABLE, AT, name, parameters, horizon_s)
        assert tuple(part.name for part in parts) == PARTS
        log_odds = math.fsum(part.log_odds for part in parts)
        assert log_odds == pytest.approx(math.log(chance / (1 - chance)), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("base", 1 / (1 + math.exp(2)), "the typical interest returns with 11.9%"),
        ("frequency", 3, "engaged 3 times"),
        ("once", 0, "engaged more than once"),
        ("recency", 5, "last engaged 5.0 days ago"),
        ("gap", 10, "usually 10.0 days between events"),
        ("overdue", 0.5, "quiet for 0.5 of those gaps"),
        ("event_share", 0.75, "in 75.0% of the user's events"),
        ("activity", 4, "the user has 4 events"),
        ("breadth", 2, "the user has 2 interests"),
        ("repetition", 0.75, "each engaged 0.8 times beyond the first"),
        ("absence", 5, "the user was last there 5.0 days ago"),
        ("popularity", 0.8, "how popular the interest is with everybody"),
        ("returns", 0.3, "how readily users come back to it, beyond its popularity"),
        ("horizon", 30, "a horizon of 30 days"),
    ],
)
def test_what_is_told_of_a_part(name: str, value: float, text: str) -> None:
    part = told()[name]
    assert part.value == pytest.approx(value, rel=1e-12)
    assert part.text == text


def test_an_interest_engaged_once_is_told_to_be_so() -> None:
    part = told("sports/cricket")["once"]
    assert part.value == pytest.approx(1)
    assert part.text == "engaged once so far, so that its gap is assumed"


def test_shares_are_of_the_users_attention() -> None:
    parts = told()
    long, short = parts["long_share"].value, parts["short_share"].value
    assert 0.7 < long < 0.76
    assert short < long
    assert "of the user's attention of two years" in parts["long_share"].text


def test_a_measured_part_is_told_against_the_typical_case() -> None:
    position = PARTS.index("recency") - 1
    typical, coefficient = FITTED.typical[position], FITTED.coefficients[position]
    expected = (math.log(6) - typical) * coefficient
    assert told()["recency"].log_odds == pytest.approx(expected, rel=1e-12)


def test_what_is_known_of_an_interest_is_told_as_its_log_odds() -> None:
    for name in TABLE.names:
        parts = told(name)
        for known in ("popularity", "returns", "company"):
            assert parts[known].value == parts[known].log_odds
    assert told("sports/cricket")["popularity"].value == pytest.approx((0.5 - 0.6) / 2)


def test_a_horizon_is_told_in_days() -> None:
    assert told(horizon_s=14 * DAY_S)["horizon"] == Contribution(
        "horizon", 14.0, -0.5, "a horizon of 14 days"
    )
    assert told()["horizon"].log_odds == 0.0


def test_extreme_parameters_are_told_in_numbers() -> None:
    for base in (-MOST_LOG_ODDS, MOST_LOG_ODDS):
        parts = explain(TABLE, AT, "tea", replace(FITTED, base=base))
        assert all(np.isfinite([part.value, part.log_odds]).all() for part in parts)
        assert parts[0].value == (base > 0)


@pytest.mark.parametrize("name", ["rum", "sports", ""])
def test_an_interest_the_user_does_not_have(name: str) -> None:
    with pytest.raises(KeyError):
        explain(TABLE, AT, name, FITTED)
    with pytest.raises(KeyError):
        explain(TraceTable.empty(), AT, name, FITTED)


def test_the_rolled_up_parent_of_interests_can_be_told() -> None:
    parts = explain(TABLE.roll_up(), AT, "sports", FITTED)
    assert parts[PARTS.index("popularity")].value == pytest.approx((0.5 - 0.6) / 2)


@pytest.mark.parametrize("at", [AT - 10 * DAY_S, math.nan])
def test_the_past_cannot_be_asked_for(at: float) -> None:
    with pytest.raises(ValueError, match="before the newest event"):
        explain(TABLE, at, "tea", FITTED)


def test_horizons_outside_the_family_are_refused() -> None:
    for days in (6.9, 91, math.nan, 0.0):
        with pytest.raises(HorizonOutOfFamily):
            explain(TABLE, AT, "tea", FITTED, days * DAY_S)
