"""The embedded store: the suite of every store, and what only a file can do wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import apsw
import apsw.sqlite_extra
import pytest

from ebbing.interest.trace import TraceTable
from server.errors import StorageFull, StoreUnavailable
from server.state import sqlite_file
from server.state.data_keys import DataKeys, MasterKeys
from server.state.keyring import SqliteKeyring
from server.state.keys import Key
from server.state.pseudonyms import PseudonymousVault
from server.state.sealed_vault import SealedVault
from server.state.sqlite import SqliteStore
from server.state.sqlite_file import opened
from server.state.store import WriteOutcome
from tests.harness.state import records
from tests.suites.store_suite import (
    OpenStore,
    StoreSuite,
    assert_same_traces,
    deed,
    item,
    traces_in,
)

KEY = Key(1, bytes(range(32)))

LOCK = """
import sys, apsw
db = apsw.Connection(sys.argv[1])
db.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


class TestSqliteStore(StoreSuite):
    @pytest.fixture
    def open_store(self, path: Path) -> Iterator[OpenStore]:
        with ExitStack() as opened:

            def open_it(**kept: Any) -> SqliteStore:
                return opened.enter_context(closing(SqliteStore(path, records(**kept))))

            yield open_it


class TestSealedSqliteStore(StoreSuite):
    """The same where users have pseudonyms and values are encrypted."""

    @pytest.fixture
    def open_store(self, path: Path) -> Iterator[OpenStore]:
        with ExitStack() as opened:

            def open_it(**kept: Any) -> SqliteStore:
                keyring = SqliteKeyring(path.with_name("keys"), os.urandom)
                keys = DataKeys(keyring, MasterKeys([KEY], os.urandom), os.urandom, time.monotonic)
                vault = PseudonymousVault(SealedVault(keys, os.urandom), KEY)
                opened.enter_context(closing(vault))
                store = SqliteStore(path, records(**kept, vault=vault))
                return opened.enter_context(closing(store))

            yield open_it


@pytest.fixture
def locked(path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], ExitStack]:
    """Lets another process hold the write lock while a block runs."""
    monkeypatch.setattr(sqlite_file, "BUSY_TIMEOUT_MS", 50)

    def hold() -> ExitStack:
        stack = ExitStack()
        other = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", LOCK, str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        return stack

    return hold


def refused(error: pytest.ExceptionInfo[Exception], path: Path, words: str) -> None:
    """The message says what is the matter, and never where the file lies."""
    assert words in str(error.value)
    assert str(path) not in str(error.value)
    assert path.name not in str(error.value)


def test_a_file_that_another_process_has_locked(
    path: Path, locked: Callable[[], ExitStack]
) -> None:
    with closing(SqliteStore(path, records())) as store:
        store.append([deed("a")])
        with locked():
            with pytest.raises(StoreUnavailable) as error:
                store.append([deed("b")])
            refused(error, path, "locked by another process")
            with pytest.raises(StoreUnavailable) as error:
                SqliteStore(path, records())
            refused(error, path, "locked by another process")
            # Whoever only reads is not kept waiting.
            assert traces_in(store) is not None
        assert store.append([deed("b")]) == [WriteOutcome.ACCEPTED]


@pytest.mark.parametrize("content", [b"no database, whatever its name" * 100, b"notes\n"])
def test_a_file_that_is_no_database(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StoreUnavailable) as error:
        SqliteStore(path, records())
    refused(error, path, "damaged, or is none")
    assert path.read_bytes() == content


def test_a_damaged_file(path: Path) -> None:
    with closing(SqliteStore(path, records())) as store:
        store.append([deed(f"e{i}", item_id=f"i{i}", body=bytes(1000)) for i in range(200)])
    whole = path.read_bytes()
    # The header stays, so that it opens; the pages behind it are gone.
    path.write_bytes(whole[:8192] + b"\xff" * (len(whole) - 8192))
    with pytest.raises(StoreUnavailable) as error, closing(SqliteStore(path, records())) as store:
        list(store.interactions("ann", 2**62))
    refused(error, path, "damaged")


def test_a_database_of_another_application_is_left_as_it_is(path: Path) -> None:
    with closing(apsw.Connection(str(path))) as other:
        other.execute("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)")
    content = path.read_bytes()
    with pytest.raises(StoreUnavailable) as error:
        SqliteStore(path, records())
    refused(error, path, "not a state file of Ebbing")
    assert path.read_bytes() == content


