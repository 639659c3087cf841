"""The event log as Parquet: every event once, whatever ends the export in between."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from ebbing.client import user_event
from ebbing.exported import PROGRESS_FILE, ExportError, parts
from ebbing.history import item_key
from server import events_export
from server.events_export import Export, Window, export
from server.ingest import resolve
from server.state.sqlite import SqliteStore
from server.state.store import Interaction
from tests.harness.state import records

DAY_S = 86400
START_S = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp())
ABOUT = (("sports/football", 1.0), ("music", 0.5))


def event(n: int, day: float = 0.0, **more: object) -> Interaction:
    sent = user_event(
        f"user-{n % 7}",
        "purchase",
        START_S + day * DAY_S + n,
        event_id=f"event-{n:05d}",
        item_id=f"item-{n % 5}",
        **more,  # type: ignore[arg-type]
    )
    return resolve(sent, item_key(sent.item_id), ABOUT, 1.0)


def rows(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(parts(folder)).sort("event_id")


def run(
    store: SqliteStore, folder: Path, window: Window | None = None, gathered: int = 1000
) -> Export:
    return export(store, folder, window or Window(), gathered, lambda _: None)


def test_events_are_rows_of_their_days(store: SqliteStore, tmp_path: Path) -> None:
    store.append([event(1), event(2, day=1.0, value=4.5, query="q"), event(3, day=1.0)])
    done = run(store, tmp_path / "out")
    assert (done.events, done.parts) == (3, 1)
    days = {path.parent.name: len(pl.read_parquet(path)) for path in parts(tmp_path / "out")}
    assert days == {"day=2026-03-01": 1, "day=2026-03-02": 2}
    first, second, _ = rows(tmp_path / "out").to_dicts()
    assert first == {
        "event_id": "event-00001",
        "user_id": "user-1",
        "item_id": "item-1",
        "event_type": "purchase",
        "event_time": datetime(2026, 3, 1, 0, 0, 1, tzinfo=UTC),
        "value": None,
        "query": None,
        "session_id": None,
        "attribution_token": None,
        "interests": [{"name": name, "share": share} for name, share in ABOUT],
        "weight": 1.0,
        "body": None,
    }
    assert (second["value"], second["query"]) == (4.5, "q")


def test_a_body_that_columns_do_not_tell_is_kept(store: SqliteStore, tmp_path: Path) -> None:
    own = event(1, interests={"chess": 2.0})
    plain = event(2, value=0.0, session_id="s", attribution_token="t")
    store.append([own, plain])
    run(store, tmp_path / "out")
    assert rows(tmp_path / "out")["body"].to_list() == [own.body, None]


def test_running_again_adds_what_has_come_late_events_too(
    store: SqliteStore, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    store.append([event(n, day=n % 3) for n in range(10)])
    assert run(store, out).events == 10
    before = parts(out)
    assert run(store, out).parts == 1, "nothing new, no new part"
    store.append([event(n, day=n % 3) for n in range(10, 15)])
    assert run(store, out).events == 15
    assert parts(out)[: len(before)] == before
    assert rows(out)["event_id"].to_list() == [f"event-{n:05d}" for n in range(15)]


def test_a_window_holds_its_start_and_not_its_end(store: SqliteStore, tmp_path: Path) -> None:
    events = [event(n, day=n) for n in range(5)]
    store.append(events)
    moment = [one.time_us for one in events]
    run(store, tmp_path / "out", Window(moment[1], moment[3]))
    assert rows(tmp_path / "out")["event_id"].to_list() == ["event-00001", "event-00002"]


@pytest.mark.parametrize("fails_at", range(1, 9))
def test_an_export_that_was_ended_goes_on(
    store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    monkeypatch.setattr(events_export, "PAGE", 4)
    store.append([event(n, day=n % 2) for n in range(20)])
    out, left = tmp_path / "out", fails_at
    synced = events_export.sync

    def sync(path: Path) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise OSError("ended")
        synced(path)

    with monkeypatch.context() as patched:
        patched.setattr(events_export, "sync", sync)
        with pytest.raises(OSError, match="ended"):
            run(store, out, gathered=8)
    # Whoever reads it meanwhile sees whole parts alone, each event at most once.
    seen = pl.concat([pl.read_parquet(path) for path in parts(out)]) if parts(out) else None
    assert seen is None or seen["event_id"].is_unique().all()
    store.append([event(n, day=n % 2) for n in range(20, 23)])
    assert run(store, out, gathered=8).events == 23
    assert rows(out)["event_id"].to_list() == [f"event-{n:05d}" for n in range(23)]
    assert not list(out.rglob("*.part"))
    assert sorted(parts(out)) == sorted(out.rglob("*.parquet"))


def test_events_written_meanwhile_come_once(
    store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_export, "PAGE", 3)
    store.append([event(n) for n in range(7)])
    more = iter([[event(n)] for n in range(7, 12)])
    with closing(SqliteStore(tmp_path / "state.db", records())) as other:

        def tell(_: Export) -> None:
            other.append(next(more, []))

        export(store, tmp_path / "out", Window(), 4, tell)
    assert run(store, tmp_path / "out").events == 12
    assert rows(tmp_path / "out")["event_id"].to_list() == [f"event-{n:05d}" for n in range(12)]


def test_a_folder_of_something_else_is_refused(store: SqliteStore, tmp_path: Path) -> None:
    store.append([event(1)])
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match="something else"):
        run(store, other)
    run(store, tmp_path / "out")
    with pytest.raises(ExportError, match="same --since and --until"):
        run(store, tmp_path / "out", Window(since_us=5))
    with (
        closing(SqliteStore(tmp_path / "second.db", records())) as second,
        pytest.raises(ExportError, match="another state"),
    ):
        run(second, tmp_path / "out")
    told = json.loads((tmp_path / "out" / PROGRESS_FILE).read_text())
    (tmp_path / "out" / PROGRESS_FILE).write_text(json.dumps({**told, "format": 99}))
    with pytest.raises(ExportError, match="another version"):
        run(store, tmp_path / "out")


def test_two_exports_at_once_are_refused(store: SqliteStore, tmp_path: Path) -> None:
    store.append([event(1)])
    refused = []

    def tell(_: Export) -> None:
        with pytest.raises(ExportError, match="another export") as caught:
            run(store, tmp_path / "out")
        refused.append(caught.value)

    export(store, tmp_path / "out", Window(), 10, tell)
    assert refused


def test_an_empty_log_is_an_export_without_parts(store: SqliteStore, tmp_path: Path) -> None:
    assert run(store, tmp_path / "out") == replace(
        Export(store.alarms.store_id, Window()), cursor=""
    )
    assert parts(tmp_path / "out") == []
