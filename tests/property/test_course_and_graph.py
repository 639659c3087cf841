"""The course and the graph of a user's interests hold for any events."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebbing.interest.course import Course, course
from ebbing.interest.graph import HALF_LIFE_S, SUCCESSION_WINDOW_S, interest_graph
from ebbing.interest.trace import Event, TraceTable

DAY_S = 86400.0
NAMES = ("a", "b", "c/d", "c/e")

# Whole seconds, so that moments before, at and after an event are told apart exactly.
times = st.integers(0, 400 * 86400).map(float)
weights = st.floats(1e-3, 1e3)
interests = st.dictionaries(st.sampled_from([*NAMES, "x"]), weights, max_size=5).map(
    lambda shares: list(shares.items())
)
events = st.lists(st.tuples(times, weights, interests), max_size=25)


def sorted_by_time(log: list[Event]) -> list[Event]:
    return sorted(log, key=lambda event: event[0])


def same(one: TraceTable, other: TraceTable, at: float) -> None:
    assert set(one.names) == set(other.names)
    order = [other.names.index(name) for name in one.names]
    np.testing.assert_array_equal(one.count, other.count[order])
    np.testing.assert_array_equal(one.last, other.last[order])
    np.testing.assert_allclose(one.bank(at), other.bank(at)[order], rtol=1e-9)


@given(events, st.lists(times, max_size=8))
def test_every_table_is_that_of_the_events_up_to_its_moment(
    log: list[Event], moments: list[float]
) -> None:
    moments = sorted(moments)
    for moment, table in zip(moments, course(sorted_by_time(log), moments), strict=True):
        same(table, TraceTable.from_events(e for e in log if e[0] <= moment), moment)


@given(events, times, st.integers(1, 4))
def test_steps_of_any_size_lead_to_the_same(log: list[Event], until: float, most: int) -> None:
    going = Course(sorted_by_time(log))
    while going.advance(until, most):
        assert going.table.event_count <= len(log)
    (whole,) = course(sorted_by_time(log), [until])
    same(going.table, whole, until)


@given(events)
def test_the_graph_is_the_sum_over_its_definition(log: list[Event]) -> None:
    ordered = sorted_by_time(log)
    at = ordered[-1][0] + DAY_S if ordered else 0.0
    graph = interest_graph(ordered, NAMES, at)

    def shown(event: Event, name: str) -> float:
        return event[1] * dict(event[2]).get(name, 0.0)

    def decay(event: Event) -> float:
        return 2.0 ** ((event[0] - at) / HALF_LIFE_S)

    for i, a in enumerate(NAMES):
        for j, b in enumerate(NAMES):
            if i == j:
                assert graph.co_occurrence[i, j] == graph.succession[i, j] == 0.0
                continue
            together = sum(decay(e) * math.sqrt(shown(e, a) * shown(e, b)) for e in ordered)
            after = sum(
                decay(second) * math.sqrt(shown(first, a) * shown(second, b))
                for first, second in pairwise(ordered)
                if second[0] - first[0] <= SUCCESSION_WINDOW_S
            )
            assert graph.co_occurrence[i, j] == pytest.approx(together, rel=1e-9)
            assert graph.succession[i, j] == pytest.approx(after, rel=1e-9)


@given(events, st.randoms(use_true_random=False))
def test_what_comes_together_does_so_in_any_order(log: list[Event], chance: random.Random) -> None:
    shuffled = chance.sample(log, len(log))
    one = interest_graph(log, NAMES, 400 * DAY_S).co_occurrence
    np.testing.assert_allclose(
        one, interest_graph(shuffled, NAMES, 400 * DAY_S).co_occurrence, rtol=1e-9
    )
    np.testing.assert_array_equal(one, one.T)


@given(events, events)
def test_what_comes_together_in_parts_adds_up(log: list[Event], more: list[Event]) -> None:
    at = 400 * DAY_S
    parts = [interest_graph(part, NAMES, at).co_occurrence for part in (log, more)]
    whole = interest_graph(log + more, NAMES, at).co_occurrence
    np.testing.assert_allclose(whole, parts[0] + parts[1], rtol=1e-9)


@given(events, st.permutations(range(len(NAMES))))
def test_the_graph_does_not_depend_on_the_order_of_the_names(
    log: list[Event], order: list[int]
) -> None:
    ordered = sorted_by_time(log)
    graph = interest_graph(ordered, NAMES, 400 * DAY_S)
    turned = interest_graph(ordered, [NAMES[i] for i in order], 400 * DAY_S)
    grid = np.ix_(order, order)
    np.testing.assert_allclose(turned.co_occurrence, graph.co_occurrence[grid], rtol=1e-9)
    np.testing.assert_allclose(turned.succession, graph.succession[grid], rtol=1e-9)
    few = interest_graph(ordered, NAMES[:2], 400 * DAY_S)
    np.testing.assert_allclose(few.succession, graph.succession[:2, :2], rtol=1e-9)
