"""Curves read off the bank agree with sums over the events, within the errors they state."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebbing.interest.bank import HALF_LIVES_S, bank_sums
from ebbing.interest.curves import (
    EXPONENTIAL_ERROR,
    EXPONENTIAL_SPAN,
    POWER_LAW_AGES_S,
    POWER_LAW_ERROR,
    POWER_LAW_EXPONENTS,
    exponential,
    power_law,
    value,
)
from ebbing.interest.trace import TraceTable

HOUR_S = 3600.0
YEAR_S = 365.25 * 86400.0

exponents = st.floats(*POWER_LAW_EXPONENTS)
half_lives = st.one_of(
    st.sampled_from(HALF_LIVES_S.tolist()),
    st.floats(0, 1).map(lambda x: float(HALF_LIVES_S[0] ** (1 - x) * HALF_LIVES_S[-1] ** x)),
).map(lambda h: min(max(h, float(HALF_LIVES_S[0])), float(HALF_LIVES_S[-1])))
curves = st.one_of(exponents.map(power_law), half_lives.map(exponential))
weights = st.floats(1e-3, 1e3)
low, high = map(math.log, POWER_LAW_AGES_S)
power_law_ages = st.floats(low, high).map(math.exp)


def read(ages: list[float], amounts: list[float], curve: np.ndarray) -> float:
    """Strength of events of these ages, in seconds, by way of the bank."""
    bank = bank_sums(np.zeros(len(ages), int), 1, -np.array(ages), amounts, 0.0)
    return float(value(bank, curve)[0])


@given(exponents, st.lists(st.tuples(power_law_ages, weights), min_size=1, max_size=30))
def test_power_laws(d: float, events: list[tuple[float, float]]) -> None:
    direct = math.fsum(w * (age / HOUR_S) ** -d for age, w in events)
    strength = read([a for a, _ in events], [w for _, w in events], power_law(d))
    assert strength == pytest.approx(direct, rel=POWER_LAW_ERROR)


@given(st.lists(st.tuples(power_law_ages, weights), min_size=1, max_size=30))
def test_the_power_law_of_base_level_activation(events: list[tuple[float, float]]) -> None:
    direct = math.fsum(w * (age / HOUR_S) ** -0.5 for age, w in events)
    strength = read([a for a, _ in events], [w for _, w in events], power_law(0.5))
    assert strength == pytest.approx(direct, rel=0.003)


@given(half_lives, st.data())
def test_exponentials(half_life: float, data: st.DataObject) -> None:
    one = st.tuples(st.floats(0, EXPONENTIAL_SPAN), weights)
    events = data.draw(st.lists(one, min_size=1, max_size=30))
    direct = math.fsum(w * 2.0**-u for u, w in events)
    ages = [u * half_life for u, _ in events]
    strength = read(ages, [w for _, w in events], exponential(half_life))
    assert strength == pytest.approx(direct, rel=EXPONENTIAL_ERROR)


@given(st.sampled_from(HALF_LIVES_S.tolist()), st.floats(0, 100 * YEAR_S))
def test_exponentials_of_the_bank_are_exact(half_life: float, age: float) -> None:
    strength = read([age], [1.0], exponential(half_life))
    assert strength == pytest.approx(2.0 ** (-age / half_life), rel=1e-9, abs=1e-300)


@given(curves)
def test_weights_are_not_negative(curve: np.ndarray) -> None:
    assert curve.shape == HALF_LIVES_S.shape
    assert np.isfinite(curve).all()
    assert (curve >= 0).all()
    assert curve.any()


@given(
    curves,
    st.lists(st.tuples(st.floats(-100 * YEAR_S, 100 * YEAR_S), weights), min_size=1, max_size=8),
    st.lists(st.floats(0, 200 * YEAR_S), min_size=2, max_size=6),
)
def test_a_curve_is_finite_and_falls_by_waiting(
    curve: np.ndarray, events: list[tuple[float, float]], waits: list[float]
) -> None:
    table = TraceTable.from_events([(time, w, [("tea", 1.0)]) for time, w in events])
    newest = table.span[1]
    strengths = [float(value(table.bank(newest + wait), curve)[0]) for wait in sorted(waits)]
    assert all(math.isfinite(s) and s >= 0 for s in strengths)
    for sooner, later in pairwise(strengths):
        assert later <= sooner * (1 + 1e-12)
