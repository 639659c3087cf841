"""Logs in bulk: what the gateway would have made of them, once, bad rows aside."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import polars as pl
import pytest

from ebbing.events import DEFAULT_EVENT_WEIGHTS, EventType
from ebbing.history import item_key
from server import events_import
from server.catalogue_import import read_items, read_relations
from server.errors import StoreUnavailable
from server.events_export import Window, export
from server.events_import import Imported, ahead, groups, write
from server.events_rows import FileError, event_files
from server.events_taking import Taking
from server.limits import Limits
from server.state.sqlite import SqliteStore
from server.state.store import Interaction
from server.state.user_state import same
from tests.harness.state import records

HEADER = "user_id,item_id,event_type,event_time\n"
EVENTS = HEADER + "a,i1,purchase,1700000000\nb,i2,view,1700000000\na,i2,view,1700000000.25\n"
ITEMS = "item_id,interests\ni1,sports/football|music\ni2,music\n"
TAKING = Taking(DEFAULT_EVENT_WEIGHTS, Limits(), 0, 2 * 10**15)

Import = Callable[..., Imported]


@pytest.fixture
def load(store: SqliteStore, tmp_path: Path) -> Import:
    """Loads a file of a content, or one that is there, into the store."""

    def run(content: str | bytes | Path, name: str = "events.csv", **taking: object) -> Imported:
        path = content if isinstance(content, Path) else tmp_path / name
        if not isinstance(content, Path):
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        how = Taking(**{**TAKING.__dict__, **taking})  # type: ignore[arg-type]
        return write(store, groups(event_files(path), how, store), lambda *_: None)

    return run


def catalogue(store: SqliteStore, folder: Path, text: str = ITEMS) -> Imported:
    (folder / "items.csv").write_text(text)
    return read_items(folder / "items.csv", Limits(), store, 2)


def logged(store: SqliteStore) -> list[Interaction]:
    return sorted(store.log("", 10_000)[0], key=lambda one: one.event_id)


def test_a_plain_log_is_taken_with_the_interests_of_its_items(
    load: Import, store: SqliteStore, tmp_path: Path
) -> None:
    assert catalogue(store, tmp_path).accepted == 2
    assert load(EVENTS).accepted == 3
    first, _, third = logged(store)
    assert (first.user_id, first.item_key) == ("a", item_key("i1"))
    assert first.event_type == EventType.PURCHASE
    assert first.interests == (("sports/football", 1.0), ("music", 1.0))
    assert third.time_us == 1_700_000_000_250_000
    (state,) = store.states(["a"])
    assert state is not None
    assert state.traces.event_count == 2


def test_loading_again_counts_nothing_twice_also_once_the_file_has_grown(load: Import) -> None:
    load(EVENTS)
    again = load(EVENTS)
    assert (again.accepted, again.duplicates) == (0, 3)
    grown = load(gzip.compress((EVENTS + "c,i1,view,5\n").encode()), "other.csv.gz")
    assert (grown.accepted, grown.duplicates) == (1, 3)


def test_one_deed_twice_in_a_file_counts_twice_in_the_order_of_the_file(
    load: Import, store: SqliteStore
) -> None:
    rows = "".join(f"a,i{n},view,5\n" for n in (3, 1, 1, 2)) + "".join(
        f"b,i{n},view,{n}\n" for n in range(8)
    )
    assert load(HEADER + rows).accepted == 12
    (state,) = store.states(["a"])
    assert state is not None
    assert state.history.keys.tolist() == [item_key(f"i{n}") for n in (3, 1, 1, 2)]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a,i1,dance,5", "unknown event type 'dance'"),
        ("a,i1,view,soon", "event_time is not a number"),
        ("a,i1,view,nan", "event_time is no number of seconds"),
        ("a,i1,view,1e300", "event_time is no number of seconds"),
        ("a,i1,view,-5", "event_time must be from 1970"),
        ("a,i1,view,3000000000", "event_time is in the future"),
        (",i1,view,5", "user_id is required"),
        ("a,,view,5", "item_id is required without query and interests"),
        ("a,i1,view", "has 3 fields where the header has 4"),
        ("a,i1,,5", "event_type is missing"),
        (f"{'a' * 200},i1,view,5", "user_id has 200 bytes, at most 128"),
        ("a\x00,i1,view,5", "user_id must not contain NUL"),
    ],
)
def test_a_bad_row_is_told_and_the_others_are_taken(load: Import, row: str, reason: str) -> None:
    done = load(EVENTS + row + "\nz,i1,view,9\n")
    assert done.accepted == 4
    assert done.left_out == 1
    (named,) = done.named
    assert named.line == 4
    assert named.reason.startswith(reason)


def test_bytes_that_are_no_text_spoil_their_row_alone(load: Import) -> None:
    done = load(HEADER.encode() + b"a\xff,i1,view,5\nb,i\xe9,view,5\nc,i1,view,5\n")
    assert (done.accepted, dict(done.bad)) == (1, {"is not UTF-8": 2})


def test_the_first_bad_rows_are_named_by_their_place_in_the_file(load: Import) -> None:
    rows = "".join(f"{chr(ord('z') - n)},i1,view,soon\n" for n in range(9))
    assert [bad.line for bad in load(HEADER + rows).named] == [1, 2, 3, 4, 5]


def test_a_file_without_types_takes_the_one_given(load: Import, store: SqliteStore) -> None:
    text = "event_time,user_id,item_id,ignored\n7,a,i1,x\n"
    assert load(text).left_out == 1
    assert load(text, event_type=EventType.LIKE).accepted == 1
    assert logged(store)[0].event_type == EventType.LIKE


def test_all_columns_are_taken(load: Import, store: SqliteStore) -> None:
    done = load(
        "event_id,user_id,item_id,event_type,event_time,value,query,session_id,interests\n"
        'e1,a,,search,7,2.5,"red, shoes",s1,shoes/red|shoes\n'
        "e2,a,,search,7,much,q,s1,\n"
    )
    assert (done.accepted, dict(done.bad)) == (1, {"value is not a number": 1})
    (one,) = logged(store)
    assert one.event_id == "e1"
    assert one.interests == (("shoes/red", 1.0), ("shoes", 1.0))
    assert b"red, shoes" in one.body


def test_an_id_of_another_event_is_a_bad_row(load: Import) -> None:
    header = "event_id," + HEADER
    load(header + "e1,a,i1,view,5\n")
    done = load(header + "e2,a,i1,view,5\ne1,a,i2,view,5\n")
    assert (done.accepted, dict(done.bad)) == (1, {"another event has this event_id": 1})
    assert done.named[0].line == 2


def test_events_of_before_a_deletion_are_refused(load: Import, store: SqliteStore) -> None:
    load(EVENTS)
    store.delete_user("a", "receipt", 1_800_000_000 * 10**6)
    done = load(EVENTS)
    assert (done.accepted, done.duplicates, done.deleted_users) == (0, 1, 2)


def test_users_are_written_together(
    load: Import, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_import, "GROUP", 10)
    written = []
    append = store.append

    def watched(interactions: list[Interaction]) -> object:
        written.append([one.user_id for one in interactions])
        return append(interactions)

    monkeypatch.setattr(store, "append", watched)
    rows = "".join(f"u{n % 6},i1,view,{n}\n" for n in range(30))
    rows += "".join(f"v,i1,view,{n}\n" for n in range(45))
    assert load(HEADER + rows).accepted == 75
    assert [len(group) for group in written] == [10, 10, 10, 20, 20, 5]
    assert len(set(written[0])) == 2


def test_parquet_of_others_is_taken(load: Import, store: SqliteStore, tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame(
        {
            "user_id": [1, 2, None],
            "event_time": [7, 8, 9],
            "event_type": ["view", "view", "view"],
            "interests": [["a/b", "c"], ["c"], []],
        }
    ).write_parquet(path)
    done = load(path)
    assert (done.accepted, dict(done.bad)) == (2, {"user_id is required": 1})
    assert {one.user_id: one.time_us for one in logged(store)} == {"1": 7 * 10**6, "2": 8 * 10**6}
    assert load(path).duplicates == 2


def test_an_export_loads_as_the_very_same_log(
    load: Import, store: SqliteStore, tmp_path: Path
) -> None:
    catalogue(store, tmp_path)
    load(EVENTS + "a,i1,impression,9\n")
    load("user_id,event_type,event_time,interests,value\nc,like,11.5,own,2\n", "own.csv")
    out = tmp_path / "out"
    export(store, out, Window(), 100, lambda _: None)
    assert load(out).duplicates == 5, "into the state it is of, nothing is new"
    with closing(SqliteStore(tmp_path / "copy.db", records())) as copy:
        done = write(copy, groups(event_files(out), TAKING, copy), lambda *_: None)
        assert done.accepted == 5
        assert logged(copy) == logged(store)
        for user_id in "abc":
            one, other = store.user(user_id), copy.user(user_id)
            assert one is not None
            assert other is not None
            assert same(one.state, other.state)


def test_exported_events_can_be_resolved_anew(
    load: Import, store: SqliteStore, tmp_path: Path
) -> None:
    catalogue(store, tmp_path)
    load(EVENTS)
    export(store, tmp_path / "out", Window(), 100, lambda _: None)
    with closing(SqliteStore(tmp_path / "copy.db", records())) as copy:
        catalogue(copy, tmp_path, "item_id,interests\ni1,chess\ni2,go\n")
        weights = {**DEFAULT_EVENT_WEIGHTS, EventType.PURCHASE: 3.0}
        taking = Taking(weights, Limits(), 0, 2 * 10**15, anew=True)
        write(copy, groups(event_files(tmp_path / "out"), taking, copy), lambda *_: None)
        assert {(one.interests, one.weight) for one in logged(copy)} == {
            ((("chess", 1.0),), 3.0),
            ((("go", 1.0),), 1.0),
        }


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"weight": pl.lit(-1.0)}, "weight must be from 0"),
        ({"weight": pl.lit(float("nan"))}, "weight must be from 0"),
        ({"interests": pl.lit([{"name": "a//b", "share": 1.0}])}, "interests[0].interest has an"),
        ({"body": pl.lit(b"\xff")}, "body is no event"),
        ({"body": pl.lit(b"")}, "body is another event"),
    ],
)
def test_an_export_that_was_changed_is_looked_at(
    load: Import, store: SqliteStore, tmp_path: Path, change: dict[str, pl.Expr], reason: str
) -> None:
    load(EVENTS)
    out = tmp_path / "out"
    export(store, out, Window(), 100, lambda _: None)
    (part,) = out.rglob("*.parquet")
    pl.read_parquet(part).with_columns(**change).write_parquet(part)
    with closing(SqliteStore(tmp_path / "copy.db", records())) as copy:
        done = write(copy, groups(event_files(out), TAKING, copy), lambda *_: None)
    assert done.accepted == 0
    assert all(why.startswith(reason) for why in done.bad)


def test_relations_and_items_are_checked(store: SqliteStore, tmp_path: Path) -> None:
    done = catalogue(store, tmp_path, ITEMS + ",x\ni3,a//b\ni4,\n")
    assert (done.accepted, done.left_out) == (3, 2)
    path = tmp_path / "relations.csv.gz"
    path.write_bytes(gzip.compress(b"user_id,other_user_id\na,b\na,a\nb,a\n"))
    done = read_relations(path, Limits(), store, 10)
    assert (done.accepted, dict(done.bad)) == (2, {"other_user_id must be another user": 1})
    assert [one.other_user_id for one in store.list_relations("a", "", 10)] == ["b"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("events.csv", b"user,time\na,1\n", "no column user_id"),
        ("events.csv", b"", "no column user_id"),
        ("events.csv.gz", gzip.compress(EVENTS.encode() * 100)[:-20], "cannot be read after row"),
        ("events.csv.gz", EVENTS.encode(), "cannot be read after row 0"),
        ("events.parquet", b"PAR1 or not", "cannot be read"),
        ("events.txt", b"", "neither .csv"),
    ],
)
def test_files_that_cannot_be_read_are_named(
    load: Import, name: str, content: bytes, message: str
) -> None:
    with pytest.raises(FileError, match=message) as caught:
        load(content, name)
    assert name in str(caught.value)


def test_folders_without_a_log_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="holds neither"):
        event_files(tmp_path)
    with pytest.raises(FileError, match="no such file"):
        event_files(tmp_path / "nowhere")


def _two(log: Path) -> Iterator[int]:
    yield 1
    yield 2
    if log.name == "damaged":
        raise FileError(f"{log}: damaged")
    if log.name == "locked":
        raise StoreUnavailable("the state file is locked")


def test_work_ahead_comes_in_order_and_so_do_its_errors(tmp_path: Path) -> None:
    assert list(ahead(partial(_two, tmp_path))) == [1, 2]
    for name, error in (("damaged", FileError), ("locked", StoreUnavailable)):
        made = []
        with pytest.raises(error, match=name):
            made += list(ahead(partial(_two, tmp_path / name)))
    some = ahead(partial(_two, tmp_path))
    assert next(some) == 1
    some.close()
