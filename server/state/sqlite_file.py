"""One SQLite file with a write-ahead log: connections, transactions, and its errors translated.

Writes come from one thread, reads from another, each on its own connection. Every commit is
synced to disk. Every page ends with a checksum, which is looked at whenever the page is read
(SQLite's own extension, sqlite.org/cksumvfs.html): a bit that flips on disk is never served.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import apsw
import apsw.sqlite_extra
import numpy as np

from server.errors import EbbingError, StorageFull, StoreUnavailable
from server.state.sqlite_kind import FileKind, step
from server.state.sqlite_wal import read_wal, sums_of

__all__ = ["PRAGMAS", "SqliteFile", "opened"]

STATE = FileKind("state file", "state", application_id=0x45626231, schema_version=4)
PRAGMAS = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "cache_size = -65536",
    # What is written into the file at once: of 16 MB of log, pages that many events change are
    # written once. More would make commits wait longer where the disk is slow.
    "wal_autocheckpoint = 4000",
    "secure_delete = ON",  # what is deleted is gone
)
"""Of each connection."""
BUSY_TIMEOUT_MS = 5000
DAMAGED = "the state file is damaged, or is none: restore it from a backup"
NO_CHECKSUMS = (
    "the pages of the state file have no checksums, as it is damaged or of an earlier version:"
    " restore a backup with 'ebbing state restore'"
)
STEPS_BETWEEN_LOOKS = 10_000
"""Of SQLite's machine, between two looks whether a check is to be given up."""
PAGES_AT_ONCE = 256
"""That are copied or looked at."""
CHECKSUM_BYTES = 8
"""At the end of each page."""
EXTENSION, CHECKING = "cksumvfs", "cksmvfs"
"""SQLite's names for the extension that keeps checksums, and for its way to files."""
UNUSED_PAGE_AT = 2**30
"""Where the page lies that SQLite keeps its locks in, bytes; it is never written."""


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
            try:
                self._prepare(schema, max_bytes)
                self._read = self._connect()
                self.write.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
            except BaseException:
                self.write.close()
                raise

    @contextmanager
    def transaction(self) -> Iterator[apsw.Connection]:
        """One synced transaction that holds the write lock from its start; rolled back on error."""
        with self._translated(), step(self.write) as db:
            yield db

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows as the thread that reads sees them."""
        with self._translated():
            return self._read.execute(sql, values).fetchall()

    def rows_for_writing(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows as the thread that writes sees them, outside of a transaction."""
        with self._translated():
            return self.write.execute(sql, values).fetchall()

    def scrub(self) -> None:
        """Bring what was deleted out of the write-ahead log too, if nobody reads at the moment."""
        with self._translated():
            self.write.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def bytes(self) -> int:
        """Size of the file, without its write-ahead log."""
        ((pages,),), ((page_bytes,),) = (
            self.rows("PRAGMA page_count"),
            self.rows("PRAGMA page_size"),
        )
        return int(pages * page_bytes)

    @contextmanager
    def unverified(self) -> Iterator[apsw.Connection]:
        """A connection of its own that reads what is damaged too, while the block lasts."""
        with self._translated(), closing(self._connect()) as db:
            _verify(db, on=False)
            yield db

    @contextmanager
    def mended(self) -> Iterator[None]:
        """Within a transaction, let damaged pages be read while the block lasts, to be replaced."""
        _verify(self.write, on=False)
        try:
            yield
        finally:
            _verify(self.write, on=True)
            # What was read of it and not replaced.
            self.write.release_memory()

    def damaged_pages(self, give_up: Callable[[], bool]) -> Iterator[int]:
        """Numbers of the pages whose checksum does not hold, until told to give up.

        What is in the write-ahead log is not looked at, nor what it replaces: SQLite knows what is
        whole of it.

        Raises:
            TimeoutError: it was told to.
        """
        with self.unverified() as db:
            # What is read from the file now is not replaced as long as this is under way.
            db.execute("BEGIN")
            ((pages,),) = db.execute("PRAGMA page_count")
            ((page_bytes,),) = db.execute("PRAGMA page_size")
            replaced = read_wal(self._path, page_bytes).pages | {UNUSED_PAGE_AT // page_bytes + 1}
            for start in range(0, pages, PAGES_AT_ONCE):
                if give_up():
                    raise TimeoutError
                count = min(PAGES_AT_ONCE, pages - start)
                # By SQLite, as to open and close the file would give up its locks.
                _, data = db.read("main", 0, start * page_bytes, count * page_bytes)
                words = np.frombuffer(data, "<u4").reshape(count, -1)
                wrong = (sums_of(words[:, :-2]) != words[:, -2:]).any(axis=1)
                numbers = (np.flatnonzero(wrong) + start + 1).tolist()
                yield from (n for n in numbers if n not in replaced)

    def problems(self, give_up: Callable[[], bool]) -> Iterator[str]:
        """What is wrong with tables and indexes, as SQLite puts it, until told to give up.

        Raises:
            TimeoutError: it was told to.
        """
        with self.unverified() as db:
            db.set_progress_handler(give_up, STEPS_BETWEEN_LOOKS)
            try:
                for (text,) in db.execute("PRAGMA integrity_check"):
                    if text != "ok":
                        yield text
            except apsw.InterruptError:
                raise TimeoutError from None
            except apsw.CorruptError as error:
                yield str(error)

    def copy_to(self, path: Path, told: Callable[[int, int], None]) -> None:
        """Copy the file as it is at this moment, while others go on writing to it.

        Args:
            path: the copy; must not exist.
            told: is told after each step how many pages were copied, and of how many.
        """
        with self._translated(), closing(self._connect()) as source:
            source.execute("BEGIN")
            source.execute("SELECT count(*) FROM sqlite_schema").fetchall()  # holds this moment
            with closing(opened(path)) as copy:
                # Checksums are kept from the first page on that says so.
                copy.execute("PRAGMA user_version = 0").fetchall()
                with copy.backup("main", source, "main") as copying:
                    while not copying.done:
                        copying.step(PAGES_AT_ONCE)
                        told(copying.page_count - copying.remaining, copying.page_count)
                # One file, that needs no other beside it.
                copy.execute("PRAGMA journal_mode = DELETE").fetchall()

    def close(self) -> None:
        """Give everything back; the file is not used again."""
        self._read.close()
        self.write.close()

    def _connect(self) -> apsw.Connection:
        db = self._prepared()
        if not _verifies(db):
            # It was made by another process after this one had opened it, or has no checksums.
            db.close()
            db = self._prepared()
            if not _verifies(db):
                db.close()
                raise StoreUnavailable(NO_CHECKSUMS)
        return db

    def _prepared(self) -> apsw.Connection:
        db = opened(self._path)
        try:
            # What turns out to be damaged stays as it is.
            db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            db.set_busy_timeout(BUSY_TIMEOUT_MS)
            STATE.require(db)  # before the first pragma that writes: the file may be another's
            for pragma in PRAGMAS:
                db.execute(f"PRAGMA {pragma}").fetchall()
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self, schema: str, max_bytes: int) -> None:
        db = self.write
        ((page_bytes,),) = db.execute("PRAGMA page_size")
        if max_bytes:
            db.execute(f"PRAGMA max_page_count = {max(1, max_bytes // page_bytes)}")
        with self.transaction():
            self._require_whole(page_bytes)
            if not next(db.execute("SELECT count(*) FROM sqlite_schema"))[0]:
                db.execute(schema)
                STATE.mark(db)
            elif _tables(db) != _tables_of(schema):
                raise StoreUnavailable(
                    "the state file is damaged, as its tables are not those it was made with:"
                    " restore a backup with 'ebbing state restore'"
                )

    def _require_whole(self, page_bytes: int) -> None:
        """Raise if the log or the end of the file are missing, within a transaction."""
        wal = read_wal(self._path, page_bytes)
        if wal.damaged:
            raise StoreUnavailable(
                "the write-ahead log of the state file is damaged, and acknowledged events are lost"
                " from there on: restore a backup with 'ebbing state restore', or go on without"
                " them with 'ebbing state check --cut'; clients that kept events may send them"
                " again"
            )
        ((pages,),) = self.write.execute("PRAGMA page_count")
        first, unused = (
            self._path.stat().st_size // page_bytes + 1,
            UNUSED_PAGE_AT // page_bytes + 1,
        )
        if any(n not in wal.pages and n != unused for n in range(first, pages + 1)):
            raise StoreUnavailable(
                "the state file is damaged, as its end is missing: restore a backup with"
                " 'ebbing state restore'"
            )

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
            raise StoreUnavailable(DAMAGED) from error
        except (apsw.CantOpenError, apsw.ReadOnlyError, apsw.PermissionsError) as error:
            raise StoreUnavailable(
                "the state file cannot be opened for writing: check its folder and permissions"
            ) from error
        except apsw.IOError as error:
            if getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_DATA:
                raise StoreUnavailable(DAMAGED) from error
            raise StoreUnavailable(
                "the state file cannot be read or written: check the disk"
            ) from error


