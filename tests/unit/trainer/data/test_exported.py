"""An export of the gateway's log, read as the trainer's log."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ebbing.events import EventType
from ebbing.exported import FORMAT, PROGRESS_FILE, part_path
from trainer.data import exported
from trainer.data.log import LogError, read_log

SCHEMA = {
    "event_id": pl.String,
    "user_id": pl.String,
    "item_id": pl.String,
    "event_type": pl.String,
    "event_time": pl.Datetime("us", "UTC"),
    "interests": pl.List(pl.Struct({"name": pl.String, "share": pl.Float64})),
    "body": pl.Binary,
}
DAYS = ("2026-03-01", "2026-03-02")


def row(
    event_id: str, item: str | None, seconds: float, about: dict[str, float], **more: Any
) -> dict[str, Any]:
    return {
        "event_id": event_id,
        "user_id": "a",
        "item_id": item,
        "event_type": "view",
        "event_time": datetime.fromtimestamp(1_772_323_200 + seconds, UTC),
        "interests": [{"name": name, "share": share} for name, share in about.items()],
        "body": None,
        **more,
    }


def write(folder: Path, parts: dict[tuple[str, int], list[dict[str, Any]]], counting: int) -> Path:
    for (day, number), rows in parts.items():
        path = folder / part_path(day, number)
        path.parent.mkdir(exist_ok=True)
        pl.DataFrame(rows, schema=SCHEMA).write_parquet(path)
    (folder / PROGRESS_FILE).write_text(json.dumps({"format": FORMAT, "parts": counting}))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    first = [
        row("e3", "i1", 10, {"music": 1.0}),
        row("e1", "i2", 10, {"sports/football": 3.0, "music": 1.0}),
        row("e4", None, 11, {"chess": 1.0}),
    ]
    second = [
        row("e5", "i1", 86400.25, {"jazz": 1.0}, user_id="b", event_type="check_in"),
        row("e6", "i1", 86500, {"mine": 1.0}, body=b"own interests"),
        row("e7", "i3", 86600, {"mine": 1.0}, body=b"own interests"),
    ]
    debris = [row("e9", "i9", 86700, {})]
    parts = {(DAYS[0], 1): first, (DAYS[1], 2): second, (DAYS[1], 3): debris}
    return write(tmp_path, parts, counting=2)


def test_whole_parts_are_read_in_the_order_of_time_and_ids(folder: Path) -> None:
    log = read_log(folder)
    assert log.user_ids == ("a", "b")
    assert [log.item_ids[item] for item in log.items] == ["i2", "i1", "i1", "i3", "i1"]
    assert log.times[-1] == 1_772_323_200 + 86400.25
    assert log.types[-1] == EventType.CHECK_IN
    assert log.relations.shape == (0, 2)


def test_items_are_about_what_they_were_at_their_newest_event(folder: Path) -> None:
    log = read_log(folder)
    about = dict(zip(log.item_ids, log.interests, strict=True))
    assert about["i1"] == (("jazz", 1.0),), "what an event brings itself is of the event"
    assert about["i2"] == (("sports/football", 0.75), ("music", 0.25))
    assert about["i3"] == (("mine", 1.0),)
    assert np.isclose([sum(share for _, share in each) for each in about.values()], 1.0).all()


def test_a_catalogue_and_relations_may_lie_beside_it(folder: Path) -> None:
    (folder / "items.csv").write_text("item_id,interests\ni1,chess\ni8,go\n")
    (folder / "relations.csv").write_text("user_id,other_user_id\nb,a\n")
    log = read_log(folder)
    about = dict(zip(log.item_ids, log.interests, strict=True))
    assert about["i1"] == (("chess", 1.0),)
    assert about["i8"] == (("go", 1.0),)
    assert about["i3"] == (("mine", 1.0),)
    assert log.relations.tolist() == [[1, 0]]


def test_days_read_group_by_group_are_one_log(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = read_log(folder)
    monkeypatch.setattr(exported, "GROUP_BYTES", 1)
    by_days = read_log(folder)
    assert by_days.user_ids == at_once.user_ids
    assert by_days.item_ids == at_once.item_ids
    assert by_days.interests == at_once.interests
    for column in ("users", "items", "types", "times"):
        np.testing.assert_array_equal(getattr(by_days, column), getattr(at_once, column))


def test_an_export_that_goes_away_midway_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def types(paths: list[Path]) -> dict[str, int]:
        shutil.rmtree(folder)
        return {}

    monkeypatch.setattr(exported, "_types", types)
    with pytest.raises(LogError, match="went away while the log was read"):
        read_log(folder)


def test_what_cannot_be_read_is_named_with_the_remedy(folder: Path, tmp_path: Path) -> None:
    part = folder / part_path(DAYS[0], 1)
    part.write_bytes(b"PAR1 or not")
    with pytest.raises(LogError, match="cannot be read"):
        read_log(folder)
    write(folder, {(DAYS[0], 1): [row("e", "i", 0, {}, event_type="dance")]}, counting=1)
    with pytest.raises(LogError, match="unknown event type 'dance'"):
        read_log(folder)
    write(folder, {(DAYS[0], 1): [row("e", None, 0, {})]}, counting=1)
    with pytest.raises(LogError, match="no event of the export has an item"):
        read_log(folder)
    write(folder, {}, counting=0)
    with pytest.raises(LogError, match="no events yet"):
        read_log(folder)
    (folder / PROGRESS_FILE).write_text("{")
    with pytest.raises(LogError, match="cannot be read"):
        read_log(folder)
