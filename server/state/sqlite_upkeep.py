"""What of the embedded store is for its operators: to check it, copy it, and move it elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from server.errors import EbbingError, StoreUnavailable
from server.state.alarms import Alarms
from server.state.sqlite_catalogue import SqliteCatalogue
from server.state.sqlite_integrity import Checked, Told, check
from server.state.store import Deletion, RelationRecord, Tombstone

__all__ = ["SqliteUpkeep"]

_EMPTY = (
    "SELECT NOT EXISTS (SELECT 1 FROM users) AND NOT EXISTS (SELECT 1 FROM events)"
    " AND NOT EXISTS (SELECT 1 FROM deletions)"
    " AND NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'transitions' AND seq)"
)


class SqliteUpkeep(SqliteCatalogue):
    """The part of ``server.state.store.Store`` for those who look after it."""

    alarms: Alarms

    def check(
        self,
        told: Told = lambda *_: None,
        budget_s: float | None = None,
        monotonic: Callable[[], float] = lambda: 0.0,
    ) -> Checked:
        """Whether it is whole; see ``server.state.sqlite_integrity.check``."""
        return check(self._file, self._records, told, budget_s, monotonic)

    def copy_to(self, path: Path, told: Callable[[int, int], None] = lambda *_: None) -> None:
        """Copy it as it is now, while others go on writing; ``told`` of pages, and of how many."""
        self._file.copy_to(path, told)

    def restored(self) -> None:
        """Tell whoever has read some of the log that it goes on as another one."""
        with self._file.transaction() as db:
            db.execute("UPDATE facts SET value = lower(hex(randomblob(8))) WHERE name = 'restored'")

    def logged_users(self, after: str, limit: int) -> tuple[list[str], str]:
        """A page of the ids of all users with events in the log, and where it ended."""
        rows = self._file.rows(
            "SELECT DISTINCT owner FROM events WHERE owner > ? ORDER BY owner LIMIT ?",
            (after, limit),
        )
        found = [self._id_of(owner) for (owner,) in rows]
        return [one for one in found if one is not None], rows[-1][0] if rows else after

    def _id_of(self, owner: str) -> str | None:
        after = 0
        while rows := self._file.rows(
            "SELECT event_id, event_time, value, number FROM events WHERE owner = ? AND number > ?"
            " ORDER BY number LIMIT 1",
            (owner, after),
        ):
            ((*event, after),) = rows
            try:
                return self._records.interaction(owner, *event).user_id
            except EbbingError:
                continue  # another one may be whole
        return None

    def all_relations(self, after: str, limit: int) -> tuple[list[RelationRecord], str]:
        """A page of all relations, and where it ended."""
        start = after.split("\0") if after else ["", ""]
        rows = self._file.rows(
            "SELECT owner, value, other FROM relations WHERE (owner, other) > (?, ?)"
            " ORDER BY owner, other LIMIT ?",
            (*start, limit),
        )
        page = [self._records.opened_relation(*row[:2]) for row in rows]
        return page, f"{rows[-1][0]}\0{rows[-1][2]}" if rows else after

    def deletions(self, after: str, limit: int) -> tuple[list[Tombstone], str]:
        """A page of all deletions that are remembered, and where it ended."""
        rows = self._file.rows(
            "SELECT user, until, receipt_id, delete_time, events, first_time, last_time"
            " FROM deletions WHERE user > ? ORDER BY user LIMIT ?",
            (bytes.fromhex(after), limit),
        )
        page = [Tombstone(user, until, Deletion(*rest)) for user, until, *rest in rows]
        return page, page[-1].digest.hex() if page else after

    def write_deletions(self, tombstones: Sequence[Tombstone]) -> None:
        """Create or replace what is remembered of deletions; nothing of their users is deleted."""
        with self._file.transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO deletions VALUES (?, ?, ?, ?, ?, ?, ?)",
                ((one.digest, one.until_us, *one.deletion) for one in tombstones),
            )

    def adopt(self, store_id: str) -> None:
        """Take over the identity of another store, before anything else is written."""
        with self._file.transaction() as db:
            if not next(db.execute(_EMPTY))[0]:
                raise StoreUnavailable("the store is not empty: name a new one")
            db.execute("UPDATE facts SET value = ? WHERE name = 'store_id'", (store_id,))
        self.alarms.store_id = store_id
