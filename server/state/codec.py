"""How a user's traces are kept as bytes.

An interest engaged once is told by the time and the weight of its event; most are.
"""

from __future__ import annotations

import struct

import numpy as np

from ebbing.interest.occasions import LEVELS, single
from ebbing.interest.trace import BANK_SIZE, TraceTable

__all__ = ["decode_traces", "encode_traces"]

VERSION = 2
_HEADER = struct.Struct("<BHI")
"""Version, number of rows, bytes of names."""
_OPEN = 3
_OCCASIONS = _OPEN + BANK_SIZE
_COLUMNS = _OCCASIONS + LEVELS
"""Numbers of a row but for its closed sums: times, open sums, occasions as the bits of floats."""
_EVENT = np.concatenate([np.ones(_OCCASIONS), np.array(single(), np.uint64).view(np.float64)])
"""A row of one event, but for its time and weight."""


def encode_traces(table: TraceTable) -> bytes:
    """Bytes of a table: header, names, two flags a row, the rows of one event, then the others.

    The flags tell which rows hold a single event, and which have closed sums.
    """
    names = "\0".join(table.rows).encode()
    alone = table.times[:, 0] == 1
    has_closed = table.closed_sums.any(axis=1)
    columns = np.concatenate(
        [table.times, table.open_sums, table.occasion_maps.view(np.float64)], axis=1
    )
    return b"".join(
        [
            _HEADER.pack(VERSION, len(table.rows), len(names)),
            names,
            np.packbits(np.concatenate([alone, has_closed])).tobytes(),
            columns[alone, 2:4].astype("<f8").tobytes(),
            columns[~alone].astype("<f8").tobytes(),
            table.closed_sums[has_closed].astype("<f8").tobytes(),
        ]
    )


def decode_traces(data: bytes) -> TraceTable:
    """The table of ``encode_traces``.

    Raises:
        ValueError: the bytes are of another version, or damaged.
    """
    if len(data) < _HEADER.size:
        raise ValueError(f"{len(data)} bytes are no traces")
    version, n, name_bytes = _HEADER.unpack_from(data)
    if version != VERSION:
        raise ValueError(f"traces of version {version}, this code reads {VERSION}")
    at = _HEADER.size
    names = data[at : at + name_bytes].decode()
    rows = tuple(names.split("\0")) if n else ()
    if len(rows) != n:
        raise ValueError(f"{len(rows)} names for {n} rows of traces")
    at += name_bytes
    flag_bytes = (2 * n + 7) // 8
    flags = np.unpackbits(np.frombuffer(data, np.uint8, flag_bytes, at), count=2 * n).astype(bool)
    alone, has_closed = flags[:n], flags[n:]
    lone = int(alone.sum())
    numbers = np.frombuffer(data, "<f8", offset=at + flag_bytes)
    start, end = 2 * lone, 2 * lone + _COLUMNS * (n - lone)
    events = numbers[:start].reshape(lone, 2)
    columns = np.empty((n, _COLUMNS))
    columns[alone] = _EVENT
    columns[alone, 1:_OPEN] = events[:, :1]
    columns[alone, _OPEN:_OCCASIONS] = events[:, 1:]
    columns[~alone] = numbers[start:end].reshape(n - lone, _COLUMNS)
    closed = np.zeros((n, BANK_SIZE))
    closed[has_closed] = numbers[end:].reshape(has_closed.sum(), BANK_SIZE)
    return TraceTable.of(
        rows,
        columns[:, _OPEN:_OCCASIONS],
        closed,
        columns[:, :_OPEN],
        columns[:, _OCCASIONS:].view(np.uint64),
    )
