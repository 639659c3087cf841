"""Backups: consistent while others write, checked, put back without losing what was there."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import apsw
import pytest

from server.errors import StoreUnavailable
from server.state.backup import (
    BackupError,
    KeptKeys,
    back_up,
    back_up_server,
    go_on_without_end,
    in_use,
    restore,
)
from server.state.data_keys import DataKeys, MasterKeys
from server.state.keyring import SqliteKeyring
from server.state.keys import Key
from server.state.sealed_vault import SealedVault
from server.state.sqlite import SqliteStore
from server.state.sqlite_wal import wal_of
from server.state.store import RelationRecord, WriteOutcome
from tests.harness.state import records
from tests.suites.store_suite import (
    DAY_US,
    START_US,
    assert_same_traces,
    deed,
    item,
    some_log,
    traces_in,
    traces_of,
)

HOLD = """
import sys
from pathlib import Path
from server.state.sqlite import SqliteStore
from tests.harness.state import records
store = SqliteStore(Path(sys.argv[1]), records())
print("open", flush=True)
sys.stdin.read()
"""
ROOT = Path(__file__).parents[4]


def quiet(*_: object) -> None:
    """Is told, and says nothing."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "backup.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(path, records())) as opened:
        yield opened


def sealed_vault(keyring: Path) -> SealedVault:
    masters = MasterKeys([Key(1, bytes(range(32)))], os.urandom)
    keys = DataKeys(SqliteKeyring(keyring, os.urandom), masters, os.urandom, time.monotonic)
    return SealedVault(keys, os.urandom)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Another process has a state open."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        yield


def filled(path: Path, events: int = 60) -> None:
    with closing(SqliteStore(path, records())) as store:
        store.append(some_log(1, events))
        store.write_items([item("item")])


def names(folder: Path) -> set[str]:
    return {one.name for one in folder.iterdir()}


# Taking one.


def test_a_backup_is_a_state_like_the_one_it_is_of(store: SqliteStore, out: Path) -> None:
    log = some_log(1, 60)
    store.append(log)
    store.write_items([item("item")])
    store.delete_user("bob", "receipt", START_US)
    told: list[str] = []
    done = back_up(store, out, records(), False, lambda what, *_: told.append(what))
    assert done == (store.alarms.store_id, 1, 60, out.stat().st_size)
    assert set(told) >= {"pages", "events", "users"}
    assert out.stat().st_mode & 0o777 == 0o600
    with closing(SqliteStore(out, records())) as copy:
        assert copy.alarms.store_id == store.alarms.store_id
        assert_same_traces(traces_in(copy), traces_of(log))
        assert list(copy.events_of("ann")) == list(store.events_of("ann"))
        assert copy.list_items("", 9) == [item("item")]
        assert copy.deletion("bob") == store.deletion("bob")
        assert copy.append([deed("x", "bob", days=-1)]) == [WriteOutcome.USER_DELETED]
    assert names(out.parent) == {"state.db", "state.db-wal", "state.db-shm", "backup.db"}


def test_a_backup_is_of_one_moment_while_others_write(path: Path, out: Path) -> None:
    """Each commit has an event of each of two users: no backup has one without the other."""
    with closing(SqliteStore(path, records())) as first:
        first.append([deed(f"{n:05}", body=bytes(2000)) for n in range(2000)])
    over = threading.Event()
    written = []

    def write() -> None:
        with closing(SqliteStore(path, records())) as store:
            while not over.is_set():
                n = len(written)
                store.append([deed(f"a{n}", "ann"), deed(f"b{n}", "bob")])
                written.append(n)

    writer = threading.Thread(target=write)
    with closing(SqliteStore(path, records())) as store:
        writer.start()
        try:
            for _ in range(3):
                before = len(written)
                done = back_up(store, out, records(), True, quiet)
                assert not wal_of(out).exists()
                with closing(SqliteStore(out, records())) as copy:
                    pairs = len(list(copy.events_of("bob")))
                    assert before <= pairs <= len(written)
                    assert len(list(copy.events_of("ann"))) == 2000 + pairs
                    assert done.events == 2000 + 2 * pairs
        finally:
            over.set()
            writer.join()
    assert len(written) > 10


def test_all_pages_of_a_backup_have_checksums(store: SqliteStore, out: Path) -> None:
    """Those too that lie in the log alone, where they have none, and do not fit into memory."""
    for n in range(5):
        store.append([deed(f"{n}-{m:05}", body=bytes(2000)) for m in range(1500)])
    back_up(store, out, records(), False, quiet)
    data = out.read_bytes()
    assert len(data) > 8_000_000
    with closing(apsw.Connection(":memory:")) as db:
        for at in range(0, len(data), 4096):
            page = data[at : at + 4096]
            assert db.execute("SELECT verify_checksum(?)", (page,)).fetchall() == [(1,)]


