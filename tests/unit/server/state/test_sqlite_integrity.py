"""Damage in a state file, and what SQLite would not see of it."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from server.errors import StoreUnavailable
from server.state.alarms import Settlement, Transition
from server.state.open import open_checked
from server.state.sqlite import SqliteStore
from server.state.sqlite_file import opened
from server.state.sqlite_wal import cut, read_wal, wal_of
from server.state.store import InterestRecord, RelationRecord, Rollout
from tests.harness.state import records
from tests.suites.store_suite import START_US, deed, item

PAGE_BYTES = 4096
FRAME_BYTES = PAGE_BYTES + 24
HEADER_BYTES = 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


def fill(path: Path) -> None:
    """A store with something in each of its tables."""
    with closing(SqliteStore(path, records())) as store:
        store.append(
            [deed(f"event-{n}", f"user-{n % 7}", "item", n, body=b"%300d" % n) for n in range(60)]
        )
        (alarm,) = store.alarms.due(START_US, 0, 1)
        told = Transition(alarm.user_id, "sports", 2, 3, START_US, 0.5, b"why it is told")
        store.alarms.settle([Settlement(alarm.owner, alarm.version, b"as told", 5, [told])], 1)
        store.write_items([item("item", body=b"body of an item")])
        store.write_interests([InterestRecord("sports", b"body of an interest")])
        store.write_relations([RelationRecord("user-1", "user-2", b"body of a relation")])
        store.write_rollout(Rollout(1, b"body of a rollout"))
        store.delete_user("user-6", "receipt of a deletion", START_US)


def flip(path: Path, at: int, bit: int = 0) -> None:
    """Flip one bit."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(content)


def flip_within(path: Path, content: bytes) -> None:
    """Flip one bit of the only place where some bytes are."""
    data = path.read_bytes()
    assert data.count(content) == 1
    flip(path, data.index(content) + len(content) // 2)


def stored(path: Path, sql: str) -> bytes:
    with closing(opened(path)) as db:
        ((value,),) = db.execute(sql).fetchall()
    return value  # type: ignore[no-any-return]


def copy(path: Path, to: Path) -> Path:
    """A copy of a file and its write-ahead log, as they are."""
    for one, other in ((path, to), (wal_of(path), wal_of(to))):
        shutil.copy(one, other)
    return to


@pytest.fixture
def unfinished(tmp_path: Path) -> Iterator[Path]:
    """A state whose last commits are in its write-ahead log, as after the end of its process."""
    with closing(SqliteStore(tmp_path / "running.db", records())) as store:
        for n in range(12):
            store.append([deed(f"e{n}", days=n, body=bytes(9000))])
        yield copy(tmp_path / "running.db", tmp_path / "state.db")


# The write-ahead log.


def test_a_log_that_is_whole(unfinished: Path) -> None:
    wal = read_wal(unfinished, PAGE_BYTES)
    assert wal.end == wal_of(unfinished).stat().st_size
    assert not wal.damaged
    with closing(SqliteStore(unfinished, records())) as store:
        assert store.size().events == 12


def test_any_flipped_bit_before_the_last_commit_is_found(unfinished: Path) -> None:
    chance, log = random.Random(1), wal_of(unfinished)
    whole = log.read_bytes()
    for _ in range(200):
        log.write_bytes(whole)
        at = chance.randrange(len(whole) - 6 * FRAME_BYTES)
        flip(log, at, chance.randrange(8))
        assert read_wal(unfinished, PAGE_BYTES).damaged, at


@pytest.mark.parametrize("at", [0, 3, 9, 17, 27, HEADER_BYTES + 5, HEADER_BYTES + FRAME_BYTES + 77])
def test_a_damaged_log_is_refused_and_left_as_it_is(unfinished: Path, at: int) -> None:
    flip(wal_of(unfinished), at)
    before = wal_of(unfinished).read_bytes()
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=r"write-ahead log .* damaged") as error:
            SqliteStore(unfinished, records())
        assert str(unfinished) not in str(error.value)
    assert wal_of(unfinished).read_bytes() == before


