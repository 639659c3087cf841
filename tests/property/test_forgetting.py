"""What holds of retention for any parameters that are accepted and any log, centuries apart."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ebbing.interest.assessment import Assessment, Outlook, assess, half_life, retention, states_at
from ebbing.interest.explanation import explain
from ebbing.interest.forgetting import (
    LONGEST_HALF_LIFE_S,
    LONGEST_QUIET_S,
    OVERDUE,
    PARTS,
    RECENCY,
    ForgettingParameters,
    HorizonOutOfFamily,
    freshness,
    log_odds_parts,
    quiet_until,
)
from ebbing.interest.population import Population
from ebbing.interest.standing import FALLS_BY_WAITING, GROWS_BY_WAITING, standing_of
from ebbing.interest.states import InterestState
from ebbing.interest.trace import Event, TraceTable
from tests.harness.retention import CENTURY_S, KNOWN, logs, moderate, parameters, populations

BUILTIN = ForgettingParameters.builtin()
tables = logs().map(TraceTable.from_events)
waits = st.floats(0, CENTURY_S)


def rounding(table: TraceTable, at: float, fitted: ForgettingParameters) -> np.ndarray:
    """By how much rounding may move the log-odds of each interest, (N,)."""
    parts = log_odds_parts(standing_of(table), table.names, at, fitted)
    return 1e-12 * (1 + np.abs(fitted.typical).max() * np.abs(parts).max(axis=1))


def numbers(assessed: Assessment, i: int) -> list[float]:
    """All that is told of one interest."""
    parts = (assessed, assessed.rhythm, assessed.limits)
    columns = (getattr(part, field.name) for part in parts for field in fields(part))
    return [column[i] for column in columns if isinstance(column, np.ndarray)]


@given(tables, parameters(), waits)
def test_retention_and_freshness_are_shares(table: TraceTable, fitted, wait: float) -> None:
    assessed = assess(table, table.span[1] + wait, fitted)
    for values in (assessed.retention, assessed.freshness):
        assert values.shape == (len(table.names),)
        assert ((values >= 0) & (values <= 1)).all()
    assert set(assessed.states.tolist()) <= set(InterestState) - {InterestState.UNSPECIFIED}


@given(tables, parameters(), st.lists(waits, min_size=2, max_size=8))
def test_retention_never_grows_by_waiting(table: TraceTable, fitted, moments) -> None:
    moments = [table.span[1] + wait for wait in sorted(moments)]
    course = [assess(table, at, fitted) for at in moments]
    slack = np.maximum(*(rounding(table, at, fitted) for at in (moments[0], moments[-1])))
    for sooner, later in pairwise(course):
        assert (later.retention <= sooner.retention * (1 + slack)).all()
        assert (later.freshness <= sooner.freshness * (1 + 1e-12)).all()


@given(tables, moderate(), waits, st.floats(0, 1))
def test_contributions_add_up_to_the_log_odds(table, fitted, wait: float, where: float) -> None:
    at = table.span[1] + wait
    shortest, longest = fitted.horizons_s
    horizon_s = min(max(shortest * (longest / shortest) ** where, shortest), longest)
    chances = assess(table, at, fitted, horizon_s=horizon_s).retention
    for name, chance in zip(table.names, chances.tolist(), strict=True):
        told = explain(table, at, name, fitted, horizon_s)
        assert tuple(part.name for part in told) == PARTS
        log_odds = math.fsum(part.log_odds for part in told)
        assert all(math.isfinite(part.value) for part in told)
        # Nearer to certainty than this, a retention does not tell its log-odds to 1e-9.
        if log_odds < 10:
            told_by_chance = math.log(chance) - math.log1p(-chance)
            assert told_by_chance == pytest.approx(log_odds, rel=1e-9, abs=1e-9)
        else:
            assert chance == pytest.approx(1 / (1 + math.exp(-log_odds)), rel=1e-9)


@given(tables, parameters(), waits)
def test_contributions_are_finite_whatever_the_parameters(table, fitted, wait: float) -> None:
    at = table.span[1] + wait
    for name in table.names:
        told = explain(table, at, name, fitted)
        assert all(math.isfinite(x) for part in told for x in (part.value, part.log_odds))


@given(tables, moderate(), waits)
def test_half_life_halves_retention(table: TraceTable, fitted, wait: float) -> None:
    at = table.span[1] + wait
    now = retention(table, at, fitted)
    for i, seconds in enumerate(half_life(table, at, fitted).tolist()):
        if math.isinf(seconds):
            late = retention(table, at + LONGEST_HALF_LIFE_S, fitted)[i]
            assert late > now[i] / 2 * (1 - 1e-9)
        else:
            assert 1 <= seconds <= LONGEST_HALF_LIFE_S
            halved = retention(table, at + seconds, fitted)[i]
            assert halved == pytest.approx(now[i] / 2, rel=1e-5)


@given(tables, parameters(), waits)
def test_half_lives_are_told_whatever_the_parameters(table, fitted, wait: float) -> None:
    seconds = half_life(table, table.span[1] + wait, fitted)
    assert seconds.shape == (len(table.names),)
    assert ((seconds >= 1) & ~np.isnan(seconds)).all()


@given(
    parameters(),
    st.lists(st.floats(3600.0, 2 * LONGEST_QUIET_S), min_size=1, max_size=20),
    st.lists(st.floats(1e-12, 1), min_size=1, max_size=3),
)
def test_freshness_falls_to_a_level_when_told(fitted, gaps: list[float], levels) -> None:
    gap_s = np.array(gaps)
    before = (1 - 1e-6) * np.full_like(gap_s, LONGEST_QUIET_S)
    for level, quiet_s in zip(levels, quiet_until(levels, gap_s, fitted), strict=True):
        assert (quiet_s >= 0).all()
        told = np.isfinite(quiet_s)
        left = freshness(quiet_s[told], gap_s[told], fitted)
        np.testing.assert_allclose(np.log(left), math.log(level), rtol=1e-9, atol=1e-9)
        assert (freshness(before, gap_s, fitted)[~told] > level * (1 - 1e-9)).all()


@given(tables, parameters(), waits, st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_retention_never_falls_with_the_horizon(table, fitted, wait: float, where) -> None:
    at = table.span[1] + wait
    shortest, longest = fitted.horizons_s
    asked = [shortest + (longest - shortest) * x for x in sorted(where)]
    asked = sorted({min(x, longest) for x in asked} | {fitted.horizon_s})
    chances = [retention(table, at, fitted, horizon_s) for horizon_s in asked]
    slack = rounding(table, at, fitted)
    for shorter, longer in pairwise(chances):
        assert (shorter <= longer * (1 + slack)).all()
    for outside in (shortest * (1 - 1e-9), longest * (1 + 1e-9), 0.0, -1.0, math.inf, math.nan):
        with pytest.raises(HorizonOutOfFamily) as refused:
            assess(table, at, fitted, horizon_s=outside)
        assert (refused.value.shortest_s, refused.value.longest_s) == (shortest, longest)


@given(tables, parameters(), waits)
def test_json_keeps_every_bit(table: TraceTable, fitted, wait: float) -> None:
    back = ForgettingParameters.from_json(fitted.to_json())
    assert back.to_json() == fitted.to_json()
    at = table.span[1] + wait
    np.testing.assert_array_equal(retention(table, at, back), retention(table, at, fitted))
    np.testing.assert_array_equal(half_life(table, at, back), half_life(table, at, fitted))


@given(populations(1000.0), st.lists(st.sampled_from(KNOWN), unique=True), st.data())
def test_effects_are_each_interests_own(known: Population, names: list[str], data) -> None:
    attention = data.draw(
        st.lists(st.floats(0, 1e6), min_size=len(names), max_size=len(names)), label="attention"
    )
    effects = known.effects(names, attention)
    assert effects.shape == (len(names), 3)
    assert np.isfinite(effects).all()
    order = data.draw(st.permutations(range(len(names))), label="order")
    turned = known.effects([names[i] for i in order], [attention[i] for i in order])
    np.testing.assert_array_equal(turned[:, :2], effects[order, :2])
    np.testing.assert_allclose(turned[:, 2], effects[order, 2], rtol=1e-9, atol=1e-6)
    again = Population.from_json(json.loads(json.dumps(known.to_json())))
    np.testing.assert_array_equal(again.effects(names, attention), effects)


@given(logs(), st.data(), moderate(), waits)
def test_the_order_of_events_does_not_matter(log: list[Event], data, fitted, wait: float) -> None:
    table = TraceTable.from_events(log)
    other = TraceTable.from_events(data.draw(st.permutations(log), label="order"))
    at = table.span[1] + wait
    one, two = (assess(each, at, fitted) for each in (table, other))
    order = [other.names.index(name) for name in table.names]
    for values, others in (
        (one.retention, two.retention),
        (one.freshness, two.freshness),
        (one.rhythm.gap_s, two.rhythm.gap_s),
        (one.limits.fading_s, two.limits.fading_s),
        (one.limits.forgotten_s, two.limits.forgotten_s),
    ):
        np.testing.assert_allclose(others[order], values, rtol=1e-9, atol=1e-300)
    limits = (one.limits.resting_s, one.limits.fading_s, one.limits.forgotten_s)
    near = np.any([np.isclose(one.recency_s, limit, rtol=1e-9) for limit in limits], axis=0)
    assert (near | (one.states == two.states[order])).all()


@given(tables, moderate(), waits)
def test_states_are_told_alike_however_they_are_asked_for(table, fitted, wait: float) -> None:
    at = table.span[1] + wait
    assessed = assess(table, at, fitted)
    np.testing.assert_array_equal(states_at(table, at, fitted), assessed.states)
    np.testing.assert_array_equal(retention(table, at, fitted), assessed.retention)
    outlook = Outlook.of(table, fitted)
    whole = outlook.assessed(at, assessed.retention)
    for i in range(len(table.names)):
        alone = outlook.only(i).assessed(at, assessed.retention[i : i + 1])
        expected = numbers(assessed, i)
        np.testing.assert_array_equal(numbers(whole, i), expected)
        np.testing.assert_array_equal(numbers(alone, 0), expected)


@given(tables, moderate(), waits)
def test_states_change_when_told_and_not_before(table: TraceTable, fitted, wait: float) -> None:
    at = table.span[1] + wait
    now = assess(table, at, fitted)
    for i, change in enumerate(now.changes.tolist()):
        if math.isinf(change):
            late = states_at(table, at + 20 * CENTURY_S, fitted)
            assert late[i] == now.states[i]
            continue
        assert change > at
        assert states_at(table, change, fitted)[i] != now.states[i]
        # A float's resolution at this moment, and that of the quiet until then.
        before = change - 4 * np.spacing(abs(change) + abs(table.last[i]))
        if before >= at:
            assert states_at(table, before, fitted)[i] == now.states[i]


@given(parameters(), st.sampled_from([*GROWS_BY_WAITING, *FALLS_BY_WAITING]), st.floats(1e-9, 5))
def test_signs_that_let_retention_grow_are_refused(fitted, column: int, size: float) -> None:
    wrong = list(fitted.coefficients)
    wrong[column] = size if column in GROWS_BY_WAITING else -size
    with pytest.raises(ValueError, match="grow by waiting"):
        replace(fitted, coefficients=tuple(wrong))


@given(parameters(), st.permutations(range(5)))
def test_an_unordered_family_is_refused(fitted, order: list[int]) -> None:
    turned = tuple(fitted.horizons[i] for i in order if i < len(fitted.horizons))
    assume(turned != fitted.horizons)
    with pytest.raises(ValueError, match="ascend"):
        replace(fitted, horizons=turned)


@given(st.floats(-1000, 0), st.floats(-1000, 0), st.floats(3600.0, 2 * LONGEST_QUIET_S), st.data())
def test_quiet_grows_as_the_level_falls(recency: float, overdue: float, gap: float, data) -> None:
    c = list(BUILTIN.coefficients)
    c[RECENCY], c[OVERDUE] = recency, overdue
    fitted = replace(BUILTIN, coefficients=tuple(c))
    levels = sorted(data.draw(st.lists(st.floats(1e-12, 1), min_size=2, max_size=5)), reverse=True)
    quiet = [each[0] for each in quiet_until(levels, np.array([gap]), fitted)]
    for higher, lower in pairwise(quiet):
        assert higher <= lower * (1 + 1e-9)
