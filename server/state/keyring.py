"""The keyring: every owner's data key, wrapped, apart from the state it opens."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import apsw

from server.errors import EbbingError, StorageFull, StoreUnavailable
from server.state.sqlite_kind import FileKind, step

__all__ = ["Keyring", "SqliteKeyring", "WrappedKey"]

KEYRING = FileKind("keyring", "keyring", application_id=0x45626232, schema_version=1)
BUSY_TIMEOUT_MS = 5000
SCHEMA = """
CREATE TABLE data_keys (
    owner TEXT PRIMARY KEY,
    master INTEGER NOT NULL,
    wrapped BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX data_keys_by_master ON data_keys (master);
CREATE TABLE facts (identity TEXT NOT NULL, erasures INTEGER NOT NULL);
"""


class WrappedKey(NamedTuple):
    """A data key as it is kept."""

    owner: str
    master: int
    """Version of the master key that opens it."""
    wrapped: bytes


class Keyring(Protocol):
    """Where wrapped data keys live; several processes may share one, several threads its handle.

    All calls raise ``StoreUnavailable`` where it cannot be read or written, those that write also
    ``StorageFull``. What they write is durable when they return.
    """

    identity: str
    """Made with the keyring, at random: a state is read with the keyring that it was written with,
    or with a copy of it."""

    def find(self, owners: Sequence[str]) -> list[WrappedKey]:
        """The keys that there are, in any order."""
        ...

    def add(self, keys: Sequence[WrappedKey]) -> list[WrappedKey]:
        """Add keys of owners that have none; the keys that these owners have now."""
        ...

    def remove(self, owners: Sequence[str]) -> None:
        """Remove keys, and their bytes from wherever the keyring keeps them.

        Removing again is no error, and completes what an earlier call could not.

        Raises:
            StoreUnavailable: their bytes may still be there.
        """
        ...

    def erasures(self) -> int:
        """A number that grows whenever a key is removed; cheap to ask for."""
        ...

    def masters(self) -> list[WrappedKey]:
        """For each master key that is in use, one of the keys it opens."""
        ...

    def of_other_masters(self, master: int, limit: int) -> list[WrappedKey]:
        """Keys that other masters open, so many at most."""
        ...

    def replace(self, changes: Iterable[tuple[WrappedKey, WrappedKey]]) -> None:
        """Put new keys in the place of old ones, where the old ones still are."""
        ...

    def close(self) -> None:
        """Give everything back; the keyring is not used again."""
        ...


class SqliteKeyring:
    """``Keyring`` on one SQLite file of its own."""

    def __init__(self, path: Path, random: Callable[[int], bytes]) -> None:
        """Open or make the file, readable by its owner alone.

        Args:
            path: the file; its folder must exist.
            random: so many random bytes.

        Raises:
            StoreUnavailable: it is locked, no keyring, of another version or damaged.
            StorageFull: there is no room for it.
        """
        # Each connection has a lock, as several threads use it; who reads never waits for a sync.
        self._reading, self._writing = threading.Lock(), threading.Lock()
        with _translated():
            path.touch(mode=0o600)
            self._write = _connected(path)
            try:
                self._make(random)
                self._read = _connected(path)
            except BaseException:
                self._write.close()
                raise
        ((self.identity,),) = self._rows("SELECT identity FROM facts")

    def find(self, owners: Sequence[str]) -> list[WrappedKey]:
        """The keys that there are, in any order."""
        if len(owners) == 1:
            return self._keys("WHERE owner = ?", owners)
        return self._keys("WHERE owner IN (SELECT value FROM json_each(?))", (json.dumps(owners),))

    def add(self, keys: Sequence[WrappedKey]) -> list[WrappedKey]:
        """Add keys of owners that have none; the keys that these owners have now."""
        with self._transaction() as db:
            db.executemany("INSERT OR IGNORE INTO data_keys VALUES (?, ?, ?)", keys)
        return self.find([key.owner for key in keys])

    def remove(self, owners: Sequence[str]) -> None:
        """Remove keys, and their bytes from the file and from its write-ahead log.

        Raises:
            StoreUnavailable: their bytes may still be there.
        """
        with self._transaction() as db:
            db.execute(
                "DELETE FROM data_keys WHERE owner IN (SELECT value FROM json_each(?))",
                (json.dumps(owners),),
            )
            db.execute("UPDATE facts SET erasures = erasures + ?", (db.changes(),))
        with _translated(), self._writing:
            ((busy, *_),) = self._write.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if busy:
            raise StoreUnavailable(
                "keys were removed, but their bytes may still be in the keyring's log, as another"
                " process reads it: delete again"
            )

    def erasures(self) -> int:
        """A number that grows whenever a key is removed."""
        return int(self._rows("SELECT erasures FROM facts")[0][0])

    def masters(self) -> list[WrappedKey]:
        """For each master key that is in use, one of the keys it opens."""
        found: list[WrappedKey] = []
        # Stepping through the index, which DISTINCT would read whole.
        while more := self._keys(
            "WHERE master > ? ORDER BY master LIMIT 1", (found[-1].master if found else -1,)
        ):
            found += more
        return found

    def of_other_masters(self, master: int, limit: int) -> list[WrappedKey]:
        """Keys that other masters open, so many at most."""
        below = self._keys("WHERE master < ? LIMIT ?", (master, limit))
        return below or self._keys("WHERE master > ? LIMIT ?", (master, limit))

    def replace(self, changes: Iterable[tuple[WrappedKey, WrappedKey]]) -> None:
        """Put new keys in the place of old ones, where the old ones still are."""
        with self._transaction() as db:
            db.executemany(
                "UPDATE data_keys SET master = ?, wrapped = ? WHERE owner = ? AND wrapped = ?",
                ((new.master, new.wrapped, old.owner, old.wrapped) for old, new in changes),
            )

    def close(self) -> None:
        """Give everything back; the keyring is not used again."""
        self._read.close()
        self._write.close()

    def _keys(self, where: str, values: Sequence[Any]) -> list[WrappedKey]:
        rows = self._rows(f"SELECT owner, master, wrapped FROM data_keys {where}", values)
        return [WrappedKey(*row) for row in rows]

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with _translated(), self._reading:
            return self._read.execute(sql, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[apsw.Connection]:
        with _translated(), self._writing, step(self._write) as db:
            yield db

    def _make(self, random: Callable[[int], bytes]) -> None:
        with self._transaction() as db:
            if not next(db.execute("SELECT count(*) FROM sqlite_schema"))[0]:
                db.execute(SCHEMA)
                db.execute("INSERT INTO facts VALUES (?, 0)", (random(8).hex(),))
                KEYRING.mark(db)


def _connected(path: Path) -> apsw.Connection:
    db = apsw.Connection(str(path))
    try:
        db.set_busy_timeout(BUSY_TIMEOUT_MS)
        KEYRING.require(db)  # before the first pragma that writes: the file may be somebody else's
        # What is deleted is overwritten, or it would stay readable in the file's free space.
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
            db.execute(f"PRAGMA {pragma}").fetchall()
    except BaseException:
        db.close()
        raise
    return db


@contextmanager
def _translated() -> Iterator[None]:
    """Turn SQLite's errors into the store's."""
    try:
        yield
    except EbbingError:
        raise
    except apsw.FullError as error:
        raise StorageFull(
            "the keyring has no room left; nothing was written: free disk space"
        ) from error
    except (apsw.BusyError, apsw.LockedError) as error:
        raise StoreUnavailable(
            "the keyring is locked by another process: stop it, or wait for it to finish"
        ) from error
    except (apsw.NotADBError, apsw.CorruptError) as error:
        raise StoreUnavailable(
            "the keyring is damaged, or is none: restore it from its backup"
        ) from error
    except (apsw.Error, OSError) as error:
        raise StoreUnavailable(
            "the keyring cannot be read or written: check its folder, its permissions and the disk"
        ) from error
