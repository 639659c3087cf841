"""A trace is a function of the set of events: of no order, no partition, no way of computing."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ebbing.interest.bank import (
    BANK_SIZE,
    HALF_LIVES_S,
    PERIOD_S,
    bank_sums,
    events_row,
    period_start,
)
from ebbing.interest.occasions import occasion_maps
from ebbing.interest.trace import TraceTable

Event = tuple[float, float, list[tuple[str, float]]]

YEAR_S = 365.25 * 86400.0
NAMES = ("a", "a/x", "a/y", "b", "b/z", "ü")
CLOSE = {"rtol": 1e-9, "atol": 1e-300}
"""Relative but for the last few powers of two, where a float has fewer digits than that."""

amounts = st.floats(1e-3, 1e3)
# Wide times alone would hardly ever put two events into one period, or one on its boundary.
times = st.one_of(
    st.floats(-100 * YEAR_S, 100 * YEAR_S),
    st.floats(1.7e9, 1.7e9 + 3 * PERIOD_S),
    st.integers(-2, 2).map(lambda k: period_start(1.7e9) + k * PERIOD_S),
)
interests = st.lists(
    st.tuples(st.sampled_from(NAMES), amounts), max_size=4, unique_by=lambda p: p[0]
)
events = st.tuples(times, amounts, interests)
logs = st.lists(events, min_size=1, max_size=24)
waits = st.floats(0, 100 * YEAR_S)


def direct_sums(log: list[Event], name: str, at: float, before: float = math.inf) -> list[float]:
    """The definition: Σ w · 2^(−(at−τ)/h) over the events of ``name`` before ``before``."""
    own = [
        (time, weight * share)
        for time, weight, shares in log
        for interest, share in shares
        if interest == name and time < before
    ]
    return [math.fsum(w * 2.0 ** (-(at - t) / h) for t, w in own) for h in HALF_LIVES_S.tolist()]


def newest(log: list[Event]) -> float:
    return max(time for time, _, _ in log)


def assert_same(one: TraceTable, other: TraceTable) -> None:
    """The same traces, whatever the order in which names first appeared."""
    assert set(one.rows) == set(other.rows)
    order = [other.index[name] for name in one.rows]
    np.testing.assert_array_equal(one.times, other.times[order])
    np.testing.assert_array_equal(one.occasion_maps, other.occasion_maps[order])
    np.testing.assert_allclose(one.open_sums, other.open_sums[order], **CLOSE)
    np.testing.assert_allclose(one.closed_sums, other.closed_sums[order], **CLOSE)


@given(logs, st.randoms(use_true_random=False))
def test_order_of_arrival_does_not_matter(log: list[Event], random) -> None:
    shuffled = random.sample(log, len(log))
    assert_same(TraceTable.from_events(log), TraceTable.from_events(shuffled))


@given(logs, st.data())
def test_any_partition_merges_to_the_whole(log: list[Event], data) -> None:
    owners = data.draw(st.lists(st.integers(0, 3), min_size=len(log), max_size=len(log)))
    merged = TraceTable.empty()
    for part in range(4):
        own = [event for event, owner in zip(log, owners, strict=True) if owner == part]
        merged = merged.merge(TraceTable.from_events(own))
    assert_same(merged, TraceTable.from_events(log))


@given(logs)
def test_one_by_one_is_all_at_once(log: list[Event]) -> None:
    table = TraceTable.empty()
    for time, weight, shares in log:
        table = table.add(shares, time, weight)
    assert_same(table, TraceTable.from_events(log))


@given(st.lists(events, max_size=24), events, st.randoms(use_true_random=False))
def test_withdrawing_an_event_undoes_adding_it(log: list[Event], event: Event, random) -> None:
    """Be it the newest, the oldest, one between, or at the very time of another."""
    table = TraceTable.from_events(log)
    time, weight, shares = event
    added = table.add(shares, time, weight)
    withdrawn = added.withdraw(event, random.sample(log, len(log)))
    assert_same(withdrawn, table)
    assert withdrawn.rows == table.rows


@given(logs, st.randoms(use_true_random=False))
def test_withdrawing_all_events_in_any_order_leaves_nothing(log: list[Event], random) -> None:
    table, remaining = TraceTable.from_events(log), random.sample(log, len(log))
    while remaining:
        event = remaining.pop()
        table = table.withdraw(event, remaining)
        assert_same(table, TraceTable.from_events(remaining))
    assert table.rows == ()


@given(logs, waits)
def test_the_bank_is_the_sum_over_events(log: list[Event], wait: float) -> None:
    table, at = TraceTable.from_events(log), newest(log) + wait
    bank = table.bank(at)
    assert set(table.names) == {name for _, _, shares in log for name, _ in shares}
    for i, name in enumerate(table.names):
        np.testing.assert_allclose(bank[i], direct_sums(log, name, at), **CLOSE)


@given(logs, waits)
def test_the_total_row_sums_all_events(log: list[Event], wait: float) -> None:
    table, at = TraceTable.from_events(log), newest(log) + wait
    everything = [(time, weight, [("all", 1.0)]) for time, weight, _ in log]
    np.testing.assert_allclose(table.total_bank(at), direct_sums(everything, "all", at), **CLOSE)
    assert table.event_count == len(log)
    assert table.span == (min(t for t, _, _ in log), newest(log))


@given(logs)
def test_the_row_of_a_set_is_that_of_its_events_merged(log: list[Event]) -> None:
    assume(log)
    events = sorted((time, weight) for time, weight, _ in log)
    table = TraceTable.from_events((time, weight, []) for time, weight in events)
    row = events_row(*zip(*events, strict=True))
    np.testing.assert_allclose(row.open, table.open_sums[0], **CLOSE)
    np.testing.assert_allclose(row.closed, table.closed_sums[0], **CLOSE)
    assert row[2:5] == tuple(table.times[0])
    assert row.occasions == tuple(table.occasion_maps[0].tolist())


@given(logs, waits)
def test_the_batch_form_agrees(log: list[Event], wait: float) -> None:
    table, at = TraceTable.from_events(log), newest(log) + wait
    pairs = [
        (table.names.index(name), time, weight * share)
        for time, weight, shares in log
        for name, share in shares
    ]
    columns = [np.array(c) for c in zip(*pairs, strict=True)] if pairs else [np.zeros(0)] * 3
    sums = bank_sums(columns[0].astype(int), len(table.names), columns[1], columns[2], at)
    np.testing.assert_allclose(sums, table.bank(at), **CLOSE)


@given(logs, st.one_of(waits, st.floats(0, 3 * PERIOD_S)))
def test_before_the_period_only_earlier_events_count(log: list[Event], wait: float) -> None:
    table, at = TraceTable.from_events(log), newest(log) + wait
    start = period_start(at)
    before = table.bank_before_period(at)
    for i, name in enumerate(table.names):
        np.testing.assert_allclose(before[i], direct_sums(log, name, start, start), **CLOSE)


@given(logs)
def test_counts_and_times_are_those_of_the_events(log: list[Event]) -> None:
    table = TraceTable.from_events(log)
    for i, name in enumerate(table.names):
        own = sorted(time for time, _, shares in log if name in dict(shares))
        assert table.count[i] == len(own)
        assert (table.first[i], table.last[i]) == (own[0], own[-1])
        ladder = occasion_maps(np.zeros(len(own), int), 1, own)
        np.testing.assert_array_equal(table.occasions[i], ladder[0])


@given(logs, waits, waits)
def test_decaying_twice_is_decaying_once(log: list[Event], wait: float, more: float) -> None:
    table, at = TraceTable.from_events(log), newest(log) + wait
    later = at + more
    expected = table.bank(at) * np.exp2(-(later - at) / HALF_LIVES_S)
    np.testing.assert_allclose(table.bank(later), expected, **CLOSE)


@given(logs, st.lists(waits, min_size=2, max_size=6))
def test_the_bank_is_finite_and_falls_by_waiting(log: list[Event], more: list[float]) -> None:
    table = TraceTable.from_events(log)
    banks = [table.bank(newest(log) + wait) for wait in sorted(more)]
    assert all(np.isfinite(bank).all() and (bank >= 0).all() for bank in banks)
    for sooner, later in pairwise(banks):
        assert (later <= sooner * (1 + 1e-12)).all()
    # The slower the rate, the more is left.
    assert (np.diff(banks[-1], axis=1) >= -1e-12 * banks[-1][:, 1:]).all()


@given(logs, events)
def test_adding_changes_no_older_table(log: list[Event], event: Event) -> None:
    table = TraceTable.from_events(log)
    parts = (table.open_sums, table.closed_sums, table.times, table.occasion_maps)
    copies = [part.copy() for part in parts]
    rows, index = table.rows, dict(table.index)
    time, weight, shares = event
    table.add(shares, time, weight)
    table.withdraw(log[0], log[1:])
    table.merge(TraceTable.from_events([event]))
    table.roll_up()
    table.without(table.names[:1])
    table.bank(max(time, newest(log)))
    table.bank_before_period(newest(log))
    for part, copy in zip(parts, copies, strict=True):
        np.testing.assert_array_equal(part, copy)
    assert (table.rows, table.index) == (rows, index)


@given(logs, waits)
def test_rolling_up_sums_children(log: list[Event], wait: float) -> None:
    table, at = TraceTable.from_events(log), newest(log) + wait
    rolled = table.roll_up()
    whole, bank = rolled.bank(at), table.bank(at)
    for i, parent in enumerate(rolled.names):
        own = [j for j, name in enumerate(table.names) if name.partition("/")[0] == parent]
        np.testing.assert_allclose(whole[i], bank[own].sum(axis=0), **CLOSE)
        assert rolled.count[i] == table.count[own].sum()
        moments = [
            time
            for time, _, shares in log
            for name, _ in shares
            if name.partition("/")[0] == parent
        ]
        ladder = occasion_maps(np.zeros(len(moments), int), 1, moments)
        np.testing.assert_array_equal(rolled.occasions[i], ladder[0])
    np.testing.assert_array_equal(rolled.total_bank(at), table.total_bank(at))


@given(logs, st.floats(1e-6, 100 * YEAR_S))
def test_the_past_cannot_be_asked_for(log: list[Event], back: float) -> None:
    table, at = TraceTable.from_events(log), newest(log) - back
    assume(at < newest(log))
    for ask in (table.bank, table.total_bank, table.bank_before_period):
        with pytest.raises(ValueError, match="before the newest event"):
            ask(at)


def test_the_bank_is_geometric_from_minutes_to_years() -> None:
    assert HALF_LIVES_S.shape == (BANK_SIZE,)
    assert HALF_LIVES_S[0] == pytest.approx(24 * 60.0)
    assert HALF_LIVES_S[-1] == pytest.approx(6.5 * YEAR_S)
    np.testing.assert_allclose(np.diff(np.log(HALF_LIVES_S)), np.log(6.5 * 21915.0) / 9)
