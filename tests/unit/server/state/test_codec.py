"""Traces as bytes: whole again afterwards, and never taken for whole when they are not."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebbing.interest.trace import BANK_SIZE, TraceTable
from server.state.codec import decode_traces, encode_traces

YEAR_S = 365.25 * 86400.0
names = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=20
)
interests = st.lists(st.tuples(names, st.floats(1e-3, 1e3)), max_size=4)
events = st.tuples(st.floats(0, 100 * YEAR_S), st.floats(1e-3, 1e3), interests)
tables = st.lists(events, max_size=12).map(TraceTable.from_events)


@given(tables)
def test_round_trip(table: TraceTable) -> None:
    again = decode_traces(encode_traces(table))
    assert again.rows == table.rows
    assert again.index == table.index
    np.testing.assert_array_equal(again.times, table.times)
    np.testing.assert_array_equal(again.open_sums, table.open_sums)
    np.testing.assert_array_equal(again.closed_sums, table.closed_sums)
    np.testing.assert_array_equal(again.occasion_maps, table.occasion_maps)
    assert again.occasion_maps.dtype == table.occasion_maps.dtype


@given(tables, st.data())
def test_bytes_that_are_cut_off_are_refused(table: TraceTable, data: st.DataObject) -> None:
    whole = encode_traces(table)
    size = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(ValueError, match=r"."):
        decode_traces(whole[:size])


def test_wherever_the_bytes_end_too_early_they_are_refused() -> None:
    two_periods = (0.0, 100 * 86400.0)
    log = [(time, 1.0, [("a", 1.0), ("b", 2.0)]) for time in two_periods]
    table = TraceTable.from_events(log)
    assert table.closed_sums.any(axis=1).sum() == 3
    whole = encode_traces(table)
    for size in range(len(whole)):
        with pytest.raises(ValueError, match=r"."):
            decode_traces(whole[:size])


@given(tables, st.integers(1, 4 * BANK_SIZE))
def test_bytes_too_many_are_refused(table: TraceTable, more: int) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_traces(encode_traces(table) + bytes(more))


@pytest.mark.parametrize("version", [1, 3])
def test_another_version_is_refused(version: int) -> None:
    data = encode_traces(TraceTable.empty())
    with pytest.raises(ValueError, match=f"traces of version {version}, this code reads 2"):
        decode_traces(bytes([version]) + data[1:])


def test_occasions_use_all_their_bits() -> None:
    """Patterns that are no number as a float come back all the same."""
    log = [(i * 6 * 3600.0, 1.0, [("a", 1.0)]) for i in range(64)]
    table = TraceTable.from_events(log)
    assert table.occasions[0, 0] == 2**64 - 1
    np.testing.assert_array_equal(decode_traces(encode_traces(table)).occasions, table.occasions)


def test_names_that_do_not_fit_the_rows_are_refused() -> None:
    table = TraceTable.from_events([(1.0, 1.0, [("ab", 1.0)])])
    data = bytearray(encode_traces(table))
    header = struct.calcsize("<BHI")
    assert data[header : header + 3] == b"\0ab"
    data[header + 1] = 0  # two names become three
    with pytest.raises(ValueError, match="names"):
        decode_traces(bytes(data))


@pytest.mark.parametrize(("times", "numbers"), [([0], 2), ([0, 1], 17), ([0, 8 * 86400], 27)])
def test_an_interest_takes_few_bytes(times: list[float], numbers: int) -> None:
    """Engaged once, within one period, and in more than one."""
    shown = [(f"interest/{i:03}", 1.0) for i in range(128)]
    data = encode_traces(TraceTable.from_events([(time, 1.0, shown) for time in times]))
    assert len(data) < 129 * (len("interest/000,") + 8 * numbers + 0.5)
