"""Rows of a text file: at once where all of them read, else one by one.

Polars reads a sound file at full speed but loses count where one is broken. So a file of which
any row does not read is gone through again line by line, which is slower, and each such row is
named or, where that was allowed, counted and left out. A row is a line.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np
import polars as pl

from trainer.data.raw import LogError, Names, Skipped, gone

CHUNK_ROWS = 100_000
NAMED_ROWS = 5
ANEW = "write it anew"
_KEPT_REASONS = 1000


@dataclass(frozen=True)
class Layout:
    """How rows are written."""

    separator: str = ","
    """Between fields; more than one character where the format has it so."""
    columns: tuple[str, ...] | None = None
    """Names of all columns of a file without a header; None: its first row names them."""
    quoted: bool = True
    """Whether fields may stand in double quotes."""
    encoding_errors: str = "strict"
    """What of bytes that are no UTF-8, as `bytes.decode` takes it; a strict row does not read."""


CSV = Layout()


@dataclass(frozen=True)
class Field:
    """A column that is wanted, and what makes it read."""

    column: str
    """Its name in the file."""
    parse: Callable[[pl.Expr], pl.Expr]
    """Its text → its value; null where it does not read."""
    what: str
    """What is wrong with one that does not read: "event_time is not a number"."""
    remedy: str
    """What to write instead."""
    optional: bool = False
    """Whether it may be blank."""

    def bad(self) -> pl.Expr:
        """Whether it does not read, of a frame of texts."""
        unread = self.parse(pl.col(self.column)).is_null()
        return unread & ~_blank(pl.col(self.column)) if self.optional else unread


@dataclass(frozen=True)
class Rows:
    """The rows of a file that read."""

    path: Path
    table: pl.DataFrame
    """A column for each field, under the column's own name."""
    numbers: np.ndarray | None
    """Line of each row, counting from 1; None where row i is line `first + i`."""
    first: int
    """Line of the first row."""
    skipped: tuple[Skipped, ...]
    """The file, if rows of it were left out."""

    def line(self, row: int) -> int:
        """Line of a row of the table, counting from 1."""
        return row + self.first if self.numbers is None else int(self.numbers[row])

    def refuse(self, row: int, what: str, value: object, remedy: str) -> LogError:
        """The error for a row of the table."""
        return LogError(f"{self.path}: row {self.line(row)}: {what} ({value!r}); {remedy}")


def identifier(column: str, names: Names | None = None) -> Field:
    """A column of ids, as numbers of `names` if given."""

    def parse(text: pl.Expr) -> pl.Expr:
        whole = pl.when(~_blank(text) & ~_of_lines(text)).then(text)
        return whole.cast(names.dtype) if names else whole

    return Field(column, parse, f"{column} is empty or runs over lines", "give an id")


def number(column: str, remedy: str, optional: bool = False) -> Field:
    """A column of finite numbers."""

    def parse(text: pl.Expr) -> pl.Expr:
        value = text.str.strip_chars().cast(pl.Float64, strict=False)
        return pl.when(value.is_finite()).then(value)

    return Field(column, parse, f"{column} is not a number", remedy, optional)


def words(column: str) -> Field:
    """A column of any text within a line, which may be blank."""

    def parse(text: pl.Expr) -> pl.Expr:
        return pl.when(~_of_lines(text)).then(text)

    return Field(column, parse, f"{column} runs over lines", "write it in one", optional=True)


def header(
    path: Path, layout: Layout = CSV, wanted: Sequence[str] = ("its columns",)
) -> tuple[str, ...]:
    """Names of the columns of a file; `wanted` says what an empty file lacks.

    Raises:
        LogError: it cannot be read, or is empty.
    """
    if layout.columns is not None:
        return layout.columns
    for _, line in _lines(path):
        names = _split(line.removeprefix(b"\xef\xbb\xbf"), layout)
        if isinstance(names, str):
            raise LogError(f"{path}: row 1: {names}; name the columns there")
        return tuple(names)
    raise LogError(f"{path}: the file is empty; it needs the header {','.join(wanted)}")


def read_rows(
    path: Path, fields: Sequence[Field], layout: Layout = CSV, max_bad: float = 0.0
) -> Rows:
    """Read the fields of a file.

    Args:
        max_bad: share of the rows that may not read and are then left out.

    Raises:
        LogError: a column is missing, or more rows do not read than are allowed to; the message
            names the first of them, how many there are, and what to do.
    """
    wanted = [field.column for field in fields]
    columns = header(path, layout, wanted)
    missing = [name for name in wanted if name not in columns]
    if missing:
        raise LogError(
            f"{path}: row 1: column {missing[0]!r} is missing; the header must hold "
            f"{','.join(wanted)}"
        )
    first = 1 if layout.columns else 2
    quickly = _at_once(path, fields, columns, layout)
    if quickly is not None:
        return Rows(path, quickly, None, first, ())
    return _one_by_one(path, fields, columns, layout, max_bad)


def _blank(text: pl.Expr) -> pl.Expr:
    return text.is_null() | (text.str.len_bytes() == 0)


def _of_lines(text: pl.Expr) -> pl.Expr:
    """Whether a field has a line break: an open quote ran rows together."""
    return text.str.contains("\n", literal=True)