def test_a_torn_tail_is_no_damage(unfinished: Path) -> None:
    log = wal_of(unfinished)
    for length in range(log.stat().st_size, 0, -777):
        os.truncate(log, length)
        wal = read_wal(unfinished, PAGE_BYTES)
        assert not wal.damaged
        assert wal.end <= max(length, HEADER_BYTES)
    with closing(SqliteStore(unfinished, records())) as store:
        assert store.size().events < 12


def test_what_is_torn_within_the_last_frame_is_no_damage(unfinished: Path) -> None:
    """Its header was written and a part of its page; nothing follows."""
    flip(wal_of(unfinished), wal_of(unfinished).stat().st_size - 5)
    with closing(SqliteStore(unfinished, records())) as store:
        assert store.size().events == 11


def test_what_was_rolled_back_is_no_damage(tmp_path: Path) -> None:
    """Pages that did not fit into memory are in the log before their commit, or without it."""
    running = tmp_path / "running.db"
    with closing(opened(running)) as db:
        db.execute(
            "PRAGMA journal_mode = WAL; PRAGMA cache_size = 5; CREATE TABLE t (x)"
        ).fetchall()
        db.execute("BEGIN")
        for _ in range(50):
            db.execute("INSERT INTO t VALUES (randomblob(4000))")
        db.execute("ROLLBACK")
        before = wal_of(running).stat().st_size
        db.execute("INSERT INTO t VALUES (1)")
        assert wal_of(running).stat().st_size == before > 20 * FRAME_BYTES
        wal = read_wal(running, PAGE_BYTES)
    assert wal.end < before
    assert not wal.damaged


def test_what_is_left_of_an_earlier_log_is_no_damage(tmp_path: Path) -> None:
    running = tmp_path / "running.db"
    with closing(opened(running)) as db:
        db.execute("PRAGMA journal_mode = WAL; CREATE TABLE t (x)").fetchall()
        for _ in range(20):
            db.execute("INSERT INTO t VALUES (randomblob(4000))")
        db.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
        db.execute("INSERT INTO t VALUES (1)")
        wal = read_wal(running, PAGE_BYTES)
        assert wal.end < wal_of(running).stat().st_size
    assert not wal.damaged


