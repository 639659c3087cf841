"""The table by small examples; what holds of any log is in tests/property."""

from __future__ import annotations

import numpy as np
import pytest

from ebbing.interest.trace import (
    BANK_SIZE,
    HALF_LIVES_S,
    PERIOD_S,
    TraceTable,
    bank_sums,
    period_start,
)

T = 1000 * PERIOD_S + 3600.0


def test_one_event_halves_in_each_half_life() -> None:
    table = TraceTable.empty().add([("tea", 1.0)], T)
    for r, half_life in enumerate(HALF_LIVES_S):
        assert table.bank(T + half_life)[0, r] == pytest.approx(0.5)
    np.testing.assert_array_equal(table.bank(T), np.ones((1, BANK_SIZE)))


def test_weight_times_share_is_what_an_interest_gets() -> None:
    table = TraceTable.empty().add([("tea", 0.25), ("cups", 2.0)], T, weight=4.0)
    assert table.names == ("tea", "cups")
    np.testing.assert_array_equal(table.bank(T)[:, 0], [1.0, 8.0])
    np.testing.assert_array_equal(table.total_bank(T), np.full(BANK_SIZE, 4.0))


def test_an_event_without_interests_counts_for_the_user_alone() -> None:
    table = TraceTable.empty().add([], T)
    assert table.names == ()
    assert table.event_count == 1
    assert table.span == (T, T)


def test_the_empty_table() -> None:
    table = TraceTable.empty()
    assert table.names == ()
    assert table.event_count == 0
    assert table.span == (float("inf"), float("-inf"))
    assert table.bank(T).shape == (0, BANK_SIZE)
    assert table.bank_before_period(T).shape == (0, BANK_SIZE)
    np.testing.assert_array_equal(table.total_bank(T), np.zeros(BANK_SIZE))
    assert table.add_all([]) is table
    assert table.merge(TraceTable.empty()) is table
    assert table.roll_up().names == ()


def test_two_events_at_one_time() -> None:
    table = TraceTable.from_events([(T, 1.0, [("tea", 1.0)]), (T, 1.0, [("tea", 1.0)])])
    assert (table.count[0], table.first[0], table.last[0], table.previous[0]) == (2, T, T, T)
    np.testing.assert_array_equal(table.bank(T)[0], np.full(BANK_SIZE, 2.0))


def test_an_event_on_the_boundary_belongs_to_the_period_it_starts() -> None:
    start = period_start(T)
    table = TraceTable.from_events(
        [(start - 1.0, 1.0, [("tea", 1.0)]), (start, 1.0, [("tea", 1.0)])]
    )
    expected = np.exp2(-1.0 / HALF_LIVES_S)
    np.testing.assert_allclose(table.bank_before_period(start)[0], expected)
    np.testing.assert_allclose(table.bank(start)[0], 1 + expected)


def test_rolled_up_children_count_for_their_parent() -> None:
    table = TraceTable.from_events(
        [
            (T, 1.0, [("sports/football", 1.0), ("sports/tennis", 1.0)]),
            (T + 1, 1.0, [("sports", 1.0)]),
            (T + 2, 1.0, [("music", 1.0)]),
        ]
    )
    rolled = table.roll_up()
    assert rolled.names == ("sports", "music")
    assert rolled.count.tolist() == [3, 1]
    assert rolled.event_count == 3


def test_leaving_interests_out_keeps_the_rest() -> None:
    table = TraceTable.from_events([(T, 1.0, [(name, 1.0) for name in "abc"])])
    less = table.without(["b", "unknown"])
    assert less.names == ("a", "c")
    assert less.event_count == 1
    assert less.add([("b", 1.0)], T + 1).names == ("a", "c", "b")
    np.testing.assert_array_equal(less.bank(T), table.bank(T)[[0, 2]])


@pytest.mark.parametrize(
    ("time", "weight", "share", "message"),
    [
        (float("nan"), 1.0, 1.0, "time nan is not finite"),
        (float("inf"), 1.0, 1.0, "time inf is not finite"),
        (T, 0.0, 1.0, "above 0"),
        (T, -1.0, 1.0, "above 0"),
        (T, float("nan"), 1.0, "above 0"),
        (T, float("inf"), 1.0, "above 0"),
        (T, 1.0, 0.0, "of 'tea' is not"),
        (T, 1.0, float("nan"), "of 'tea' is not"),
        (T, 1e200, 1e200, "of 'tea' is not"),
    ],
)
def test_events_that_would_spoil_the_sums_are_refused(time, weight, share, message) -> None:
    with pytest.raises(ValueError, match=message):
        TraceTable.empty().add([("tea", share)], time, weight)


@pytest.mark.parametrize("at", [T - 1e-3, float("nan"), float("-inf")])
def test_a_moment_before_the_newest_event_is_refused(at: float) -> None:
    table = TraceTable.empty().add([("tea", 1.0)], T)
    with pytest.raises(ValueError, match="before the newest event"):
        table.bank(at)


def test_batch_sums_of_segments() -> None:
    sums = bank_sums([0, 2, 2], 3, [T, T, T + 3600.0], [1.0, 2.0, 1.0], [T, T, T + 3600.0])
    np.testing.assert_allclose(sums[:, 0], [1.0, 0.0, 2.0])
    assert bank_sums([], 2, [], [], T).tolist() == np.zeros((2, BANK_SIZE)).tolist()