def opened(path: Path) -> apsw.Connection:
    """A connection that keeps checksums, whether the file is there or made now."""
    _load_checking()
    db = apsw.Connection(str(path), vfs=CHECKING)
    db.reserve_bytes("main", CHECKSUM_BYTES)
    return db


def _verify(db: apsw.Connection, *, on: bool) -> None:
    # It works when it is compiled: what was before is of no use.
    sql = f"PRAGMA checksum_verification = {'ON' if on else 'OFF'}"
    db.execute(sql, can_cache=False).fetchall()


def _verifies(db: apsw.Connection) -> bool:
    ((verifies,),) = db.execute("PRAGMA checksum_verification", can_cache=False)
    return bool(verifies == "1")


@cache
def _load_checking() -> None:
    """Make SQLite keep checksums where it is asked to, and nowhere else.

    Raises:
        StoreUnavailable: it cannot.
    """
    usual = apsw.vfs_names()[0]
    try:
        with closing(apsw.Connection(":memory:")) as db:
            apsw.sqlite_extra.load(db, EXTENSION)
    except (LookupError, apsw.sqlite_extra.NotAvailable, apsw.Error) as error:
        raise StoreUnavailable(
            "the installed apsw comes without SQLite's extension that keeps checksums of pages"
            f" ({EXTENSION}): run 'pip install --force-reinstall apsw'"
        ) from error
    apsw.set_default_vfs(usual)


def _tables(db: apsw.Connection) -> list[tuple[Any, ...]]:
    """Tables and indexes, as the file says them."""
    return db.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name"
    ).fetchall()


def _tables_of(schema: str) -> list[tuple[Any, ...]]:
    with closing(apsw.Connection(":memory:")) as db:
        db.execute(schema)
        return _tables(db)
