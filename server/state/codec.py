"""How a user's traces are kept as bytes."""

from __future__ import annotations

import struct

import numpy as np

from ebbing.interest.trace import BANK_SIZE, TraceTable

__all__ = ["decode_traces", "encode_traces"]

VERSION = 1
_HEADER = struct.Struct("<BHI")
"""Version, number of rows, bytes of names."""


def encode_traces(table: TraceTable) -> bytes:
    """Bytes of a table: header, names, which rows have closed sums, then the numbers."""
    names = "\0".join(table.rows).encode()
    has_closed = table.closed_sums.any(axis=1)
    return b"".join(
        [
            _HEADER.pack(VERSION, len(table.rows), len(names)),
            names,
            np.packbits(has_closed).tobytes(),
            table.times.astype("<f8").tobytes(),
            table.open_sums.astype("<f8").tobytes(),
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
    flag_bytes = (n + 7) // 8
    flags = np.frombuffer(data, np.uint8, flag_bytes, at)
    has_closed = np.unpackbits(flags, count=n).astype(bool)
    numbers = np.frombuffer(data, "<f8", offset=at + flag_bytes)
    times, opened, closed_rows = np.split(numbers, [4 * n, (4 + BANK_SIZE) * n])
    closed = np.zeros((n, BANK_SIZE))
    closed[has_closed] = closed_rows.reshape(has_closed.sum(), BANK_SIZE)
    return TraceTable.of(rows, opened.reshape(n, BANK_SIZE), closed, times.reshape(n, 4))
