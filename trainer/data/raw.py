"""What readers make of files, before it is an event log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

Interests = tuple[tuple[str, float], ...]
"""(path, share) pairs; shares add up to 1."""

FEATURES = "features"
"""The modality of an item's numeric feature columns, beside those named by files of vectors."""


class LogError(Exception):
    """A log that cannot be read; the message names the file, the row and the remedy."""


def gone(path: Path, error: OSError) -> LogError:
    """The error for a file that was there a moment ago, or that cannot be opened."""
    if isinstance(error, FileNotFoundError):
        return LogError(
            f"{path}: went away while the log was read; put it back, or name another folder"
        )
    return LogError(f"{path}: cannot be read ({error.strerror or error}); check file and disk")


@dataclass(frozen=True)
class Skipped:
    """Rows of a file that were left out, as was allowed."""

    file: str
    """Name of the file."""
    rows: int
    """Rows it has, the header and blank lines aside."""
    bad: int
    """How many of them were left out."""
    reasons: Mapping[str, int]
    """What was wrong → rows, of the first 1,000 bad ones."""


class Names:
    """Ids as numbers while a file is read: no Python object an event.

    Numbers of the polars dictionary follow the order in which its threads met the ids;
    `encode` numbers them by first appearance instead, which is the same each time.
    """

    def __init__(self) -> None:
        self.categories = pl.Categories.random()
        self.dtype = pl.Categorical(self.categories)

    def encode(self, column: pl.Series) -> tuple[list[str], np.ndarray]:
        """Ids by first appearance, and (E,) int64 numbers of a column of `dtype`, no nulls."""
        codes = column.to_physical().to_numpy()
        known = self.categories.to_series()
        first = np.full(len(known), len(codes), np.int64)
        first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)
        order = np.argsort(first, kind="stable")[: int((first < len(codes)).sum())]
        number = np.zeros(len(known), np.int64)
        number[order] = np.arange(len(order))
        return known.gather(order).to_list(), number[codes]


@dataclass(frozen=True)
class RawEvents:
    """Events in the order of their file."""

    user_ids: Sequence[str]
    """Distinct, by first appearance."""
    item_ids: Sequence[str]
    """Those that have events, distinct, by first appearance."""
    users: np.ndarray
    """(E,) numbers into `user_ids`."""
    items: np.ndarray
    """(E,) numbers into `item_ids`."""
    types: np.ndarray
    """(E,) `EventType` numbers."""
    times: np.ndarray
    """(E,) float64 UTC seconds."""


@dataclass(frozen=True)
class Vectors:
    """Numbers about items or users."""

    ids: Sequence[str]
    """Distinct."""
    values: np.ndarray
    """(N, D) float32; NaN where a value is missing."""

    def of(self, ids: Sequence[str]) -> np.ndarray:
        """(len(ids), D) rows of these ids; NaN for those there is nothing about."""
        place = {one: row for row, one in enumerate(self.ids)}
        rows = np.array([place.get(one, -1) for one in ids], np.int64)
        found = np.full((len(ids), self.values.shape[1]), np.nan, np.float32)
        found[rows >= 0] = self.values[rows[rows >= 0]]
        return found


@dataclass(frozen=True)
class RawLog:
    """All that a folder says."""

    format: str
    """Which format it was."""
    events: RawEvents
    catalogue: Mapping[str, Interests]
    """Item id → interests, of the items the folder lists; events may know more items."""
    contents: Mapping[str, Vectors] = field(default_factory=dict)
    """Modality → content vectors of items."""
    profiles: Vectors | None = None
    """Numbers about users."""
    relations: pl.DataFrame | None = None
    """`user_id`, `other_user_id` and maybe `strength`, where there are any."""
    skipped: tuple[Skipped, ...] = ()
    """Files of which rows were left out."""
    notes: tuple[str, ...] = ()
    """What else whoever trains should know, in words."""


def parse_interests(text: str | None) -> Interests:
    """`a/b|c` → (("a/b", 0.5), ("c", 0.5)): equal shares, repeated paths once, blanks dropped."""
    paths = tuple(dict.fromkeys(path.strip() for path in (text or "").split("|") if path.strip()))
    return tuple((path, 1.0 / len(paths)) for path in paths)
