"""Rows of a user's state: the trace of one interest as bytes, as its events or as its sums.

A row has a *kind*: the number of its events, if these are what it holds, or one of two others, for
sums without and with those of earlier periods.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from math import exp2

import numpy as np
from numpy.typing import NDArray

from ebbing.interest.bank import (
    BANK_SIZE,
    HALF_LIVES_S,
    PERIOD_S,
    Row,
    decay,
    event_row,
    events_row,
    merge_rows,
    period_start,
    trace_rows,
)
from ebbing.interest.occasions import LEVELS, merge, merged_maps, single

__all__ = [
    "FEW",
    "LENGTHS",
    "MAX_LISTED",
    "Event",
    "counted",
    "counted_one_each",
    "is_summed",
    "read_rows",
    "require_weight",
]

Event = tuple[float, float]
"""Time in seconds since the epoch, weight."""

MAX_LISTED = 12
"""Events of a row that is kept as its events."""
FEW = 24
"""Rows that are counted one by one."""
_SUMS, _SUMS_AND_CLOSED = 0, 255

_EVENT = struct.Struct("<2d")
_LISTED = tuple(struct.Struct(f"<{2 * events}d") for events in range(MAX_LISTED + 1))
_OCCASIONS = 3 + BANK_SIZE
_OPEN_ROW = struct.Struct("<3d10d4Q")
"""Count, first, last, open sums, occasions."""
_CLOSED = struct.Struct("<10d")
"""Closed sums, which follow where there are any."""
_CLOSED_ROW_BYTES = _OPEN_ROW.size + _CLOSED.size
_NONE_CLOSED = (0.0,) * BANK_SIZE
_SINGLE = single()
_RATES = tuple((-1.0 / HALF_LIVES_S).tolist())

_NUMBERS = np.arange(256) * 2
_NUMBERS[_SUMS] = _OPEN_ROW.size // 8
_NUMBERS[_SUMS_AND_CLOSED] = _CLOSED_ROW_BYTES // 8
LENGTHS = bytes(_NUMBERS.clip(max=255).astype(np.uint8))
"""Numbers of 8 bytes in a row by its kind; other kinds than there are have any."""


def is_summed(kind: int) -> bool:
    """Whether a row of a kind holds sums."""
    return kind in {_SUMS, _SUMS_AND_CLOSED}


def counted(kind: int, row: bytes, events: Sequence[Event]) -> tuple[int, bytes]:
    """Kind and bytes of a row after more events.

    Args:
        kind: of the row; any for a new one.
        row: its bytes; none for a new one.
        events: at least one, in any order.

    Raises:
        ValueError: a weight is not a finite number above 0.
    """
    event = events[0]
    alone = len(events) == 1
    for one in events:
        require_weight(one)
    if row and is_summed(kind):
        return _packed(merge_rows(_summed(kind, row), _row_of(events)))
    if row and alone and kind < MAX_LISTED and event >= _EVENT.unpack_from(row, len(row) - 16):
        return kind + 1, row + _EVENT.pack(*event)
    known = [*_EVENT.iter_unpack(row), *events]
    if len(known) > MAX_LISTED:
        return _packed(_row_of(known))
    known.sort()
    return len(known), _LISTED[len(known)].pack(*chain.from_iterable(known))


def require_weight(event: Event) -> Event:
    """The event, if it can be counted.

    Raises:
        ValueError: its weight is not a finite number above 0.
    """
    if not 0.0 < event[1] < float("inf"):
        raise ValueError(f"weight {event[1]} is not a finite number above 0")
    return event


def counted_one_each(rows: Sequence[bytes], events: Sequence[Event]) -> Iterable[tuple[int, bytes]]:
    """Kinds and bytes of rows that hold sums, each after one event more.

    Most events come to a row alone, so of a group of events most are counted here: all at once,
    unless they are too few for arrays to be worth it.
    """
    if len(rows) < FEW:
        return (_with_event(row, *event) for row, event in zip(rows, events, strict=True))
    return _with_events(rows, events)


def read_rows(
    kinds: NDArray[np.uint8], numbers: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.uint64]]:
    """Open and closed sums, times and occasion maps of rows, as ``TraceTable.of`` takes them.

    Args:
        kinds: of the rows, (N,).
        numbers: the bytes of all rows as numbers, one after another.
    """
    n, lengths = len(kinds), _NUMBERS[kinds]
    opened, closed = np.zeros((n, BANK_SIZE)), np.zeros((n, BANK_SIZE))
    times, maps = np.empty((n, 3)), np.empty((n, LEVELS), np.uint64)
    summed = (kinds == _SUMS) | (kinds == _SUMS_AND_CLOSED)
    listed = ~summed
    if listed.any():
        events = numbers[np.repeat(listed, lengths)].reshape(-1, 2)
        opened[listed], closed[listed], times[listed], maps[listed] = trace_rows(
            kinds[listed], events[:, 0], events[:, 1]
        )
    if summed.any():
        starts = np.cumsum(lengths) - lengths
        sums = numbers[starts[summed, None] + np.arange(_OPEN_ROW.size // 8)]
        times[summed], opened[summed] = sums[:, :3], sums[:, 3:_OCCASIONS]
        maps[summed] = sums[:, _OCCASIONS:].view(np.uint64)
        with_closed = kinds == _SUMS_AND_CLOSED
        at = starts[with_closed, None] + np.arange(_OPEN_ROW.size // 8, _CLOSED_ROW_BYTES // 8)
        closed[with_closed] = numbers[at]
    return opened, closed, times, maps


def _row_of(events: Sequence[Event]) -> Row:
    if len(events) == 1:
        return event_row(*events[0])
    times, weights = zip(*sorted(events), strict=True)
    return events_row(times, weights)


def _summed(kind: int, data: bytes) -> Row:
    sums = np.frombuffer(data, "<f8")
    count, first, last = sums[:3].tolist()
    occasions = tuple(sums[_OCCASIONS : _OCCASIONS + LEVELS].view(np.uint64).tolist())
    closed = sums[-BANK_SIZE:] if kind == _SUMS_AND_CLOSED else np.zeros(BANK_SIZE)
    return Row(sums[3:_OCCASIONS], closed, count, first, last, occasions)


def _packed(row: Row) -> tuple[int, bytes]:
    numbers = (row.events, row.first, row.last, *row.open.tolist(), *row.occasions)
    opened, closed = _OPEN_ROW.pack(*numbers), row.closed.tolist()
    return (_SUMS_AND_CLOSED, opened + _CLOSED.pack(*closed)) if any(closed) else (_SUMS, opened)


def _with_event(data: bytes, time: float, weight: float) -> tuple[int, bytes]:
    """A row kept as sums with one event more: ``merge_rows`` without arrays."""
    count, first, last, *numbers = _OPEN_ROW.unpack_from(data)
    opened, ladder = numbers[:BANK_SIZE], tuple(numbers[BANK_SIZE:])
    closed = data[_OPEN_ROW.size :]
    newer, older = (time, last) if time >= last else (last, time)
    start = period_start(newer)
    if older >= start:
        faded = _fading(newer - older)
        if time >= last:
            opened = [known * f + weight for known, f in zip(opened, faded, strict=True)]
        else:
            opened = [known + weight * f for known, f in zip(opened, faded, strict=True)]
    else:
        sums = _CLOSED.unpack(closed) if closed else _NONE_CLOSED
        if time >= last:
            before, since = _fading(start - period_start(last)), _fading(start - last)
            parts = zip(sums, before, opened, since, strict=True)
            sums = tuple(known * f + late * g for known, f, late, g in parts)
            opened = [weight] * BANK_SIZE
        else:
            faded = _fading(start - time)
            sums = tuple(known + weight * f for known, f in zip(sums, faded, strict=True))
        closed = _CLOSED.pack(*sums) if any(sums) else b""
    occasions = merge(ladder, last, _SINGLE, time)
    opened_row = _OPEN_ROW.pack(count + 1.0, min(first, time), newer, *opened, *occasions)
    return (_SUMS_AND_CLOSED if closed else _SUMS), opened_row + closed


def _with_events(rows: Sequence[bytes], events: Sequence[Event]) -> Iterator[tuple[int, bytes]]:
    """The same of many rows."""
    numbers = len(_NONE_CLOSED) + _OPEN_ROW.size // 8
    joined = b"".join(row.ljust(8 * numbers, b"\0") for row in rows)
    table = np.frombuffer(bytearray(joined), "<f8").reshape(-1, numbers)
    last, opened, closed = table[:, 2], table[:, 3:_OCCASIONS], table[:, -BANK_SIZE:]
    maps = table[:, _OCCASIONS:-BANK_SIZE].view(np.uint64)
    time, weight = np.array(events).T
    late = time >= last
    newer, older = np.maximum(time, last), np.minimum(time, last)
    starts = np.floor(newer / PERIOD_S) * PERIOD_S
    within = older >= starts
    faded = decay(np.where(within, newer, starts) - older)
    amounts = weight[:, None]

    at = late & ~within
    periods = np.floor(last[at] / PERIOD_S) * PERIOD_S
    closed[at] = closed[at] * decay(starts[at] - periods) + opened[at] * faded[at]
    opened[at] = amounts[at]
    at = late & within
    opened[at] = opened[at] * faded[at] + amounts[at]
    at = ~late & within
    opened[at] += amounts[at] * faded[at]
    at = ~late & ~within
    closed[at] += amounts[at] * faded[at]

    table[:, 0] += 1.0
    np.minimum(table[:, 1], time, out=table[:, 1])
    maps[:] = merged_maps(maps, last, time)
    table[:, 2] = newer
    data, size = table.tobytes(), 8 * numbers
    for start, any_closed in zip(
        range(0, len(data), size), closed.any(axis=1).tolist(), strict=True
    ):
        if any_closed:
            yield _SUMS_AND_CLOSED, data[start : start + size]
        else:
            yield _SUMS, data[start : start + _OPEN_ROW.size]


def _fading(elapsed: float) -> list[float]:
    return [exp2(rate * elapsed) for rate in _RATES]
