"""The event log as `ebbing events export` writes it: Parquet, a folder a day."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from ebbing.events import event_type_from_name
from ebbing.exported import ExportError, parts, progress

Interests = tuple[tuple[str, float], ...]


def is_export(folder: Path) -> bool:
    """Whether an export was begun in a folder."""
    try:
        return progress(folder) is not None
    except ExportError:
        return True


def read_export(folder: Path) -> tuple[pl.DataFrame, dict[str, Interests]]:
    """Events with items of an export, and what its items are about.

    Parts of an export that is under way, or was ended, are left out until they are whole. An item
    is about what it was about at its newest event; interests that events brought themselves say
    something of their item only where no other event does.

    Returns:
        Events, ordered by time and among equal times by the byte order of their ids, with the
        columns `user_id`, `item_id`, `type` (`EventType` number) and `time` (UTC seconds); and
        interests by item id, whose shares add up to 1.

    Raises:
        ExportError: there is no event with an item, or the export cannot be read.
    """
    paths = parts(folder)
    if not paths:
        raise ExportError(f"{folder}: the export has no events yet: run it to its end first")
    try:
        events = (
            pl.scan_parquet(paths)
            .filter(pl.col("item_id").is_not_null())
            .select(
                "event_id",
                "user_id",
                "item_id",
                "interests",
                "event_time",
                type=pl.col("event_type").replace_strict(_types(paths), return_dtype=pl.Int32),
                time=pl.col("event_time").dt.timestamp("us") / 1e6,
                own=pl.col("body").is_not_null(),
            )
            .sort("event_time", "event_id")
            .collect()
        )
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ExportError(f"{folder}: cannot be read ({reason}): export it again") from error
    if events.is_empty():
        raise ExportError(f"{folder}: no event of the export has an item; models learn from items")
    newest = (
        events.filter(pl.col("interests").list.len() > 0)
        .sort(pl.col("own").not_(), maintain_order=True)
        .group_by("item_id", maintain_order=True)
        .agg(pl.col("interests").last())
    )
    items = {item: _shared(interests) for item, interests in newest.iter_rows()}
    return events.select("user_id", "item_id", "type", "time"), items


def _types(paths: list[Path]) -> dict[str, int]:
    names = pl.scan_parquet(paths).select(pl.col("event_type").unique()).collect()["event_type"]
    try:
        return {name: int(event_type_from_name(name)) for name in names}
    except ValueError as error:
        raise ExportError(f"{paths[0].parents[1]}: {error}") from error


def _shared(interests: list[dict[str, float]]) -> Interests:
    whole = sum(one["share"] for one in interests)
    return tuple((str(one["name"]), one["share"] / whole) for one in interests)
