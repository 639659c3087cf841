"""The interest graph: what comes together and what follows what, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ebbing.interest.graph import HALF_LIFE_S, SUCCESSION_WINDOW_S, interest_graph
from ebbing.interest.trace import Event

HOUR_S = 3600.0
A, B, C = ("a", 1.0), ("b", 1.0), ("c", 1.0)
NAMES = ["a", "b", "c"]


def test_what_one_event_shows_comes_together_and_follows_nothing() -> None:
    graph = interest_graph([(0.0, 1.0, [A, B])], NAMES, 0.0)
    assert graph.co_occurrence.tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    assert not graph.succession.any()


def test_what_comes_next_follows() -> None:
    graph = interest_graph([(0.0, 1.0, [A]), (0.0, 1.0, [B]), (0.0, 1.0, [B, C])], NAMES, 0.0)
    # b after b is no edge between two interests.
    assert graph.succession.tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 0]]
    assert graph.co_occurrence.tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0]]


def test_amounts_meet_in_their_geometric_mean() -> None:
    events: list[Event] = [(0.0, 2.0, [("a", 8.0), ("b", 0.5)]), (0.0, 9.0, [C])]
    graph = interest_graph(events, NAMES, 0.0)
    assert graph.co_occurrence[0, 1] == pytest.approx(4.0)  # √(16 · 1)
    assert graph.succession[0, 2] == pytest.approx(12.0)  # √(16 · 9)
    assert graph.succession[1, 2] == pytest.approx(3.0)  # √(1 · 9)


def test_edges_decay_from_the_later_event_on() -> None:
    events: list[Event] = [(0.0, 1.0, [A, B]), (HOUR_S, 1.0, [C])]
    graph = interest_graph(events, NAMES, HOUR_S + HALF_LIFE_S)
    assert graph.succession[0, 2] == pytest.approx(0.5)
    assert graph.co_occurrence[0, 1] == pytest.approx(0.5 * 2 ** (-HOUR_S / HALF_LIFE_S))


@pytest.mark.parametrize(("apart", "follows"), [(0.0, 1.0), (1.0, 0.0)])
def test_nothing_follows_after_the_window(apart: float, follows: float) -> None:
    later = SUCCESSION_WINDOW_S + apart
    graph = interest_graph([(0.0, 1.0, [A]), (later, 1.0, [B])], NAMES, later)
    assert graph.succession[0, 1] == follows


def test_interests_that_are_not_named_only_stand_between() -> None:
    events: list[Event] = [(0.0, 1.0, [A]), (1.0, 1.0, [("other", 1.0)]), (2.0, 1.0, [B])]
    graph = interest_graph(events, NAMES, 2.0)
    assert not graph.succession.any()
    assert not graph.co_occurrence.any()


@pytest.mark.parametrize("names", [[], ["a"]])
def test_too_few_interests_for_edges(names: list[str]) -> None:
    graph = interest_graph([(0.0, 1.0, [A, B])], names, 0.0)
    assert graph.co_occurrence.shape == graph.succession.shape == (len(names), len(names))
    assert not graph.co_occurrence.any()


def test_no_events_no_edges() -> None:
    graph = interest_graph([], NAMES, 0.0)
    assert np.array_equal(graph.co_occurrence, np.zeros((3, 3)))
