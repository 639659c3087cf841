"""The families of curves: how near the bank comes, and where they end."""

from __future__ import annotations

import numpy as np
import pytest

from ebbing.interest.bank import HALF_LIVES_S
from ebbing.interest.curves import (
    EXPONENTIAL_ERROR,
    EXPONENTIAL_SPAN,
    POWER_LAW_AGES_S,
    POWER_LAW_ERROR,
    exponential,
    power_law,
    value,
)
from ebbing.interest.trace import TraceTable

HOUR_S = 3600.0
T = 1.7e9


def worths(ages: np.ndarray, curve: np.ndarray) -> np.ndarray:
    return value(np.exp2(-ages[:, None] / HALF_LIVES_S), curve)


@pytest.mark.parametrize("d", np.linspace(0.2, 1.0, 17))
def test_power_laws_from_an_hour_to_two_years(d: float) -> None:
    ages = np.geomspace(*POWER_LAW_AGES_S, 5000)
    error = np.abs(worths(ages, power_law(d)) * (ages / HOUR_S) ** d - 1).max()
    assert error <= POWER_LAW_ERROR


def test_the_power_law_of_base_level_activation_is_nearer() -> None:
    ages = np.geomspace(*POWER_LAW_AGES_S, 5000)
    assert np.abs(worths(ages, power_law(0.5)) * np.sqrt(ages / HOUR_S) - 1).max() <= 0.003


def test_exponentials_between_the_rates_of_the_bank() -> None:
    errors = []
    for half_life in np.geomspace(HALF_LIVES_S[0], HALF_LIVES_S[-1], 200):
        half_lives = np.linspace(0, EXPONENTIAL_SPAN, 500)
        errors.append(worths(half_lives * half_life, exponential(half_life)) * 2**half_lives - 1)
    assert np.abs(errors).max() <= EXPONENTIAL_ERROR
    # As far above as below: no other mixture of the two rates is nearer.
    np.testing.assert_allclose(np.max(errors, 1), -np.min(errors, 1), atol=1e-5)


@pytest.mark.parametrize("r", range(len(HALF_LIVES_S)))
def test_the_bank_has_its_own_half_lives(r: int) -> None:
    curve = exponential(float(HALF_LIVES_S[r]))
    assert curve.tolist() == [float(i == r) for i in range(len(HALF_LIVES_S))]


def test_next_to_a_half_life_of_the_bank() -> None:
    inner = float(HALF_LIVES_S[4])
    for near in (np.nextafter(inner, 0), np.nextafter(inner, 1e12)):
        np.testing.assert_allclose(exponential(float(near)).max(), 1.0)


def test_strength_of_interests() -> None:
    table = TraceTable.from_events([(T, 1.0, [("tea", 1.0), ("rum", 3.0)])])
    tea, rum = value(table.bank(T + 4 * HOUR_S), power_law(0.5))
    assert tea == pytest.approx(0.5, rel=0.003)
    assert rum == pytest.approx(3 * tea)


@pytest.mark.parametrize("d", [0.19, 1.01, 0.0, -0.5, float("nan"), float("inf")])
def test_exponents_outside_the_family_are_refused(d: float) -> None:
    with pytest.raises(ValueError, match=r"outside 0\.2 to 1"):
        power_law(d)


@pytest.mark.parametrize("half_life", [0.0, -1.0, 1439.0, 2.1e8, float("nan"), float("inf")])
def test_half_lives_outside_the_bank_are_refused(half_life: float) -> None:
    with pytest.raises(ValueError, match=r"outside the bank's, 1440 s to 2\.0512.* s"):
        exponential(half_life)
