"""Rows of event logs in files: CSV, plain or gzipped, and Parquet.

Nothing is judged here but whether there is a row at all; a row that is none is told as such, and
the next one is read.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from ebbing.exported import parts, progress

__all__ = ["BadRow", "FileError", "Row", "Rows", "csv_rows", "event_files"]

PAGE = 50_000
"""Rows of a Parquet file read at once."""
CSV_SUFFIXES = (".csv", ".csv.gz")
PARQUET_SUFFIX = ".parquet"


class FileError(Exception):
    """A file that cannot be read; the message names it and the remedy."""


class Row(NamedTuple):
    """One row; what a file has no column for is None."""

    file: int
    """Which file."""
    line: int
    """Row number, from 1, the header not counted; unlike lines it tells rows of any file apart."""
    event_id: str | None
    user_id: str | None
    item_id: str | None
    event_type: str | None
    event_time: str | int | None
    """Text as it is in a CSV file: seconds; a number from Parquet: microseconds."""
    value: str | float | None
    query: str | None
    session_id: str | None
    attribution_token: str | None
    interests: str | list[dict[str, Any]] | None
    """Text: paths joined by ``|``; a list: as they were exported, names and shares."""
    weight: float | None
    """Only in exports."""
    body: bytes | None
    """Only in exports."""


class BadRow(NamedTuple):
    """A row that is left out."""

    file: int
    line: int
    reason: str


EVENT_COLUMNS = Row._fields[2:]
CSV_COLUMNS = EVENT_COLUMNS[:-2]


def event_files(source: Path) -> list[Path]:
    """The files of events in what a person names: a file, a log in a folder, an export.

    Raises:
        FileError: there is none.
        ExportError: it is an export that cannot be read.
    """
    if source.is_file():
        if not source.name.endswith((*CSV_SUFFIXES, PARQUET_SUFFIX)):
            raise FileError(f"{source}: neither .csv, .csv.gz nor .parquet: name such a file")
        return [source]
    if not source.is_dir():
        raise FileError(f"{source}: no such file or folder")
    if progress(source) is not None:
        found = parts(source)
    else:
        log = [source / f"events{suffix}" for suffix in reversed(CSV_SUFFIXES)]
        found = [path for path in log if path.is_file()][:1] or sorted(source.rglob("*.parquet"))
    if not found:
        raise FileError(f"{source}: holds neither events.csv[.gz] nor Parquet files")
    return found


class Rows:
    """The rows of files, one file after the other."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Set up; nothing is read yet.

        Raises:
            FileError: a file is not there.
        """
        self._paths = paths
        try:
            self._bytes = [path.stat().st_size for path in paths]
        except OSError as error:
            raise FileError(f"{error.filename}: cannot be read ({error.strerror})") from error
        self._read = 0.0

    @property
    def share(self) -> float:
        """How much of all bytes was read, 0 … 1."""
        return self._read / max(1, sum(self._bytes))

    def __iter__(self) -> Iterator[Row | BadRow]:
        """Read.

        Raises:
            FileError: a file cannot be read, or lacks a column.
        """
        for file, path in enumerate(self._paths):
            if path.name.endswith(PARQUET_SUFFIX):
                yield from self._parquet(file, path)
            else:
                yield from self._csv(file, path)
            self._read = float(sum(self._bytes[: file + 1]))

    def _csv(self, file: int, path: Path) -> Iterator[Row | BadRow]:
        before = self._read
        for line, values, read in csv_rows(path, CSV_COLUMNS, ("user_id", "event_time")):
            self._read = before + read
            if isinstance(values, str):
                yield BadRow(file, line, values)
            else:
                yield Row(file, line, *values, None, None)  # type: ignore[call-arg, arg-type]

    def _parquet(self, file: int, path: Path) -> Iterator[Row]:
        before = self._read
        try:
            table = pl.scan_parquet(path)
            columns = _parquet_columns(path, dict(table.collect_schema()))
            count = table.select(pl.len()).collect().item()
            for first in range(0, count, PAGE):
                page = table.slice(first, PAGE).select(columns).collect()
                for line, values in enumerate(page.iter_rows(), first + 1):
                    yield Row(file, line, *values)
                self._read = before + self._bytes[file] * min(1.0, (first + PAGE) / count)
        except (pl.exceptions.PolarsError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise FileError(f"{path}: cannot be read ({reason}): write it again") from error


def csv_rows(
    path: Path, columns: Sequence[str], required: Sequence[str]
) -> Iterator[tuple[int, list[str | None] | str, int]]:
    """Rows of a CSV file: number, values in the order of ``columns``, bytes of the file read.

    Of a row that is none, the reason is in place of the values. A column that the file does not
    have gives None.

    Raises:
        FileError: the file cannot be read, or lacks a required column.
    """
    line = 0
    try:
        with path.open("rb") as raw:
            unpacked = gzip.GzipFile(fileobj=raw) if path.name.endswith(".gz") else raw
            # One byte that is no UTF-8 is the fault of its row alone.
            text = io.TextIOWrapper(
                unpacked, encoding="utf-8-sig", errors="surrogateescape", newline=""
            )
            reader = csv.reader(text)
            header = [name.strip() for name in next(reader, [])]
            if missing := [name for name in required if name not in header]:
                raise FileError(
                    f"{path}: no column {missing[0]}: its first line must name the columns, such as"
                    f" {','.join(required)}"
                )
            places = [header.index(name) if name in header else None for name in columns]
            while True:
                line += 1
                try:
                    row = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield line, f"is no CSV ({error})", raw.tell()
                    continue
                if len(row) != len(header):
                    if row:  # a blank line is nothing
                        reason = f"has {len(row)} fields where the header has {len(header)}"
                        yield line, reason, raw.tell()
                    continue
                yield (
                    line,
                    [None if place is None else row[place] for place in places],
                    raw.tell(),
                )
    except (OSError, EOFError, zlib.error) as error:
        raise FileError(f"{path}: cannot be read after row {line} ({error})") from error


def _parquet_columns(path: Path, schema: dict[str, pl.DataType]) -> list[pl.Expr]:
    if missing := [name for name in ("user_id", "event_time") if name not in schema]:
        raise FileError(f"{path}: no column {missing[0]}: a log has user_id and event_time")
    return [
        _as_read(name, schema[name]).alias(name) if name in schema else pl.lit(None).alias(name)
        for name in EVENT_COLUMNS
    ]


def _as_read(name: str, kind: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if name == "event_time":
        if isinstance(kind, pl.Datetime):
            return column.dt.timestamp("us")
        seconds = column.cast(pl.Float64, strict=False)
        micros = column * 10**6 if kind.is_integer() else (seconds * 1e6).round()
        return pl.when(seconds.abs() < 2**42).then(micros.cast(pl.Int64, strict=False))
    if name == "interests":
        listed = isinstance(kind, pl.List) and kind.inner == pl.String
        return column.list.join("|") if listed else column
    if name == "body":
        return column
    number = name in {"value", "weight"}
    return column.cast(pl.Float64 if number else pl.String, strict=False)