def test_an_end_can_be_cut(unfinished: Path) -> None:
    flip(wal_of(unfinished), wal_of(unfinished).stat().st_size // 2)
    wal = read_wal(unfinished, PAGE_BYTES)
    assert wal.damaged
    cut(unfinished, wal)
    with closing(SqliteStore(unfinished, records())) as store:
        events = store.size().events
        assert 0 < events < 12
        assert store.check().whole
        assert [one.event_id for one in store.events_of("ann")] == [f"e{n}" for n in range(events)]


def test_no_log_at_all(path: Path) -> None:
    assert read_wal(path, PAGE_BYTES) == (0, frozenset(), False)
    wal_of(path).write_bytes(b"")
    assert read_wal(path, PAGE_BYTES) == (0, frozenset(), False)


# The file.


def test_a_whole_file(path: Path) -> None:
    fill(path)
    with closing(SqliteStore(path, records())) as store:
        seen: list[Any] = []
        found = store.check(lambda *told: seen.append(told))
        assert found.whole
        assert found.complete
        assert str(found) == "whole"
        assert ("events", 52, 52) in seen


@pytest.mark.parametrize(
    ("table", "value"),
    [
        ("events", "SELECT value FROM events WHERE event_id = 'event-9'"),
        ("events", "SELECT digest FROM events WHERE event_id = 'event-9'"),
        ("users", "SELECT state FROM users WHERE owner = 'user-2'"),
        ("users", "SELECT told FROM users WHERE told != x''"),
        ("transitions", "SELECT value FROM transitions"),
        ("relations", "SELECT value FROM relations"),
        ("items", "SELECT body FROM items"),
        ("items", "SELECT interests FROM items"),
        ("interests", "SELECT body FROM interests"),
    ],
)
def test_a_flipped_bit_in_a_value(path: Path, table: str, value: str) -> None:
    fill(path)
    content = stored(path, value)
    flip_within(path, content.encode() if isinstance(content, str) else content)
    with closing(SqliteStore(path, records())) as store:
        found = store.check()
        assert not found.whole
        assert found.damaged == {table: 1}
        assert len(found.owners) == (table not in {"items", "interests"})
    with pytest.raises(StoreUnavailable, match=f"1 damaged values in {table}") as error:
        open_checked(path, records(), "full", lambda: 0.0)
    assert str(path) not in str(error.value)
    open_checked(path, records(), "off", lambda: 0.0).close()


@pytest.mark.parametrize(
    "content",
    [b"receipt of a deletion", b"body of a rollout", b"plain"],
)
def test_a_flipped_bit_that_the_index_tells(path: Path, content: bytes) -> None:
    """Once in the table and once in its index: in either place it is found."""
    fill(path)
    data = path.read_bytes()
    places = [n for n in range(len(data)) if data.startswith(content, n)]
    assert len(places) == 2
    for n, at in enumerate(places):
        damaged = path.with_name(f"damaged-{n}.db")
        damaged.write_bytes(data)
        flip(damaged, at + 2)
        with pytest.raises(StoreUnavailable):
            open_checked(damaged, records(), "quick", lambda: 0.0)


def test_an_end_that_is_missing(path: Path) -> None:
    fill(path)
    os.truncate(path, path.stat().st_size - PAGE_BYTES)
    with pytest.raises(StoreUnavailable, match="damaged"):
        SqliteStore(path, records())


def test_an_end_that_is_missing_though_there_is_a_log(unfinished: Path) -> None:
    os.truncate(unfinished, PAGE_BYTES)
    wal = read_wal(unfinished, PAGE_BYTES)
    assert 2 in wal.pages  # nothing is lost as long as all is in the log
    with closing(SqliteStore(unfinished, records())) as store:
        assert store.check().whole


def test_a_file_whose_log_is_of_later_pages_only(path: Path, tmp_path: Path) -> None:
    fill(path)
    with closing(SqliteStore(path, records())) as store:
        store.append([deed("later")])
        left = copy(path, tmp_path / "left.db")
    os.truncate(left, left.stat().st_size - 3 * PAGE_BYTES)
    with pytest.raises(StoreUnavailable, match="damaged"):
        SqliteStore(left, records())


def test_a_check_within_a_time(path: Path) -> None:
    with closing(SqliteStore(path, records())) as store:
        store.append([deed(f"event-{n:05}", f"user-{n % 9}") for n in range(5000)])
        ticks = iter(range(10**9))
        found = store.check(budget_s=3.0, monotonic=lambda: next(ticks))
        assert found.whole
        assert not found.complete
        assert 0 < found.values < 5000
        ticks = iter(range(10**9))
        assert store.check(budget_s=10.0**9, monotonic=lambda: next(ticks)).complete


def test_tables_that_do_not_agree_with_their_indexes(path: Path) -> None:
    fill(path)
    flip_within(path, b"event-11user-4")
    with closing(SqliteStore(path, records())) as store:
        found = store.check()
        assert "missing from index" in " ".join(found.problems)
        assert not found.damaged


@pytest.mark.parametrize("column", [b"expire_time INTEGER", b"AUTOINCREMENT", b"WHERE turn IS NOT"])
def test_tables_that_are_not_those_it_was_made_with(path: Path, column: bytes) -> None:
    """SQLite takes another name of a column for what it is."""
    fill(path)
    data = path.read_bytes()
    flip(path, data.index(column) + 2)
    with pytest.raises(StoreUnavailable, match="damaged"):
        SqliteStore(path, records())
