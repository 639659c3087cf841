"""Times of events, in whatever unit a file has them, as UTC seconds."""

from __future__ import annotations

import numpy as np

from trainer.data.raw import LogError
from trainer.data.rows import Rows

_UNITS = (("seconds", 1.0), ("milliseconds", 1e3), ("microseconds", 1e6), ("nanoseconds", 1e9))
_LONGEST = 1e11
"""Seconds that reach the year 5138; as milliseconds they would only reach 1973. A time below this
is told apart from the same moment in another unit, but in those first three years."""


def in_seconds(rows: Rows, column: str) -> np.ndarray:
    """A column of times as (E,) float64 UTC seconds.

    A file that is in milliseconds, microseconds or nanoseconds throughout is converted.

    Raises:
        LogError: the file mixes units; the message names the first row of each.
    """
    times = rows.table[column].to_numpy()
    unit = np.searchsorted([_LONGEST * scale for _, scale in _UNITS[:-1]], np.abs(times), "right")
    units = np.unique(unit)
    if len(units) > 1:
        seen = []
        for one in units.tolist():
            row = int(np.flatnonzero(unit == one)[0])
            seen.append((rows.line(row), f"{times[row]:.15g}", _UNITS[one][0]))
        told = ", ".join(f"row {line} ({value}) in {name}" for line, value, name in sorted(seen))
        raise LogError(
            f"{rows.path}: {column} mixes units: {told}; write all of them as UTC seconds"
        )
    return times / _UNITS[int(units[0])][1] if len(units) else times
