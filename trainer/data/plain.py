"""The plain format: `events.csv` with `user_id,item_id,event_type,event_time`, and `items.csv` with
`item_id,interests` (paths joined by `|`). Each may be packed with gzip."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from ebbing.events import EVENT_TYPE_ALIASES, EventType
from trainer.data.memory import check_memory
from trainer.data.raw import (
    Interests,
    LogError,
    Names,
    RawEvents,
    RawLog,
    Skipped,
    parse_interests,
)
from trainer.data.rows import CSV, Field, Rows, identifier, number, read_rows, words
from trainer.data.times import in_seconds

SECONDS = "write UTC seconds, such as 1717200000"
_KNOWN = [kind for kind in EventType if kind]


def read_plain(folder: Path, max_bad: float, available: int | None) -> RawLog:
    """Read the plain format; see `read_rows` and `check_memory`.

    Raises:
        LogError: a file or column is missing, a row is malformed, or there is no event.
    """
    path = find(folder, "events")
    check_memory(path, available)
    users, items = Names(), Names()
    rows = read_rows(
        path,
        (
            identifier("user_id", users),
            identifier("item_id", items),
            _event_type("event_type"),
            number("event_time", SECONDS),
        ),
        CSV,
        max_bad,
    )
    events = raw_events(
        rows,
        (users, "user_id"),
        (items, "item_id"),
        rows.table["event_type"].to_numpy(),
        in_seconds(rows, "event_time"),
    )
    catalogue, skipped = read_items(find(folder, "items"), max_bad)
    return RawLog("plain", events, catalogue, skipped=(*rows.skipped, *skipped))


def raw_events(
    rows: Rows,
    users: tuple[Names, str],
    items: tuple[Names, str],
    types: np.ndarray,
    times: np.ndarray,
) -> RawEvents:
    """Events of rows whose ids are in the named columns.

    Raises:
        LogError: there is none.
    """
    if rows.table.is_empty():
        raise LogError(f"{rows.path}: no events; a log needs at least one row that reads")
    user_ids, user = users[0].encode(rows.table[users[1]])
    item_ids, item = items[0].encode(rows.table[items[1]])
    return RawEvents(user_ids, item_ids, user, item, types, times)


def read_items(path: Path, max_bad: float) -> tuple[dict[str, Interests], tuple[Skipped, ...]]:
    """The catalogue of `items.csv`, and what of it was left out.

    Raises:
        LogError: it does not read, or has an item twice.
    """
    rows = read_rows(path, (identifier("item_id"), words("interests")), CSV, max_bad)
    refuse_twice(rows, "item_id")
    ids, interests = rows.table["item_id"].to_list(), rows.table["interests"].to_list()
    catalogue = {item: parse_interests(text) for item, text in zip(ids, interests, strict=True)}
    return catalogue, rows.skipped


def refuse_twice(rows: Rows, column: str) -> None:
    """Refuse rows of which two have one id.

    Raises:
        LogError: two have.
    """
    ids = rows.table[column]
    again = (~ids.is_first_distinct()).arg_true()
    if len(again):
        row = int(again[0])
        raise rows.refuse(
            row, f"{column} appears twice", ids[row], f"keep one row for each {column}"
        )


def there(folder: Path, name: str) -> Path | None:
    """The file `name.csv` of a folder, packed or not, if there is one."""
    for path in (folder / f"{name}.csv.gz", folder / f"{name}.csv"):
        if path.is_file():
            return path
    return None


def find(folder: Path, name: str) -> Path:
    """The file `name.csv` of a folder.

    Raises:
        LogError: there is none.
    """
    if path := there(folder, name):
        return path
    raise LogError(
        f"{folder / name}.csv[.gz]: missing; the folder needs events.csv[.gz] and items.csv[.gz]"
    )


def _event_type(column: str) -> Field:
    spelled: Mapping[str, int] = {
        name.lower().replace("_", between): int(kind)
        for name, kind in (
            *((kind.name, kind) for kind in _KNOWN),
            *EVENT_TYPE_ALIASES.items(),
        )
        for between in "_- "
    }
    return Field(
        column,
        lambda text: (
            text.str.strip_chars()
            .str.to_lowercase()
            .replace_strict(spelled, default=None, return_dtype=pl.Int32)
        ),
        f"unknown {column}",
        f"use one of {', '.join(kind.name.lower() for kind in _KNOWN)}",
    )
