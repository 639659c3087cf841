"""The event log as `ebbing events export` writes it: Parquet, a folder a day."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from ebbing.events import event_type_from_name
from ebbing.exported import ExportError, parts, progress
from trainer.data.memory import refuse_above
from trainer.data.raw import Interests, Names, RawEvents, RawLog, gone

GROUP_BYTES = 16 << 20
"""Days are read together up to so many bytes of files, and one that has more by itself."""


def is_export(folder: Path) -> bool:
    """Whether an export was begun in a folder."""
    try:
        return progress(folder) is not None
    except ExportError:
        return True


def read_export(folder: Path, available: int | None = None) -> RawLog:
    """Events with items of an export, and what its items are about.

    Parts of an export that is under way, or was ended, are left out until they are whole. Events
    are ordered by time and among equal times by the byte order of their ids. An item is about what
    it was about at its newest event; interests that events brought themselves say something of
    their item only where no other event does.

    Args:
        available: see `check_memory`.

    Raises:
        ExportError: there is no event with an item, or the export cannot be read.
        LogError: too little memory, or a part goes away meanwhile.
    """
    paths = parts(folder)
    if not paths:
        raise ExportError(f"{folder}: the export has no events yet: run it to its end first")
    users, items = Names(), Names()
    events: list[pl.DataFrame] = []
    about: list[pl.DataFrame] = []
    try:
        if available is not None:
            count = pl.scan_parquet(paths).select(pl.len()).collect().item()
            refuse_above(folder, count, available)
        types = _types(paths)
        for group in _groups(paths):
            one, newest = _read(group, types, users, items)
            events.append(one)
            about.append(newest)
    except FileNotFoundError as error:
        raise gone(folder, error) from error
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ExportError(f"{folder}: cannot be read ({reason}): export it again") from error
    table = pl.concat(events)
    if table.is_empty():
        raise ExportError(f"{folder}: no event of the export has an item; models learn from items")
    user_ids, user = users.encode(table["user_id"])
    item_ids, item = items.encode(table["item_id"])
    newest = _newest(pl.concat(about)).select(pl.col("item_id").cast(pl.String), "interests")
    shown = {item: _shared(interests) for item, interests in newest.iter_rows()}
    return RawLog(
        "export",
        RawEvents(
            user_ids, item_ids, user, item, table["type"].to_numpy(), table["time"].to_numpy()
        ),
        {item: shown[item] for item in item_ids if item in shown},
    )


def _groups(paths: list[Path]) -> Iterator[list[Path]]:
    """Parts of whole days, in the order of time."""
    days: dict[str, list[Path]] = {}
    for path in paths:
        days.setdefault(path.parent.name, []).append(path)
    group: list[Path] = []
    size = 0
    for day in sorted(days):
        more = sum(path.stat().st_size for path in days[day])
        if group and size + more > GROUP_BYTES:
            yield group
            group, size = [], 0
        group += days[day]
        size += more
    if group:
        yield group


def _read(
    paths: list[Path], types: dict[str, int], users: Names, items: Names
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The events of some days in order, and what their items were about last."""
    events = (
        pl.scan_parquet(paths)
        .filter(pl.col("item_id").is_not_null())
        .select(
            pl.col("user_id").cast(users.dtype),
            pl.col("item_id").cast(items.dtype),
            "interests",
            "event_time",
            "event_id",
            type=pl.col("event_type").replace_strict(types, return_dtype=pl.Int32),
            own=pl.col("body").is_not_null(),
        )
        .sort("event_time", "event_id")
        .collect()
    )
    time = (pl.col("event_time").dt.timestamp("us") / 1e6).alias("time")
    return events.select("user_id", "item_id", "type", time), _newest(events)


def _newest(events: pl.DataFrame) -> pl.DataFrame:
    """Of each item, the interests of its last event that has any; such that are of the item first.

    Several answers one after the other, asked again, give the answer for all of them.
    """
    return (
        events.filter(pl.col("interests").list.len() > 0)
        .sort(pl.col("own").not_(), maintain_order=True)
        .group_by("item_id", maintain_order=True)
        .agg(pl.col("interests", "own").last())
    )


def _types(paths: list[Path]) -> dict[str, int]:
    names = pl.scan_parquet(paths).select(pl.col("event_type").unique()).collect()["event_type"]
    try:
        return {name: int(event_type_from_name(name)) for name in names}
    except ValueError as error:
        raise ExportError(f"{paths[0].parents[1]}: {error}") from error


def _shared(interests: list[dict[str, float]]) -> Interests:
    whole = sum(one["share"] for one in interests)
    return tuple((str(one["name"]), one["share"] / whole) for one in interests)