def test_a_backup_replaces_nothing_unless_told_to(store: SqliteStore, out: Path) -> None:
    out.write_bytes(b"precious")
    with pytest.raises(BackupError, match="--force"):
        back_up(store, out, records(), False, quiet)
    assert out.read_bytes() == b"precious"
    back_up(store, out, records(), True, quiet)
    with closing(SqliteStore(out, records())) as copy:
        assert copy.size().events == 0


def test_a_backup_takes_the_place_of_no_state_in_use(store: SqliteStore, path: Path) -> None:
    with pytest.raises(BackupError, match="in use"):
        back_up(store, path, records(), True, quiet)


def test_of_a_damaged_state_there_is_no_backup(path: Path, out: Path) -> None:
    with closing(SqliteStore(path, records())) as store:
        store.append([deed("a", body=b"body to be damaged")])
    data = path.read_bytes()
    path.write_bytes(data.replace(b"body to be damaged", b"body to be demaged"))
    with (
        closing(SqliteStore(path, records())) as store,
        pytest.raises(StoreUnavailable, match="damaged"),
    ):
        back_up(store, out, records(), False, quiet)
    assert names(out.parent) == {"state.db"}


def test_what_an_earlier_attempt_left_is_no_hindrance(store: SqliteStore, out: Path) -> None:
    store.append([deed("a")])
    out.with_name("backup.db.partial").write_bytes(b"half of it")
    out.with_name("backup.db.partial-wal").write_bytes(b"half of it")
    assert back_up(store, out, records(), False, quiet).events == 1


def test_there_is_no_room_for_a_backup(store: SqliteStore, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="cannot be written"):
        back_up(store, tmp_path / "nowhere" / "backup.db", records(), False, quiet)


def test_a_backup_by_copying_users(store: SqliteStore, out: Path) -> None:
    """As of another engine."""
    log = some_log(2, 80)
    store.append(log)
    store.delete_user("bob", "receipt", START_US)
    kept = records(vault=KeptKeys(records().vault))
    done = back_up_server(store, out, kept, False, quiet, START_US, time.sleep)
    assert done[:3] == (store.alarms.store_id, 1, 80)
    with closing(SqliteStore(out, records())) as copy:
        assert_same_traces(traces_in(copy), traces_of(log))
        assert copy.deletion("bob") == store.deletion("bob")


# Putting one back.


def test_a_backup_is_put_back_and_what_was_there_is_kept(path: Path, out: Path) -> None:
    filled(path)
    with closing(SqliteStore(path, records())) as store:
        back_up(store, out, records(), False, quiet)
        store.append([deed("later", days=400)])
    aside = path.with_name("aside.db")
    done = restore(out, path, records(), aside, quiet)
    assert (done.backup.events, done.aside, done.unreadable, done.deleted) == (60, aside, 0, 0)
    with closing(SqliteStore(path, records())) as store:
        assert store.size().events == 60
        assert_same_traces(traces_in(store), traces_of(some_log(1, 60)))
    with closing(SqliteStore(aside, records())) as store:
        assert store.size().events == 61
    assert names(path.parent) == {"state.db", "backup.db", "aside.db"}


def test_a_backup_where_there_was_nothing(path: Path, out: Path, tmp_path: Path) -> None:
    filled(out)
    done = restore(out, path, records(), tmp_path / "aside.db", quiet)
    assert (done.backup.events, done.aside, done.deleted) == (60, None, None)
    with closing(SqliteStore(path, records())) as store:
        assert store.size().events == 60


def test_a_damaged_file_and_its_log_are_kept_and_replaced(
    path: Path, out: Path, tmp_path: Path
) -> None:
    filled(out)
    path.write_bytes(b"SQLite format 3\0" + bytes(5000))
    wal_of(path).write_bytes(b"of something else")
    aside = tmp_path / "aside.db"
    assert restore(out, path, records(), aside, quiet).deleted is None
    assert aside.read_bytes().startswith(b"SQLite")
    with closing(SqliteStore(path, records())) as store:
        assert store.check().whole
        assert store.size().events == 60


def test_a_state_in_use_is_not_replaced(path: Path, out: Path, tmp_path: Path) -> None:
    filled(path)
    filled(out, 30)
    assert not in_use(path)
    with held(path):
        assert in_use(path)
        with pytest.raises(BackupError, match="stop its gateways"):
            restore(out, path, records(), tmp_path / "aside.db", quiet)
    restore(out, path, records(), tmp_path / "aside.db", quiet)


