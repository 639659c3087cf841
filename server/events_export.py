"""The event log written out as Parquet, a part at a time, so that it can be ended at any moment.

What was read is gathered and written as one part a day; then the progress file is replaced, which
is what makes the parts count. An export that is begun again goes on behind the last of them.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import polars as pl

from ebbing.durable import sync
from ebbing.events import EventType
from ebbing.exported import (
    FORMAT,
    PROGRESS_FILE,
    STRAY_FILES,
    ExportError,
    all_parts,
    part_path,
    progress,
)
from ebbing.v1.user_event_pb2 import UserEvent
from server.state.store import Interaction, Store

__all__ = ["COLUMNS", "Export", "Window", "body_of", "export"]

COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "event_id": pl.String,
    "user_id": pl.String,
    "item_id": pl.String,
    "event_type": pl.String,
    "event_time": pl.Datetime("us", "UTC"),
    "value": pl.Float64,
    "query": pl.String,
    "session_id": pl.String,
    "attribution_token": pl.String,
    "interests": pl.List(pl.Struct({"name": pl.String, "share": pl.Float64})),
    "weight": pl.Float64,
    "body": pl.Binary,
}
"""Columns of a part. ``body`` is null, unless the event as it was sent holds more than the columns
say (interests of its own, say): then it is that, a serialised ``ebbing.v1.UserEvent``."""

PAGE = 5000
"""Events read from the store at once."""
WRITERS = 8
"""Files written at once: most of it is waiting for the disk."""
UNFINISHED_PROGRESS = PROGRESS_FILE + ".part"
_TYPES = {int(kind): kind.name.lower() for kind in EventType}


@dataclass(frozen=True)
class Window:
    """Which events are asked for: from the first moment to before the second, UTC microseconds."""

    since_us: int | None = None
    until_us: int | None = None

    def __contains__(self, time_us: int) -> bool:
        after = self.since_us is None or time_us >= self.since_us
        return after and (self.until_us is None or time_us < self.until_us)


@dataclass(frozen=True)
class Export:
    """How far an export is: what ``_export.json`` holds."""

    store_id: str
    window: Window
    cursor: str = ""
    """Where the log was read to, as the store says it."""
    parts: int = 0
    """Parts up to this number count."""
    events: int = 0
    """Events in them."""
    read: int = 0
    """Events read for them; those outside of the window are not written."""


def export(
    store: Store, folder: Path, window: Window, gathered: int, tell: Callable[[Export], None]
) -> Export:
    """Write what the log holds and the folder does not yet.

    Args:
        store: whose log; may be written to meanwhile.
        folder: made if missing; else an export of the same store and window.
        window: which events.
        gathered: events held in memory before parts are written.
        tell: is told how far it is, first where it goes on, then after each page read; what it is
            told may be ahead of what is written.

    Returns:
        How far it is now.

    Raises:
        ExportError: the folder holds something else, or another export writes into it.
        StoreUnavailable: the log cannot be read; what was written stays, and counts.
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        written = _begun(folder, store.alarms.store_id, window)
        _clear(folder, written.parts)
        tell(written)
        pages: list[pl.DataFrame] = []
        now = written
        with ThreadPoolExecutor(WRITERS) as writers:
            while True:
                events, cursor = store.log(now.cursor, PAGE)
                wanted = [one for one in events if one.time_us in window]
                if wanted:
                    pages.append(_table(wanted))
                now = replace(
                    now,
                    cursor=cursor,
                    events=now.events + len(wanted),
                    read=now.read + len(events),
                )
                tell(now)
                ended = len(events) < PAGE
                if now.events - written.events >= gathered or (ended and now != written):
                    now = replace(now, parts=now.parts + 1)
                    _write_parts(folder, pl.concat(pages) if pages else None, now.parts, writers)
                    _write_progress(folder, now)
                    written, pages = now, []
                if ended:
                    return written


