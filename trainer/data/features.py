"""Tables of features: an id column, and columns of numbers or of words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from trainer.data.plain import refuse_twice
from trainer.data.raw import Skipped
from trainer.data.rows import CSV, Field, header, identifier, number, read_rows, words

INTEREST_COLUMNS = (
    "interest", "interests", "category", "categories", "tag", "tags", "genre", "genres",
)  # fmt: skip
"""Columns whose words are interests as they stand, several joined by `|`."""
MOST_LEVELS = 100
"""A column of more different words than this, and than half its rows, says nothing of kinds: names,
titles, addresses."""


@dataclass(frozen=True)
class FeatureTable:
    """What a table says of each id."""

    ids: Sequence[str]
    numbers: Mapping[str, np.ndarray]
    """Column → (N,) float32; NaN where it is blank."""
    words: Mapping[str, Sequence[str | None]]
    """Column → N words; None where it is blank."""
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = field(default=())
    """Columns that were left aside, and why."""

    def stacked(self) -> np.ndarray:
        """(N, D) float32 numbers, columns in their order."""
        return _stack(list(self.numbers.values()), len(self.ids))

    def one_hot(self) -> np.ndarray:
        """(N, D) float32: the numbers, then a column for each word of each column of words."""
        flags = []
        for column in self.words.values():
            levels = sorted({word for word in column if word is not None})
            place = {word: number for number, word in enumerate(levels)}
            at = np.array([-1 if word is None else place[word] for word in column], np.int64)
            flags += [
                np.where(at < 0, np.nan, at == number).astype(np.float32)
                for number in range(len(levels))
            ]
        return _stack([*self.numbers.values(), *flags], len(self.ids))

    def interests(self) -> list[str]:
        """N texts of interests: the words of `INTEREST_COLUMNS`, others as `column/word`."""
        texts: list[list[str]] = [[] for _ in self.ids]
        for name, column in self.words.items():
            for text, word in zip(texts, column, strict=True):
                if word is not None:
                    known = name.lower() in INTEREST_COLUMNS
                    text.append(word if known else f"{name}/{word}")
        return ["|".join(text) for text in texts]


def read_features(path: Path, id_column: str, max_bad: float) -> FeatureTable:
    """Read a table of features.

    A column is of words if its name says so (`INTEREST_COLUMNS`, or it ends in `_id`) or if less
    than half of what stands in it are numbers; a column of numbers has nothing else.

    Raises:
        LogError: the id column is missing, an id stands twice, or more rows than are allowed have
            something other than a number in a column of numbers.
    """
    columns = [name for name in header(path) if name != id_column]
    texts = read_rows(
        path, (identifier(id_column), *(words(name) for name in columns)), CSV, max_bad
    )
    numeric = [name for name in columns if _mostly_numbers(name, texts.table[name])]
    fields: list[Field] = [identifier(id_column)]
    for name in columns:
        remedy = f"write a number or nothing, or words throughout {name}"
        fields.append(number(name, remedy, optional=True) if name in numeric else words(name))
    rows = read_rows(path, fields, CSV, max_bad)
    refuse_twice(rows, id_column)
    table = rows.table
    worded, notes = [], []
    for name in columns:
        if name in numeric:
            continue
        levels = table[name].n_unique()
        if levels > MOST_LEVELS and levels > len(table) / 2 and not _named_for_kinds(name):
            notes.append(
                f"{path.name}: column {name!r} left aside: {levels:,} different words "
                f"in {len(table):,} rows"
            )
        else:
            worded.append(name)
    return FeatureTable(
        table[id_column].to_list(),
        {name: table[name].cast(pl.Float32).to_numpy() for name in numeric},
        {name: table[name].to_list() for name in worded},
        rows.skipped,
        tuple(notes),
    )


def _named_for_kinds(name: str) -> bool:
    return name.lower() in INTEREST_COLUMNS or name.lower().endswith("_id")


def _mostly_numbers(name: str, column: pl.Series) -> bool:
    if _named_for_kinds(name):
        return False
    given = column.drop_nulls().str.strip_chars()
    numbers = given.cast(pl.Float64, strict=False).is_not_null().sum()
    return numbers > 0 and numbers >= len(given) / 2


def _stack(columns: Sequence[np.ndarray], rows: int) -> np.ndarray:
    return np.stack(columns, axis=1) if columns else np.zeros((rows, 0), np.float32)
