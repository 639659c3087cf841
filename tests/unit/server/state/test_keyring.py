"""The keyring on a file: the suite of every keyring, and what only a file can do wrong."""

from __future__ import annotations

import os
import random
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import apsw
import pytest

from server.errors import StoreUnavailable
from server.state import keyring as module
from server.state.keyring import SqliteKeyring
from tests.suites.keyring_suite import KeyringSuite, OpenKeyring, key

ADD = """
import os, sys
from pathlib import Path
from server.state.keyring import SqliteKeyring, WrappedKey
keyring = SqliteKeyring(Path(sys.argv[1]), os.urandom)
sys.stdin.readline()
mine = [WrappedKey(f"user-{i}", 1, os.urandom(60)) for i in range(200)]
print(keyring.identity, *(one.wrapped.hex() for one in sorted(keyring.add(mine))))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.keys"


class TestSqliteKeyring(KeyringSuite):
    @pytest.fixture
    def open_keyring(self, tmp_path: Path) -> Iterator[OpenKeyring]:
        with ExitStack() as opened:

            def open_it(name: str = "state") -> SqliteKeyring:
                keyring = SqliteKeyring(tmp_path / f"{name}.keys", os.urandom)
                return opened.enter_context(closing(keyring))

            yield open_it


def on_disk(path: Path) -> bytes:
    """All bytes of the file and of what SQLite keeps beside it."""
    return b"".join(one.read_bytes() for one in sorted(path.parent.glob(path.name + "*")))


def test_the_bytes_of_a_removed_key_are_nowhere(path: Path) -> None:
    with closing(SqliteKeyring(path, os.urandom)) as keyring:
        with closing(SqliteKeyring(path, os.urandom)) as other:
            keyring.add([key("ann", b"the wrapped key of ann"), key("ben", b"that of ben")])
            other.find(["ann"])
            assert b"the wrapped key of ann" in on_disk(path)
            other.remove(["ann"])
            assert b"the wrapped key of ann" not in on_disk(path)
            assert b"ann" not in on_disk(path)
            assert b"that of ben" in on_disk(path)
        keyring.remove(["ben"])
        assert b"that of ben" not in on_disk(path)


def test_nothing_stays_when_pages_were_split_and_merged_in_between(path: Path) -> None:
    chance = random.Random(7)
    alive: dict[str, bytes] = {}
    gone: list[bytes] = []
    with closing(SqliteKeyring(path, os.urandom)) as keyring:
        for _ in range(150):
            new = {chance.randbytes(11).hex(): chance.randbytes(60) for _ in range(10)}
            keyring.add([key(owner, wrapped) for owner, wrapped in new.items()])
            alive |= new
            for owner in chance.sample(sorted(alive), 3):
                keyring.remove([owner])
                gone.append(alive.pop(owner))
        content = on_disk(path)
    assert all(wrapped in content for wrapped in alive.values())
    # Parts too: a page may have been cut anywhere.
    parts = {content[at : at + 12] for at in range(len(content))}
    assert not [wrapped for wrapped in gone for at in range(49) if wrapped[at : at + 12] in parts]


def test_removing_fails_while_a_reader_keeps_the_log_and_completes_afterwards(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY_TIMEOUT_MS", 50)
    with closing(SqliteKeyring(path, os.urandom)) as keyring:
        keyring.add([key("ann", b"the wrapped key of ann")])
        with closing(apsw.Connection(str(path))) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM data_keys").fetchall()
            with pytest.raises(StoreUnavailable, match="delete again"):
                keyring.remove(["ann"])
            assert keyring.find(["ann"]) == []
            reader.execute("COMMIT")
        keyring.remove(["ann"])
        assert b"the wrapped key of ann" not in on_disk(path)


def test_processes_that_make_one_keyring_at_once_agree(path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ADD, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[4],
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    told = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert told[0].count(" ") == 200
    assert len(set(told)) == 1


def test_only_the_owner_of_the_file_may_read_it(path: Path) -> None:
    with closing(SqliteKeyring(path, os.urandom)) as keyring:
        keyring.add([key("ann")])
        modes = [stat.S_IMODE(one.stat().st_mode) for one in path.parent.glob("state.keys*")]
        assert modes == [0o600] * 3


def test_a_file_that_is_no_keyring(path: Path) -> None:
    content = b"no database, whatever its name" * 100
    path.write_bytes(content)
    with pytest.raises(StoreUnavailable, match="damaged, or is none"):
        SqliteKeyring(path, os.urandom)
    assert path.read_bytes() == content


def test_a_database_of_something_else_is_left_as_it_is(path: Path) -> None:
    with closing(apsw.Connection(str(path))) as theirs:
        theirs.execute("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)")
    content = path.read_bytes()
    with pytest.raises(StoreUnavailable, match="not a keyring of Ebbing"):
        SqliteKeyring(path, os.urandom)
    assert path.read_bytes() == content


def test_a_keyring_of_another_version(path: Path) -> None:
    SqliteKeyring(path, os.urandom).close()
    with closing(apsw.Connection(str(path))) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreUnavailable, match="version 99, this gateway reads 1"):
        SqliteKeyring(path, os.urandom)


def test_a_damaged_keyring(path: Path) -> None:
    with closing(SqliteKeyring(path, os.urandom)) as keyring:
        keyring.add([key(f"user-{i}", os.urandom(60)) for i in range(2000)])
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    with pytest.raises(StoreUnavailable, match="restore it from its backup"):
        SqliteKeyring(path, os.urandom)


def test_a_folder_that_is_not_there(path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="check its folder"):
        SqliteKeyring(path.parent / "missing" / "state.keys", os.urandom)


def test_a_locked_keyring_is_still_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUSY_TIMEOUT_MS", 50)
    with closing(SqliteKeyring(path, os.urandom)) as keyring:
        keyring.add([key("ann")])
        with closing(apsw.Connection(str(path))) as other:
            other.execute("BEGIN IMMEDIATE")
            for change in (lambda: keyring.add([key("ben")]), lambda: keyring.remove(["ann"])):
                with pytest.raises(StoreUnavailable, match="locked by another process"):
                    change()
            assert keyring.find(["ann", "ben"]) == [key("ann")]
        keyring.remove(["ann"])
        assert keyring.find(["ann"]) == []
