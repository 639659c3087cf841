"""The event log in memory, and its reader.

Two formats are read. An export of the gateway's log, as `ebbing events export` writes it; and the
plain CSV format: `events.csv[.gz]` with `user_id,item_id,event_type,event_time` (UTC seconds),
`items.csv[.gz]` with `item_id,interests` (paths joined by `|`), and optionally
`relations.csv[.gz]` with `user_id,other_user_id`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import polars as pl

from ebbing.events import DEFAULT_EVENT_WEIGHTS, EventType, event_type_from_name
from ebbing.exported import ExportError
from trainer.data.exported import Interests, is_export, read_export


class LogError(Exception):
    """A log that cannot be read; the message names the file, the row and the remedy."""


@dataclass(frozen=True)
class EventLog:
    """Events as columns, grouped by user and ordered by time within a user.

    Events of equal time keep the order they were given in.
    """

    user_ids: tuple[str, ...]
    """User index → id."""
    item_ids: tuple[str, ...]
    """Item index → id: the whole catalogue, whether an item has events or not."""
    interests: tuple[Interests, ...]
    """Item index → its (path, share) pairs; shares add up to 1, none for an item without any."""
    users: np.ndarray
    """(E,) int64 user indexes, ascending."""
    items: np.ndarray
    """(E,) int64 item indexes."""
    types: np.ndarray
    """(E,) int32 `EventType` numbers."""
    times: np.ndarray
    """(E,) float64 seconds since the epoch, ascending within a user."""
    offsets: np.ndarray
    """(U + 1,) int64: the events of user u are `offsets[u]:offsets[u + 1]`."""
    relations: np.ndarray
    """(R, 2) int64 pairs of user indexes; (0, 2) where the log has none."""
    contents: Mapping[str, np.ndarray]
    """Modality → (I, D) float32 content vectors, as they were given and not scaled; an item
    without any has a row of NaN."""
    profiles: np.ndarray
    """(U, D) float32 numbers about users, not scaled; (U, 0) where the log has none."""

    @classmethod
    def of(
        cls,
        user_ids: Sequence[str],
        item_ids: Sequence[str],
        interests: Iterable[Interests],
        users: np.ndarray,
        items: np.ndarray,
        types: np.ndarray,
        times: np.ndarray,
        relations: np.ndarray | None = None,
        contents: Mapping[str, np.ndarray] = MappingProxyType({}),
        profiles: np.ndarray | None = None,
    ) -> EventLog:
        """Group and order columns of any order; see the fields for shapes."""
        order = np.lexsort((times, users))
        counts = np.bincount(users, minlength=len(user_ids))
        return cls(
            user_ids=tuple(user_ids),
            item_ids=tuple(item_ids),
            interests=tuple(interests),
            users=users[order].astype(np.int64),
            items=items[order].astype(np.int64),
            types=types[order].astype(np.int32),
            times=times[order].astype(np.float64),
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            relations=np.zeros((0, 2), np.int64) if relations is None else relations,
            contents=MappingProxyType(dict(contents)),
            profiles=np.zeros((len(user_ids), 0), np.float32) if profiles is None else profiles,
        )

    def __len__(self) -> int:
        return len(self.times)

    def last_events(self) -> np.ndarray:
        """Event number of the last event of each user who has more than one."""
        return self.offsets[1:][np.diff(self.offsets) > 1] - 1

    def without(self, events: np.ndarray) -> EventLog:
        """The log without the events of these numbers; users and items keep their indexes."""
        keep = np.ones(len(self), bool)
        keep[events] = False
        return self._where(keep)

    def engagements(self) -> EventLog:
        """The log without what shows no interest: dislikes, and impressions that led to nothing."""
        idle = [kind for kind, weight in DEFAULT_EVENT_WEIGHTS.items() if not weight]
        return self._where(~np.isin(self.types, idle))

    def until(self, time: float) -> EventLog:
        """The log's events up to and at `time`; users and items keep their indexes."""
        return self._where(self.times <= time)

    def _where(self, keep: np.ndarray) -> EventLog:
        return EventLog.of(
            self.user_ids,
            self.item_ids,
            self.interests,
            self.users[keep],
            self.items[keep],
            self.types[keep],
            self.times[keep],
            self.relations,
            self.contents,
            self.profiles,
        )


def read_log(folder: Path) -> EventLog:
    """Read the log in `folder`: CSV, or an export.

    `items.csv[.gz]` and `relations.csv[.gz]` may lie beside an export; the items in it are then
    about what it says, and the catalogue is larger than what had events.

    Raises:
        LogError: a file or column is missing, a row is malformed, or there is no event.
    """
    if not folder.is_dir():
        raise LogError(f"{folder}: no such folder; give one with events.csv[.gz], or an export")
    if is_export(folder):
        events, items = _exported(folder)
    else:
        events, items = _events(folder), _items(folder)
    user_ids = events["user_id"].unique(maintain_order=True).to_list()
    in_catalogue = set(items)
    uncatalogued = [
        item
        for item in events["item_id"].unique(maintain_order=True).to_list()
        if item not in in_catalogue
    ]
    item_ids = [*items, *uncatalogued]
    user_index = {user: index for index, user in enumerate(user_ids)}
    return EventLog.of(
        user_ids,
        item_ids,
        [items.get(item, ()) for item in item_ids],
        _indexes(events["user_id"], user_index),
        _indexes(events["item_id"], {item: index for index, item in enumerate(item_ids)}),
        events["type"].to_numpy(),
        events["time"].to_numpy(),
        _relations(folder, user_index),
    )


