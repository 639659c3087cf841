"""I(u,t): what a fresh event is worth, and how the readings part as time passes."""

from __future__ import annotations

import numpy as np
import pytest

from ebbing.interest.bank import PERIOD_S
from ebbing.interest.profile import (
    BLENDED,
    LONG_TERM,
    SHORT_TERM,
    interest_vectors,
    previous_interest_vector,
)
from ebbing.interest.trace import TraceTable

T = 1000 * PERIOD_S + 3600.0
DAY_S = 86400.0


@pytest.mark.parametrize("mixture", [SHORT_TERM, LONG_TERM, BLENDED])
def test_mixtures_weigh_a_fresh_event_as_one(mixture) -> None:
    assert (mixture >= 0).all()
    assert mixture.sum() == pytest.approx(1.0)


def test_short_and_long_term_share_no_rate() -> None:
    assert not (SHORT_TERM * LONG_TERM).any()


def test_a_fresh_event_is_worth_one_in_every_reading() -> None:
    reading = interest_vectors(TraceTable.empty().add([("tea", 1.0)], T), T)
    for vector in (reading.short_term, reading.long_term, reading.blended):
        assert vector == pytest.approx([1.0])


def test_the_new_overtakes_in_the_short_term_first() -> None:
    events = [(T + i * DAY_S, 1.0, [("old", 1.0)]) for i in range(30)]
    events += [(T + (60 + i) * DAY_S, 1.0, [("new", 1.0)]) for i in range(6)]
    reading = interest_vectors(TraceTable.from_events(events), T + 66 * DAY_S)
    old, new = 0, 1
    assert reading.short_term[new] > reading.short_term[old]
    assert reading.long_term[old] > reading.long_term[new]


def test_the_previous_vector_knows_nothing_of_this_period() -> None:
    week = PERIOD_S
    table = TraceTable.from_events([(T - week, 1.0, [("tea", 1.0)]), (T, 1.0, [("rum", 1.0)])])
    tea, rum = previous_interest_vector(table, T)
    assert 0 < tea < 1
    assert rum == 0
    later = previous_interest_vector(table, T + week)
    assert (later > 0).all()


def test_nothing_is_known_of_nobody() -> None:
    reading = interest_vectors(TraceTable.empty(), T)
    assert reading.blended.shape == (0,)
    assert previous_interest_vector(TraceTable.empty(), T).shape == (0,)


def test_the_past_cannot_be_asked_for() -> None:
    with pytest.raises(ValueError, match="before the newest event"):
        interest_vectors(TraceTable.empty().add([("tea", 1.0)], T), T - 1)


def test_vectors_are_linear_in_events() -> None:
    table = TraceTable.from_events([(T, 1.0, [("tea", 1.0)]), (T, 2.5, [("rum", 1.0)])])
    tea, rum = interest_vectors(table, T + 9 * DAY_S).blended
    np.testing.assert_allclose(rum, 2.5 * tea)
