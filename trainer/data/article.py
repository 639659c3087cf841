"""The article's three files: `user_data.csv`, `item_data.csv` and `labels.csv`, packed or not.

`labels.csv` has `user_id,item_id,label[,event_time]`: 1 is a CLICK, 0 an IMPRESSION that led to
nothing, which leaves no trace and is there as a negative for rankers. Without `event_time` the
order of the file is the order of events, a second apart.

`item_data.csv` has `item_id` and any columns: numbers become content vectors (`FEATURES`), words
become interests. `user_data.csv` has `user_id` and any columns: numbers become profiles, words
flags in them. See `trainer.data.features` for which is which.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from ebbing.events import EventType
from trainer.data.features import FeatureTable, read_features
from trainer.data.memory import check_memory
from trainer.data.plain import SECONDS, raw_events, there
from trainer.data.raw import FEATURES, LogError, Names, RawLog, Vectors, parse_interests
from trainer.data.rows import CSV, Field, header, identifier, number, read_rows
from trainer.data.times import in_seconds


def is_article(folder: Path) -> bool:
    """Whether a folder holds labels."""
    return there(folder, "labels") is not None


def read_article(folder: Path, max_bad: float, available: int | None) -> RawLog:
    """Read the three files; see `read_rows` and `check_memory`.

    Raises:
        LogError: a file or column is missing, or a row does not read.
    """
    path = _find(folder, "labels")
    items = _features(folder, "item", max_bad)
    people = _features(folder, "user", max_bad)
    check_memory(path, available)
    users, taken = Names(), Names()
    fields = [identifier("user_id", users), identifier("item_id", taken), _label()]
    timed = "event_time" in header(path)
    if timed:
        fields.append(number("event_time", SECONDS))
    rows = read_rows(path, fields, CSV, max_bad)
    events = raw_events(
        rows,
        (users, "user_id"),
        (taken, "item_id"),
        rows.table["label"].to_numpy(),
        in_seconds(rows, "event_time") if timed else np.arange(len(rows.table), dtype=float),
    )
    untimed = () if timed else ("labels.csv has no event_time: its rows count as a second apart",)
    return RawLog(
        "article",
        events,
        {
            item: parse_interests(text)
            for item, text in zip(items.ids, items.interests(), strict=True)
        },
        {FEATURES: Vectors(items.ids, items.stacked())} if items.numbers else {},
        Vectors(people.ids, people.one_hot()),
        skipped=(*rows.skipped, *items.skipped, *people.skipped),
        notes=(*untimed, *items.notes, *people.notes),
    )


def _features(folder: Path, of: str, max_bad: float) -> FeatureTable:
    return read_features(_find(folder, f"{of}_data"), f"{of}_id", max_bad)


def _find(folder: Path, name: str) -> Path:
    if path := there(folder, name):
        return path
    raise LogError(
        f"{folder / name}.csv[.gz]: missing; the folder needs user_data.csv, item_data.csv and "
        "labels.csv"
    )


def _label() -> Field:
    kinds = {0.0: int(EventType.IMPRESSION), 1.0: int(EventType.CLICK)}

    def parse(text: pl.Expr) -> pl.Expr:
        value = text.str.strip_chars().cast(pl.Float64, strict=False)
        return value.replace_strict(kinds, default=None, return_dtype=pl.Int32)

    return Field("label", parse, "label is neither 0 nor 1", "write 1 for taken, 0 for not")