def test_a_state_of_another_version(path: Path) -> None:
    SqliteStore(path, records()).close()
    with closing(opened(path)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreUnavailable) as error:
        SqliteStore(path, records())
    refused(error, path, "version 99")


def test_an_sqlite_that_cannot_keep_checksums(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(db: apsw.Connection, name: str) -> None:
        raise apsw.sqlite_extra.NotAvailable(f"{name} is not included")

    monkeypatch.setattr(apsw.sqlite_extra, "load", load)
    sqlite_file._load_checking.cache_clear()
    with pytest.raises(StoreUnavailable, match=r"cksumvfs\): run 'pip install --force-reinstall"):
        SqliteStore(path, records())
    assert not path.exists()


@pytest.mark.parametrize("where", ["missing folder", "folder"])
def test_a_file_that_cannot_be_made(tmp_path: Path, where: str) -> None:
    place = tmp_path / "away" / "state.db" if where == "missing folder" else tmp_path
    with pytest.raises(StoreUnavailable) as error:
        SqliteStore(place, records())
    refused(error, place, "cannot be opened")


def test_a_full_store_takes_nothing_and_goes_on_with_more_room(path: Path) -> None:
    limit = 256 * 1024
    with closing(SqliteStore(path, records(), limit)) as store:
        store.append([deed("a", item_id="i")])
        store.write_items([item("i")])
        accepted = ["a"]
        with pytest.raises(StorageFull) as error:
            for n in range(1000):
                big = [deed(f"{n}-{i}", days=n, body=bytes(2000)) for i in range(10)]
                store.append(big)
                accepted += [one.event_id for one in big]
        refused(error, path, "nothing was written")
        assert 10 < len(accepted) < 200
        assert path.stat().st_size <= limit
        kept = list(store.interactions("ann", 2**62))
        assert sorted(i.event_id for i in kept) == sorted(accepted)
        whole = TraceTable.from_events((i.time_s, i.weight, i.interests) for i in kept)
        assert_same_traces(traces_in(store), whole)
        with pytest.raises(StorageFull):
            store.write_items([item(f"i{n}", body=bytes(2000)) for n in range(200)])
        assert [i.item_id for i in store.list_items("", 10)] == ["i"]
    with closing(SqliteStore(path, records(), 2 * limit)) as store:
        assert store.append(big) == [WriteOutcome.ACCEPTED] * 10
        assert_same_traces(
            traces_in(store),
            TraceTable.from_events((i.time_s, i.weight, i.interests) for i in [*kept, *big]),
        )


def test_no_room_for_a_state_at_all(path: Path) -> None:
    with pytest.raises(StorageFull):
        SqliteStore(path, records(), max_bytes=1)


def test_two_stores_on_one_file_lose_none_of_each_others_writes(path: Path) -> None:
    rounds, start = 40, threading.Barrier(2)
    failures: list[BaseException] = []

    def write(name: str) -> None:
        try:
            with closing(SqliteStore(path, records())) as store:
                start.wait()
                for n in range(rounds):
                    # Both write to the same user, interest and item, and one event they share.
                    own = deed(f"{name}{n}", item_id="i", days=n)
                    store.append([own, deed(f"both{n}", item_id="j", days=n)])
        except BaseException as error:
            failures.append(error)

    writers = [threading.Thread(target=write, args=(name,)) for name in "xy"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert not failures
    with closing(SqliteStore(path, records())) as store:
        log = list(store.interactions("ann", 2**62))
        assert len(log) == 3 * rounds
        whole = TraceTable.from_events((i.time_s, i.weight, i.interests) for i in log)
        assert_same_traces(traces_in(store), whole)


def test_two_stores_on_one_file_see_each_others_writes(path: Path) -> None:
    with (
        closing(SqliteStore(path, records())) as one,
        closing(SqliteStore(path, records())) as other,
    ):
        before = other.catalogue_version()
        one.write_items([item("i")])
        assert other.catalogue_version() != before
        one.append([deed("a")])
        other.append([deed("b", days=1)])
        assert_same_traces(traces_in(one), traces_in(other))
        assert len(list(one.interactions("ann", 2**62))) == 2


def test_many_gateways_may_make_the_file_at_once(path: Path) -> None:
    start, failures = threading.Barrier(4), []

    def make() -> None:
        start.wait()
        try:
            SqliteStore(path, records()).close()
        except BaseException as error:
            failures.append(error)

    makers = [threading.Thread(target=make) for _ in range(4)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert not failures
