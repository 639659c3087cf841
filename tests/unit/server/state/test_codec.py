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


def test_another_version_is_refused() -> None:
    data = encode_traces(TraceTable.empty())
    with pytest.raises(ValueError, match="version 2"):
        decode_traces(b"\x02" + data[1:])


def test_names_that_do_not_fit_the_rows_are_refused() -> None:
    table = TraceTable.from_events([(1.0, 1.0, [("ab", 1.0)])])
    data = bytearray(encode_traces(table))
    header = struct.calcsize("<BHI")
    assert data[header : header + 3] == b"\0ab"
    data[header + 1] = 0  # two names become three
    with pytest.raises(ValueError, match="names"):
        decode_traces(bytes(data))


def test_a_table_takes_few_bytes() -> None:
    log = [(float(i), 1.0, [(f"interest/{i:03}", 1.0)]) for i in range(128)]
    assert len(encode_traces(TraceTable.from_events(log))) < 128 * 140