@pytest.mark.parametrize("damage", ["flipped", "torn", "no backup", "missing"])
def test_a_backup_that_is_not_whole_is_not_put_back(
    path: Path, out: Path, tmp_path: Path, damage: str
) -> None:
    filled(path)
    filled(out)
    data = out.read_bytes()
    if damage == "flipped":
        at = data.index(b"sports")
        out.write_bytes(data[:at] + b"S" + data[at + 1 :])
    elif damage == "torn":
        out.write_bytes(data[: len(data) // 2])
    elif damage == "no backup":
        out.write_bytes(b"no backup at all" * 999)
    else:
        out.unlink()
    before = path.read_bytes()
    with pytest.raises((BackupError, StoreUnavailable)):
        restore(out, path, records(), tmp_path / "aside.db", quiet)
    assert path.read_bytes() == before
    assert names(tmp_path) <= {"state.db", "backup.db"}


def test_who_was_deleted_since_does_not_come_back(path: Path, out: Path, tmp_path: Path) -> None:
    with closing(SqliteStore(path, records())) as store:
        store.append([deed("a"), deed("b", "bob"), deed("c", "cyd")])
        store.write_relations([RelationRecord("dan", "cyd", b"")])
        store.delete_user("eve", "early", START_US)
        back_up(store, out, records(), False, quiet)
        store.delete_user("bob", "late", START_US + DAY_US)
        store.delete_user("dan", "late too", START_US + DAY_US)
    done = restore(out, path, records(), tmp_path / "aside.db", quiet)
    assert done.deleted == 2
    with closing(SqliteStore(path, records())) as store:
        assert {one.user_id for one in store.users("", 9)[0]} == {"ann", "cyd"}
        assert store.relations_with("cyd") == []
        assert store.size()[:2] == (2, 2)
        deletion = store.deletion("bob")
        assert deletion is not None
        assert deletion.receipt_id == "late"
        assert store.append([deed("b", "bob")]) == [WriteOutcome.USER_DELETED]
        assert store.check().whole


def test_whose_key_is_gone_is_left_out(path: Path, out: Path, tmp_path: Path) -> None:
    """Though the file that knew of the deletion is lost."""
    with closing(sealed_vault(tmp_path / "keyring")) as vault:
        with closing(SqliteStore(path, records(vault=vault))) as store:
            store.append([deed("a"), deed("b", "bob")])
            back_up(store, out, records(vault=vault), False, quiet)
            store.delete_user("bob", "receipt", START_US)
            store.append([deed("back", "bob", days=1)])
        path.unlink()
        done = restore(out, path, records(vault=vault), tmp_path / "aside.db", quiet)
        assert (done.unreadable, done.deleted) == (1, None)
        with closing(SqliteStore(path, records(vault=vault))) as store:
            assert [one.user_id for one in store.users("", 9)[0]] == ["ann"]
            assert store.append([deed("back", "bob", days=1)]) == [WriteOutcome.ACCEPTED]
    with (
        closing(sealed_vault(tmp_path / "another keyring")) as vault,
        pytest.raises(StoreUnavailable, match="other keys"),
    ):
        restore(out, path, records(vault=vault), tmp_path / "aside.db", quiet)


# Going on without the end of a damaged log.


def test_going_on_without_the_end_of_a_log(path: Path, tmp_path: Path) -> None:
    running = tmp_path / "running.db"
    with closing(SqliteStore(running, records())) as store:
        for n in range(10):
            store.append([deed(f"e{n}", body=bytes(5000))])
        path.write_bytes(running.read_bytes())
        log = bytearray(wal_of(running).read_bytes())
    wal_of(path).write_bytes(log)
    with pytest.raises(BackupError, match="is whole"):
        go_on_without_end(path, tmp_path / "aside")
    log[len(log) // 2] ^= 1
    wal_of(path).write_bytes(log)
    gone = go_on_without_end(path, tmp_path / "aside")
    assert (tmp_path / "aside").read_bytes() == log
    assert wal_of(path).stat().st_size == len(log) - gone
    with closing(SqliteStore(path, records())) as store:
        assert 0 < store.size().events < 10
        assert store.check().whole


def test_what_was_read_of_the_log_before_a_restore_does_not_go_on(
    path: Path, out: Path, tmp_path: Path
) -> None:
    """Events that come after it have the numbers of others, which would be skipped."""
    filled(path, 30)
    with closing(SqliteStore(path, records())) as store:
        back_up(store, out, records(), False, quiet)
        store.append([deed("lost")])
        page, cursor = store.log("", 100)
        assert len(page) == 31
    restore(out, path, records(), tmp_path / "aside.db", quiet)
    with closing(SqliteStore(path, records())) as store:
        store.append([deed("new")])
        with pytest.raises(StoreUnavailable, match="export into a new folder"):
            store.log(cursor, 100)
        page, cursor = store.log("", 100)
        assert page[-1].event_id == "new"
        assert store.log(cursor, 100) == ([], cursor)
