"""The table by small examples; what holds of any log is in tests/property."""

from __future__ import annotations

import numpy as np
import pytest

from ebbing.interest.bank import BANK_SIZE, HALF_LIVES_S, PERIOD_S, period_start
from ebbing.interest.trace import TraceTable

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
    assert (table.count[0], table.first[0], table.last[0]) == (2, T, T)
    assert table.occasions[0].tolist() == [1, 1, 1, 1]
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


def test_rolling_up_and_leaving_out_keep_the_occasions() -> None:
    table = TraceTable.from_events(
        [
            (T, 1.0, [("tea/green", 1.0)]),
            (T + 86400.0, 1.0, [("tea/black", 1.0)]),
            (T + 2 * 86400.0, 1.0, [("tea/green", 1.0), ("rum", 1.0)]),
        ]
    )
    assert table.names == ("tea/green", "tea/black", "rum")
    assert table.occasions[:, 1].tolist() == [0b101, 1, 1]
    assert table.roll_up().occasions[:, 1].tolist() == [0b111, 1]
    assert table.without(["tea/black"]).occasions[:, 1].tolist() == [0b101, 1]


LOG: list[tuple[float, float, list[tuple[str, float]]]] = [
    (T, 1.0, [("tea", 1.0)]),
    (T + 100.0, 2.0, [("tea", 0.5), ("rum", 1.0)]),
    (T + 9e6, 1.0, [("tea", 1.0)]),
]


def test_an_interest_without_events_vanishes() -> None:
    table = TraceTable.from_events(LOG)
    less = table.withdraw(LOG[1], [LOG[2], LOG[0]])
    assert less.names == ("tea",)
    assert (less.event_count, less.count[0]) == (2, 2)
    nobody = TraceTable.from_events(LOG[:1]).withdraw(LOG[0], [])
    assert nobody.rows == ()
    assert nobody.add([("tea", 1.0)], T).names == ("tea",)


def test_withdrawing_spares_interests_that_the_event_does_not_show() -> None:
    table = TraceTable.from_events(LOG)
    less = table.withdraw(LOG[2], LOG[:2])
    assert less.last.tolist() == [T + 100.0, T + 100.0]
    np.testing.assert_array_equal(less.open_sums[2], table.open_sums[2])


def test_an_interest_dropped_and_engaged_again_holds_what_came_after() -> None:
    table = TraceTable.from_events(LOG[:1]).without(["tea"])
    table = table.add_all(LOG[1:])
    less = table.withdraw(LOG[2], LOG[:2])
    assert less.count.tolist() == [1, 1]
    assert less.event_count == 2


@pytest.mark.parametrize(
    ("event", "remaining", "message"),
    [
        ((T, 1.0, [("gin", 1.0)]), LOG, "no event at .* of 'gin'"),
        ((T, 1.0, [("rum", 1.0)]), LOG, "no event at .* of 'rum'"),
        ((T - 1, 1.0, [("tea", 1.0)]), LOG, "no event at"),
        ((T + 9e6 + 1, 1.0, []), LOG, "no event at .* of ''"),
        ((float("nan"), 1.0, [("tea", 1.0)]), LOG, "no event at nan"),
        (LOG[0], LOG, "3 events of '' remain where 2 should"),
        (LOG[0], LOG[1:2], "1 events of '' remain where 2 should"),
    ],
)
def test_what_the_table_does_not_hold_cannot_be_withdrawn(event, remaining, message) -> None:
    with pytest.raises(ValueError, match=message):
        TraceTable.from_events(LOG).withdraw(event, remaining)


def test_nothing_can_be_withdrawn_from_nobody() -> None:
    with pytest.raises(ValueError, match="no event at"):
        TraceTable.empty().withdraw(LOG[0], [])


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