def parse_interests(text: str | None) -> Interests:
    """`a/b|c` → (("a/b", 0.5), ("c", 0.5)): equal shares, repeated paths once, blanks dropped."""
    paths = tuple(dict.fromkeys(path.strip() for path in (text or "").split("|") if path.strip()))
    return tuple((path, 1.0 / len(paths)) for path in paths)


def _exported(folder: Path) -> tuple[pl.DataFrame, dict[str, Interests]]:
    try:
        events, items = read_export(folder)
    except ExportError as error:
        raise LogError(str(error)) from error
    if _there(folder, "items"):
        items |= _items(folder)
    return events, items


def _events(folder: Path) -> pl.DataFrame:
    path = _find(folder, "events")
    table = _read(path, ("user_id", "item_id", "event_type", "event_time"))
    if table.is_empty():
        raise LogError(f"{path}: no events; a log needs at least one row below the header")
    for column in ("user_id", "item_id"):
        _refuse(path, table[column].is_null(), table[column], f"{column} is empty", "give an id")
    table = table.with_columns(time=pl.col("event_time").cast(pl.Float64, strict=False))
    _refuse(
        path,
        ~table["time"].is_finite().fill_null(False),
        table["event_time"],
        "event_time is not a number",
        "write UTC seconds, such as 1717200000",
    )
    numbers: dict[str, int] = {}
    for name in table["event_type"].unique().to_list():
        try:
            numbers[name] = int(event_type_from_name(name or ""))
        except ValueError:
            known = ", ".join(kind.name.lower() for kind in EventType if kind)
            _refuse(
                path,
                table["event_type"].eq_missing(pl.Series([name], dtype=pl.String)),
                table["event_type"],
                "unknown event_type",
                f"use one of {known}",
            )
    return table.with_columns(
        type=pl.col("event_type").replace_strict(numbers, return_dtype=pl.Int32)
    )


def _items(folder: Path) -> dict[str, Interests]:
    path = _find(folder, "items")
    table = _read(path, ("item_id", "interests"))
    ids = table["item_id"]
    _refuse(path, ids.is_null(), ids, "item_id is empty", "give an id")
    _refuse(path, ~ids.is_first_distinct(), ids, "item_id appears twice", "keep one row an item")
    return {
        item: parse_interests(text)
        for item, text in zip(ids.to_list(), table["interests"].to_list(), strict=True)
    }


def _relations(folder: Path, user_index: dict[str, int]) -> np.ndarray:
    path = _there(folder, "relations")
    if path is None:
        return np.zeros((0, 2), np.int64)
    table = _read(path, ("user_id", "other_user_id"))
    pairs = [
        (user_index[one], user_index[other])
        for one, other in table.select("user_id", "other_user_id").iter_rows()
        if one in user_index and other in user_index
    ]
    return np.array(pairs, np.int64).reshape(-1, 2)


def _there(folder: Path, name: str) -> Path | None:
    for path in (folder / f"{name}.csv.gz", folder / f"{name}.csv"):
        if path.is_file():
            return path
    return None


def _find(folder: Path, name: str) -> Path:
    if path := _there(folder, name):
        return path
    raise LogError(
        f"{folder / name}.csv[.gz]: missing; the folder needs events.csv[.gz] and items.csv[.gz]"
    )


def _read(path: Path, columns: Sequence[str]) -> pl.DataFrame:
    try:
        table = pl.read_csv(path, infer_schema=False)
    except pl.exceptions.NoDataError:
        raise LogError(
            f"{path}: the file is empty; it needs the header {','.join(columns)}"
        ) from None
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise LogError(f"{path}: cannot be read as CSV ({reason}); write it again") from error
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise LogError(
            f"{path}: row 1: column {missing[0]!r} is missing; "
            f"the header must hold {','.join(columns)}"
        )
    return table


def _refuse(path: Path, bad: pl.Series, values: pl.Series, what: str, remedy: str) -> None:
    """Raise for the first row `bad` marks, if any; rows count from 1 with the header as row 1."""
    row = bad.arg_max() if bad.any() else None
    if row is not None:
        value = values[row]
        shown = "" if value is None else f" ({value!r})"
        raise LogError(f"{path}: row {row + 2}: {what}{shown}; {remedy}")


def _indexes(column: pl.Series, index: dict[str, int]) -> np.ndarray:
    return column.replace_strict(index, return_dtype=pl.Int64).to_numpy()
