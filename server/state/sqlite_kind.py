"""What SQLite files of ours have in common: a mark that tells them from others, and whole steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import apsw

from server.errors import StoreUnavailable

__all__ = ["FileKind", "step"]


@dataclass(frozen=True)
class FileKind:
    """A kind of file, which its files are marked with."""

    name: str
    """What such a file is called."""
    holds: str
    """What it holds, in a word."""
    application_id: int
    schema_version: int

    def mark(self, db: apsw.Connection) -> None:
        """Mark a file whose tables are being made, within the transaction that makes them."""
        db.execute(f"PRAGMA application_id = {self.application_id}")
        db.execute(f"PRAGMA user_version = {self.schema_version}")

    def require(self, db: apsw.Connection) -> None:
        """Raise if a file that has tables is of another kind.

        Raises:
            StoreUnavailable: it is none of ours, or of another version.
        """
        # First, as another process may be making the file: with its tables comes all the rest.
        ((tables,),) = db.execute("SELECT count(*) FROM sqlite_schema")
        ((application,),) = db.execute("PRAGMA application_id")
        ((version,),) = db.execute("PRAGMA user_version")
        if tables and application != self.application_id:
            raise StoreUnavailable(f"not a {self.name} of Ebbing: name another file")
        if tables and version != self.schema_version:
            raise StoreUnavailable(
                f"the {self.holds} is of version {version}, this gateway reads"
                f" {self.schema_version}: run the version that wrote it"
            )


@contextmanager
def step(db: apsw.Connection) -> Iterator[apsw.Connection]:
    """One transaction that holds the write lock from its start; rolled back on error."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
