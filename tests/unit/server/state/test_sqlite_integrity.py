"""Damage in a state file, and what SQLite would not see of it."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from server.errors import StoreUnavailable
from server.state.alarms import Settlement, Transition
from server.state.keyring import SqliteKeyring
from server.state.open import open_checked
from server.state.sqlite import SqliteStore
from server.state.sqlite_file import CHECKING, SqliteFile, opened
from server.state.sqlite_wal import cut, read_wal, wal_of
from server.state.store import InterestRecord, RelationRecord, Rollout
from tests.harness.state import records
from tests.suites.store_suite import START_US, deed, item

PAGE_BYTES = 4096
FRAME_BYTES = PAGE_BYTES + 24
HEADER_BYTES = 32
ROOT = Path(__file__).parents[4]


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
    """But for the one that makes of a commit's last frame, in the commit before the last, one of
    the last commit."""
    chance, log = random.Random(1), wal_of(unfinished)
    whole = log.read_bytes()
    starts = range(HEADER_BYTES, len(whole), FRAME_BYTES)
    sizes = {at: int.from_bytes(whole[at + 4 : at + 8]) for at in starts}
    before_last = [at for at, size in sizes.items() if size][-2]
    flips = [(chance.randrange(before_last + FRAME_BYTES), chance.randrange(8)) for _ in range(200)]
    # All that SQLite itself has in the log, at its start and just before the last commit.
    flips += [(at, chance.randrange(8)) for at in range(HEADER_BYTES)]
    flips += [(before_last + at, bit) for at in range(24) for bit in range(8)]
    untold = 0
    for at, bit in flips:
        log.write_bytes(whole)
        flip(log, at, bit)
        ends_nothing = log.read_bytes()[before_last + 4 : before_last + 8] == bytes(4)
        assert read_wal(unfinished, PAGE_BYTES).damaged != ends_nothing, (at, bit)
        untold += ends_nothing
    assert untold == (sizes[before_last].bit_count() == 1)


def test_a_last_commit_with_holes_is_no_damage(unfinished: Path) -> None:
    """As a power cut leaves it, where what was written later came to disk earlier."""
    log = wal_of(unfinished)
    whole = log.read_bytes()
    starts = range(HEADER_BYTES, len(whole), FRAME_BYTES)
    ends = [at + FRAME_BYTES for at in starts if whole[at + 4 : at + 8] != bytes(4)]
    last = range(ends[-2], ends[-1], FRAME_BYTES)
    assert len(last) > 2
    for hole in last:
        log.write_bytes(whole[:hole] + bytes(FRAME_BYTES) + whole[hole + FRAME_BYTES :])
        wal = read_wal(unfinished, PAGE_BYTES)
        assert (wal.end, wal.damaged) == (hole, False)
    with closing(SqliteStore(unfinished, records())) as store:
        assert store.size().events == 11


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
    open_checked(path, records(), "full", lambda: 0.0).close()


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
        assert found.pages == 1
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


def test_a_flipped_bit_where_nothing_is(path: Path) -> None:
    fill(path)
    flip(path, path.read_bytes().rindex(bytes(1000)) + 500)
    with closing(SqliteStore(path, records())) as store:
        found = store.check()
        assert str(found) == "1 damaged pages"
        assert not found.whole
    with pytest.raises(StoreUnavailable, match="1 damaged pages"):
        open_checked(path, records(), "quick", lambda: 0.0)


@pytest.mark.parametrize(
    ("table", "asked"),
    [
        ("events", "SELECT digest FROM events WHERE event_id = 'event-9'"),
        ("users", "SELECT state FROM users WHERE owner = 'user-2'"),
        ("items", "SELECT body FROM items"),
    ],
)
def test_a_flipped_bit_that_makes_a_value_a_text(path: Path, table: str, asked: str) -> None:
    """The lowest bit of its serial type, which is before all columns of its row."""
    fill(path)
    data, value = path.read_bytes(), stored(path, asked)
    at, kind = data.index(value), 12 + 2 * len(value)
    name = bytes([kind]) if kind < 128 else bytes([128 | kind >> 7, kind & 127])
    flip(path, data.rindex(name, at - 120, at) + len(name) - 1)
    with closing(SqliteStore(path, records())) as store:
        found = store.check()
        assert found.damaged == {table: 1}
        assert found.values == 52 + 6 + 1 + 1 + 1 + 1


@pytest.mark.parametrize(
    "asked",
    [
        "SELECT value FROM events WHERE event_id = 'event-9'",
        "SELECT engaged FROM events WHERE event_id = 'event-9'",
    ],
)
def test_what_is_damaged_is_not_served(path: Path, asked: str) -> None:
    fill(path)
    flip_within(path, stored(path, "SELECT value FROM events WHERE event_id = 'event-9'"))
    with closing(opened(path)) as db, pytest.raises(apsw.IOError):
        db.execute(asked).fetchall()
    with closing(open_checked(path, records(), "off", lambda: 0.0)) as store:
        with pytest.raises(StoreUnavailable, match="damaged"):
            list(store.events_of("user-2"))
        # A look at what is damaged does not make it served.
        assert isinstance(store, SqliteStore)
        assert store.check().damaged == {"events": 1}
        with pytest.raises(StoreUnavailable, match="damaged"):
            list(store.events_of("user-2"))


def test_pages_are_looked_at_while_others_write(path: Path) -> None:
    """Whatever is in the log, whatever goes from there into the file meanwhile."""
    fill(path)
    over = threading.Event()

    def write() -> None:
        with closing(SqliteStore(path, records())) as store:
            n = 0
            while not over.is_set():
                store.append([deed(f"w-{n}-{m}", body=bytes(1500)) for m in range(300)])
                n += 1

    writer = threading.Thread(target=write)
    with closing(SqliteStore(path, records())) as store:
        writer.start()
        try:
            assert [str(store.check()) for _ in range(10)] == ["whole"] * 10
        finally:
            over.set()
            writer.join()


def test_a_check_gives_up_no_locks(path: Path) -> None:
    """As it would that opens the file and closes it again."""
    fill(path)
    ask = "from server.state.backup import in_use; import pathlib, sys;"
    ask += "print(in_use(pathlib.Path(sys.argv[1])))"
    with closing(SqliteStore(path, records())) as store:
        assert store.check().whole
        command = [sys.executable, "-c", ask, str(path)]
        assert subprocess.check_output(command, cwd=ROOT, text=True) == "True\n"


# Checksums.


def checksums_hold(path: Path) -> bool:
    """Whether they do, of a file without a log."""
    data = path.read_bytes()
    with closing(apsw.Connection(":memory:")) as db:
        pages = [data[at : at + PAGE_BYTES] for at in range(0, len(data), PAGE_BYTES)]
        return all(db.execute("SELECT verify_checksum(?)", (p,)).fetchone() == (1,) for p in pages)


def test_all_pages_of_a_new_file_have_checksums(path: Path) -> None:
    fill(path)
    assert path.read_bytes()[20] == 8
    assert checksums_hold(path)
    flip(path, PAGE_BYTES * 3 - 1)
    assert not checksums_hold(path)


def test_a_file_of_pages_without_checksums(path: Path) -> None:
    """And one in which they are turned off by a flipped bit."""
    fill(path)
    other = path.with_name("other.db")
    with closing(apsw.Connection(str(other))) as db, closing(opened(path)) as source:
        for name in ("application_id", "user_version"):
            ((number,),) = source.execute(f"PRAGMA {name}")
            db.execute(f"PRAGMA {name} = {number}")
        for (sql,) in source.execute("SELECT sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite%'"):
            if sql:
                db.execute(sql)
    with pytest.raises(StoreUnavailable, match="no checksums"):
        SqliteStore(other, records())
    flip(path, 20)
    with pytest.raises(StoreUnavailable, match="damaged"):
        SqliteStore(path, records())


def test_other_files_of_the_process_have_no_checksums(path: Path) -> None:
    fill(path)
    with closing(SqliteKeyring(path.with_name("keyring"), bytes)):
        pass
    assert path.with_name("keyring").read_bytes()[20] == 0
    with closing(apsw.Connection(str(path.with_name("any.db")))) as db:
        db.execute("CREATE TABLE t (x)")
        assert db.execute("PRAGMA checksum_verification").fetchall() == []


def test_a_file_that_is_made_by_several_at_once(path: Path) -> None:
    """Each keeps checksums, though the file had none when it was opened."""
    late = SqliteFile.__new__(SqliteFile)
    late._path = path
    prepared, connections = late._prepared, []

    def too_late() -> apsw.Connection:
        if not connections:
            db = apsw.Connection(str(path), vfs=CHECKING)  # sees an empty file
            fill(path)
            connections.append(db)
            return db
        return prepared()

    late._prepared = too_late  # type: ignore[method-assign]
    with closing(late._connect()) as db:
        assert db.execute("PRAGMA checksum_verification").fetchall() == [("1",)]
    assert connections


def test_a_damaged_state_is_replaced_and_its_page_with_it(path: Path) -> None:
    fill(path)
    flip_within(path, stored(path, "SELECT state FROM users WHERE owner = 'user-2'"))
    with closing(SqliteStore(path, records())) as store:
        with pytest.raises(StoreUnavailable):
            store.states(["user-2"])
        assert store.rebuild(["user-2"]) == 1
        assert store.states(["user-2"]) != [None]
        assert store.check().whole
    with closing(SqliteStore(path, records())) as store:
        assert store.check().whole


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