def _at_once(
    path: Path, fields: Sequence[Field], columns: tuple[str, ...], layout: Layout
) -> pl.DataFrame | None:
    """The fields of a file of which every row reads; None of any other."""
    names = list(columns)
    if len(layout.separator) > 1:
        # Polars knows separators of one byte; what stands between two of them is a blank column.
        width = len(layout.separator)
        names = [f"{name}{gap or ''}" for name in columns for gap in range(width)]
        names = names[: 1 - width]
    try:
        table = (
            pl.scan_csv(
                path,
                has_header=layout.columns is None,
                schema=dict.fromkeys(names, pl.String),
                separator=layout.separator[0],
                quote_char='"' if layout.quoted else None,
            )
            .select(
                *(field.parse(pl.col(field.column)).alias(field.column) for field in fields),
                # A null of a field that may be blank is told from one that does not read.
                *(field.bad().alias(f"{field.column}\n") for field in fields if field.optional),
            )
            .collect(engine="streaming")
        )
    except (pl.exceptions.PolarsError, OSError):
        return None
    for field in fields:
        bad = (
            table[f"{field.column}\n"].any() if field.optional else table[field.column].has_nulls()
        )
        if bad:
            return None
    return table.select(field.column for field in fields)


def _one_by_one(
    path: Path, fields: Sequence[Field], columns: tuple[str, ...], layout: Layout, max_bad: float
) -> Rows:
    places = [columns.index(field.column) for field in fields]
    tables: list[pl.DataFrame] = []
    numbers: list[np.ndarray] = []
    examples: list[tuple[int, str, str]] = []
    rows = bad_rows = 0
    lines = _lines(path)
    if layout.columns is None:
        next(lines)
    while chunk := list(islice(lines, CHUNK_ROWS)):
        found, texts, wrong, short = [], [], [], {}
        for place, line in chunk:
            if not line:
                continue
            rows += 1
            parts = _split(line, layout)
            told = parts if isinstance(parts, str) else _misfit(len(parts), len(columns))
            if isinstance(parts, str) or len(parts) > len(columns):
                wrong.append((place, told, ANEW))
                continue
            # What is not there is blank, as it is to polars; that may do.
            if told:
                short[place] = told
            found.append(place)
            texts.append([parts[one] or None if one < len(parts) else None for one in places])
        table, number, unread = _parsed(found, texts, fields)
        tables.append(table)
        numbers.append(number)
        wrong += [
            (place, short[place], ANEW) if place in short else (place, what, remedy)
            for place, what, remedy in unread
        ]
        wrong.sort()
        bad_rows += len(wrong)
        examples += wrong[: _KEPT_REASONS - len(examples)]
    if bad_rows > max_bad * rows:
        raise LogError(_refusal(path, rows, bad_rows, examples))
    reasons = Counter(what.partition(" (")[0] for _, what, _ in examples)
    skipped = (Skipped(path.name, rows, bad_rows, dict(reasons)),) if bad_rows else ()
    table = pl.concat(tables) if tables else _parsed([], [], fields)[0]
    lines_of = np.concatenate(numbers) if numbers else np.zeros(0, np.int64)
    return Rows(path, table, lines_of, 0, skipped)


def _misfit(fields: int, columns: int) -> str:
    return "" if fields == columns else f"the row has {fields} fields instead of {columns}"


def _parsed(
    found: list[int], texts: list[list[str | None]], fields: Sequence[Field]
) -> tuple[pl.DataFrame, np.ndarray, list[tuple[int, str, str]]]:
    """Rows of texts, the fields of those that read, and of each other what is wrong with it."""
    raw = pl.DataFrame(
        texts, schema=dict.fromkeys((field.column for field in fields), pl.String), orient="row"
    )
    bad = raw.select(field.bad().alias(field.column) for field in fields)
    sound = ~pl.Series(bad.select(pl.any_horizontal(pl.all())).to_series())
    unread = []
    for row in (~sound).arg_true().to_list():
        field = next(field for field in fields if bad[field.column][row])
        value = raw[field.column][row]
        shown = "" if value is None else f" ({value[:60]!r})"
        unread.append((found[row], f"{field.what}{shown}", field.remedy))
    table = raw.filter(sound).select(
        field.parse(pl.col(field.column)).alias(field.column) for field in fields
    )
    return table, np.array(found, np.int64)[sound.to_numpy()], unread


def _refusal(path: Path, rows: int, bad: int, examples: Sequence[tuple[int, str, str]]) -> str:
    row, what, remedy = examples[0]
    share = bad / rows
    others = ", ".join(str(other) for other, _, _ in examples[1:NAMED_ROWS])
    others = f", also rows {others}{', …' if bad > NAMED_ROWS else ''}" if others else ""
    # Rounded up, so that what it says suffices.
    enough = np.ceil(share * 1000) / 1000
    return (
        f"{path}: row {row}: {what}; {remedy}. {bad:,} of {rows:,} rows ({share:.1%}) do not "
        f"read{others}: mend them, or leave them out with --max-bad-rows {enough:g}"
    )


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbers, from 1, and bytes of the lines of a file, without their ends."""
    try:
        with opened(path) as file:
            for place, line in enumerate(file, 1):
                yield place, line.rstrip(b"\r\n")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise LogError(
            f"{path}: cannot be read ({error}): damaged or cut short; write it again"
        ) from error
    except OSError as error:
        raise gone(path, error) from error


def opened(path: Path) -> IO[bytes]:
    """A file, unpacked if its name ends in .gz."""
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _split(line: bytes, layout: Layout) -> list[str] | str:
    """The fields of a line, or what is wrong with it."""
    try:
        text = line.decode(errors=layout.encoding_errors)
    except UnicodeDecodeError:
        return "the row is not UTF-8"
    if layout.quoted and '"' in text:
        try:
            return next(csv.reader([text], delimiter=layout.separator, strict=True))
        except csv.Error:
            return "the row has a quote out of place"
    return text.split(layout.separator)
