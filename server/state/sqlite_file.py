"""One SQLite file with a write-ahead log: connections, transactions, and its errors translated.

Writes come from one thread, reads from another, each on its own connection. Every commit is
synced to disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from server.errors import EbbingError, StorageFull, StoreUnavailable

__all__ = ["SqliteFile"]

SCHEMA_VERSION = 2
APPLICATION_ID = 0x45626231
BUSY_TIMEOUT_MS = 5000


class SqliteFile:
    """A state file; what its tables mean is for others to know."""

    def __init__(self, path: Path, schema: str, max_bytes: int = 0) -> None:
        """Open or make the file.

        Args:
            path: the file; its folder must exist.
            schema: makes the tables of a new file.
            max_bytes: largest size of the file; 0 is no limit.

        Raises:
            StoreUnavailable: the file is locked, not a state file, of another version or damaged.
            StorageFull: there is no room for it.
        """
        self._path = path
        with self._translated():
            self.write = self._connect()
            self._prepare(schema, max_bytes)
            self._read = self._connect()

    @contextmanager
    def transaction(self) -> Iterator[apsw.Connection]:
        """One synced transaction that holds the write lock from its start; rolled back on error."""
        db = self.write
        with self._translated():
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows as the thread that reads sees them."""
        with self._translated():
            return self._read.execute(sql, values).fetchall()

    def rows_for_writing(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows as the thread that writes sees them, outside of a transaction."""
        with self._translated():
            return self.write.execute(sql, values).fetchall()

    def close(self) -> None:
        """Give everything back; the file is not used again."""
        self._read.close()
        self.write.close()

    def _connect(self) -> apsw.Connection:
        db = apsw.Connection(str(self._path))
        db.set_busy_timeout(BUSY_TIMEOUT_MS)
        self._check(db)  # before the first pragma that writes: the file may be somebody else's
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "cache_size = -65536"):
            db.execute(f"PRAGMA {pragma}").fetchall()
        return db

    @staticmethod
    def _check(db: apsw.Connection) -> None:
        # First, as another gateway may be making the file: with its tables comes all the rest.
        ((tables,),) = db.execute("SELECT count(*) FROM sqlite_schema")
        ((application,),) = db.execute("PRAGMA application_id")
        ((version,),) = db.execute("PRAGMA user_version")
        if tables and application != APPLICATION_ID:
            raise StoreUnavailable("not a state file of Ebbing: name another file")
        if tables and version != SCHEMA_VERSION:
            raise StoreUnavailable(
                f"the state is of version {version}, this gateway reads {SCHEMA_VERSION}:"
                " run the version that wrote it"
            )

    def _prepare(self, schema: str, max_bytes: int) -> None:
        db = self.write
        ((page_bytes,),) = db.execute("PRAGMA page_size")
        if max_bytes:
            db.execute(f"PRAGMA max_page_count = {max(1, max_bytes // page_bytes)}")
        with self.transaction():
            if not next(db.execute("SELECT count(*) FROM sqlite_schema"))[0]:
                db.execute(schema)
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn SQLite's errors into the store's."""
        try:
            yield
        except EbbingError:
            raise
        except apsw.FullError as error:
            raise StorageFull(
                "the state file has no room left; nothing was written: free disk space,"
                " or raise max_state_bytes"
            ) from error
        except (apsw.BusyError, apsw.LockedError) as error:
            raise StoreUnavailable(
                "the state file is locked by another process: stop it, or wait for it to finish"
            ) from error
        except (apsw.NotADBError, apsw.CorruptError) as error:
            raise StoreUnavailable(
                "the state file is damaged, or is none: restore it from a backup"
            ) from error
        except (apsw.CantOpenError, apsw.ReadOnlyError, apsw.PermissionsError) as error:
            raise StoreUnavailable(
                "the state file cannot be opened for writing: check its folder and permissions"
            ) from error
        except apsw.IOError as error:
            raise StoreUnavailable(
                "the state file cannot be read or written: check the disk"
            ) from error