def _begun(folder: Path, store_id: str, window: Window) -> Export:
    """The export to go on with, begun if the folder is empty."""
    told = progress(folder)
    if told is None:
        if any(path.name != UNFINISHED_PROGRESS for path in folder.iterdir()):
            raise ExportError(f"{folder} holds something else: name an empty folder, or a new one")
        fresh = Export(store_id, window)
        _write_progress(folder, fresh)
        return fresh
    del told["format"]
    known = Export(**{**told, "window": Window(**told["window"])})
    if known.store_id != store_id:
        raise ExportError(
            f"{folder} holds the export of another state: name the state it is of, or a new folder"
        )
    if known.window != window:
        raise ExportError(
            f"{folder} holds an export of other times ({_shown(known.window)}): give the same"
            " --since and --until, or name a new folder"
        )
    return known


def _clear(folder: Path, parts: int) -> None:
    """Delete what an export that was ended had not finished."""
    for number, path in all_parts(folder):
        if number > parts:
            path.unlink()
    for path in folder.glob(STRAY_FILES):
        path.unlink()


def _table(events: Sequence[Interaction]) -> pl.DataFrame:
    sent = [UserEvent.FromString(one.body) for one in events]
    bodies = [
        None if one.body == body_of(event, one) else one.body
        for event, one in zip(sent, events, strict=True)
    ]
    # Events of one item share their interests, and building a column of lists takes its time.
    numbers = {interests: n for n, interests in enumerate({one.interests for one in events})}
    shares = pl.Series(
        [[{"name": name, "share": share} for name, share in each] for each in numbers],
        dtype=COLUMNS["interests"],
    )
    columns = {
        "event_id": [one.event_id for one in events],
        "user_id": [one.user_id for one in events],
        "item_id": [event.item_id or None for event in sent],
        "event_type": [_TYPES[one.event_type] for one in events],
        "event_time": pl.Series([one.time_us for one in events], dtype=pl.Int64),
        "value": [event.value if event.HasField("value") else None for event in sent],
        "query": [event.query or None for event in sent],
        "session_id": [event.session_id or None for event in sent],
        "attribution_token": [event.attribution_token or None for event in sent],
        "interests": shares.gather([numbers[one.interests] for one in events]),
        "weight": [one.weight for one in events],
        "body": bodies,
    }
    return pl.DataFrame(columns, schema_overrides=COLUMNS)


def body_of(event: UserEvent, one: Interaction) -> bytes:
    """The body that the columns give back of an event."""
    rebuilt = UserEvent(
        event_id=one.event_id,
        user_id=one.user_id,
        item_id=event.item_id,
        event_type=one.event_type,  # type: ignore[arg-type]
        query=event.query,
        session_id=event.session_id,
        attribution_token=event.attribution_token,
    )
    rebuilt.event_time.FromMicroseconds(one.time_us)
    if event.HasField("value"):
        rebuilt.value = event.value
    return rebuilt.SerializeToString(deterministic=True)


def _write_parts(
    folder: Path, events: pl.DataFrame | None, number: int, writers: ThreadPoolExecutor
) -> None:
    """Write one part a day, on disk when it returns."""
    if events is None:
        return
    by_day = events.with_columns(day=pl.col("event_time").dt.strftime("%Y-%m-%d")).partition_by(
        "day", include_key=False, as_dict=True
    )
    paths = [folder / part_path(str(day), number) for (day,) in by_day]
    list(writers.map(_write_part, paths, by_day.values()))
    list(writers.map(sync, [folder, *(path.parent for path in paths)]))


def _write_part(path: Path, events: pl.DataFrame) -> None:
    path.parent.mkdir(exist_ok=True)
    unfinished = path.with_suffix(".part")
    events.write_parquet(unfinished, compression="zstd")
    sync(unfinished)
    unfinished.rename(path)


def _write_progress(folder: Path, done: Export) -> None:
    unfinished = folder / UNFINISHED_PROGRESS
    told = json.dumps({"format": FORMAT, **asdict(done)}, indent=2)
    unfinished.write_text(told + "\n", encoding="utf-8")
    sync(unfinished)
    unfinished.rename(folder / PROGRESS_FILE)
    sync(folder)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder, so that no other export writes into it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ExportError(f"another export writes into {folder}: wait for it to end") from None
    finally:
        os.close(handle)


def _shown(window: Window) -> str:
    ends = (window.since_us, window.until_us)
    since, until = ("always" if us is None else f"{us / 1e6:.6f} s" for us in ends)
    return f"since {since}, until {until}"
