"""The plain format: a file of events, one of items, and what may lie beside them.

`events.csv[.gz]` with `user_id,item_id,event_type,event_time`, `items.csv[.gz]` with
`item_id,interests` (paths joined by `|`), optionally `relations.csv[.gz]` with
`user_id,other_user_id[,strength]`, and `contents/<modality>.parquet|csv[.gz]` with `item_id` and
the numbers of its vector.
"""

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
    Vectors,
    gone,
    parse_interests,
)
from trainer.data.rows import CSV, Field, Rows, header, identifier, number, read_rows, words
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
    return RawLog(
        "plain", events, catalogue, read_contents(folder), skipped=(*rows.skipped, *skipped)
    )


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


def read_relations(folder: Path, max_bad: float) -> tuple[pl.DataFrame | None, tuple[Skipped, ...]]:
    """`user_id`, `other_user_id` and `strength` of relations, where the folder has them.

    Raises:
        LogError: they do not read.
    """
    path = there(folder, "relations")
    if path is None:
        return None, ()
    fields = [identifier("user_id"), identifier("other_user_id")]
    if "strength" in header(path):
        fields.append(_positive("strength"))
    rows = read_rows(path, fields, CSV, max_bad)
    return rows.table, rows.skipped


def read_contents(folder: Path) -> dict[str, Vectors]:
    """Content vectors by modality: the files of `contents/`, named for it.

    Raises:
        LogError: a file does not read, has an item twice, or a vector of another width.
    """
    found: dict[str, Vectors] = {}
    for path in sorted((folder / "contents").glob("*")):
        modality, _, ending = path.name.partition(".")
        if ending == "parquet":
            found[modality] = _parquet_vectors(path)
        elif ending in ("csv", "csv.gz"):
            columns = [name for name in header(path) if name != "item_id"]
            rows = read_rows(
                path,
                (
                    identifier("item_id"),
                    *(number(name, "write a number, or nothing", True) for name in columns),
                ),
            )
            refuse_twice(rows, "item_id")
            found[modality] = Vectors(
                rows.table["item_id"].to_list(),
                rows.table.select(columns).to_numpy().astype(np.float32),
            )
    return found


def _parquet_vectors(path: Path) -> Vectors:
    """An `item_id` column beside one column of lists, or several of numbers."""
    try:
        table = pl.read_parquet(path)
    except OSError as error:
        raise gone(path, error) from error
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        raise LogError(f"{path}: cannot be read as Parquet ({reason}); write it again") from error
    columns = [name for name in table.columns if name != "item_id"]
    if "item_id" not in table.columns or not columns:
        raise LogError(f"{path}: needs a column item_id and a vector beside it")
    ids = table["item_id"].cast(pl.String)
    for bad, what in ((ids.is_null(), "is empty"), (~ids.is_first_distinct(), "appears twice")):
        if bad.any():
            raise LogError(
                f"{path}: row {bad.arg_max() + 1}: item_id {what}; give each item one row"
            )
    if len(columns) == 1 and isinstance(table.schema[columns[0]], pl.List | pl.Array):
        lists = table[columns[0]].cast(pl.List(pl.Float32))
        widths = lists.list.len()
        width = int(widths.drop_nulls().first() or 0)
        other = (widths != width).fill_null(False)
        if other.any():
            raise LogError(
                f"{path}: row {other.arg_max() + 1}: a vector of {widths[other.arg_max()]} numbers "
                f"among vectors of {width}; write vectors of one length"
            )
        values = np.full((len(ids), width), np.nan, np.float32)
        values[lists.is_not_null().to_numpy()] = (
            lists.drop_nulls().explode().to_numpy().reshape(-1, width)
        )
        return Vectors(ids.to_list(), values)
    try:
        numbers = table.select(pl.col(columns).cast(pl.Float32))
    except pl.exceptions.PolarsError as error:
        raise LogError(
            f"{path}: a column beside item_id holds no numbers; leave it out of contents/"
        ) from error
    return Vectors(ids.to_list(), numbers.to_numpy())


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


def _positive(column: str) -> Field:
    plain = number(column, "write a number above 0")

    def parse(text: pl.Expr) -> pl.Expr:
        value = plain.parse(text)
        return pl.when(value > 0).then(value)

    return Field(column, parse, f"{column} is not a number above 0", plain.remedy)
