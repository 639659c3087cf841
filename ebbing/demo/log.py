"""Reading a log in the plain CSV format, row by row.

``events.csv[.gz]`` has ``user_id,item_id,event_type,event_time`` (UTC seconds); ``items.csv[.gz]``
has ``item_id,interests`` with several paths joined by ``|``.
"""

from __future__ import annotations

import csv
import gzip
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ebbing.cli import CommandError
from ebbing.events import EventType, event_type_from_name

__all__ = ["Log", "LoggedEvent", "read_log"]


class LoggedEvent(NamedTuple):
    """One row of the log."""

    user_id: str
    item_id: str
    event_type: EventType
    time: float
    """UTC seconds."""


@dataclass(frozen=True)
class Log:
    """A log in memory."""

    events: tuple[LoggedEvent, ...]
    """In the order of the file, which is the true order among equal times."""
    interests: dict[str, tuple[str, ...]]
    """Paths of each item of the catalogue, by item id."""


def read_log(folder: Path) -> Log:
    """Read the log in a folder.

    Raises:
        CommandError: names the file, the row and the remedy.
    """
    if not folder.is_dir():
        raise CommandError(f"{folder}: no such folder; give the one that holds events.csv[.gz]")
    interests = {}
    for _, (item_id, paths) in _rows(folder, "items", ("item_id", "interests")):
        interests[item_id] = tuple(dict.fromkeys(p.strip() for p in paths.split("|") if p.strip()))
    events = tuple(_events(folder))
    if not events:
        raise CommandError(f"{folder}: the log has no events; there is nothing to show")
    return Log(events, interests)


def _events(folder: Path) -> Iterator[LoggedEvent]:
    kinds: dict[str, EventType] = {}
    columns = ("user_id", "item_id", "event_type", "event_time")
    for place, (user_id, item_id, kind, time) in _rows(folder, "events", columns):
        try:
            if kind not in kinds:
                kinds[kind] = event_type_from_name(kind)
            seconds = float(time)
        except ValueError as error:
            raise CommandError(f"{place}: {error}") from None
        if not math.isfinite(seconds) or not user_id:
            raise CommandError(f"{place}: give a user_id, and event_time in UTC seconds")
        yield LoggedEvent(user_id, item_id, kinds[kind], seconds)


def _rows(
    folder: Path, name: str, columns: tuple[str, ...]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each row's place, for messages, and its fields in the order of ``columns``."""
    path = folder / f"{name}.csv.gz"
    opener = gzip.open
    if not path.is_file():
        path = folder / f"{name}.csv"
        if not path.is_file():
            raise CommandError(f"{folder}: {name}.csv[.gz] is missing; a log has it")
        opener = open  # type: ignore[assignment]
    try:
        with opener(path, "rt", encoding="utf-8", newline="") as text:
            reader = csv.reader(text)
            header = next(reader, [])
            if missing := [column for column in columns if column not in header]:
                raise CommandError(
                    f"{path}: row 1: no column {missing[0]}; the header must be {','.join(columns)}"
                )
            places = [header.index(column) for column in columns]
            for row in reader:
                place = f"{path}: row {reader.line_num}"
                if len(row) != len(header):
                    raise CommandError(
                        f"{place}: {len(row)} fields where the header has {len(header)}"
                    )
                yield place, tuple(row[index] for index in places)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise CommandError(f"{path}: cannot be read ({error}); write it again") from error
