"""What the embedded store forgets, and what it remembers of that: deletions and periods."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import apsw
import numpy as np

from server.errors import StoreUnavailable, UserErased
from server.state.sqlite_upkeep import SqliteUpkeep
from server.state.store import DAY_US, Deletion, tombstone_digest

__all__ = ["DELETION_SCHEMA", "SqliteForgetting", "counted"]

DELETION_SCHEMA = """
CREATE TABLE deletions (
    user BLOB PRIMARY KEY,
    until INTEGER NOT NULL,
    receipt_id TEXT NOT NULL,
    delete_time INTEGER NOT NULL,
    events INTEGER NOT NULL,
    first_time INTEGER NOT NULL,
    last_time INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX deletions_again ON deletions
    (until, receipt_id, delete_time, events, first_time, last_time);
"""

_DELETION = (
    "SELECT receipt_id, delete_time, events, first_time, last_time FROM deletions WHERE user = ?"
)


class SqliteForgetting(SqliteUpkeep):
    """The part of ``server.state.store.Store`` that lets go of users and events."""

    def deletion(self, user_id: str) -> Deletion | None:
        """What is remembered of the deletion of a user; None of a user that was not deleted."""
        rows = self._file.rows(_DELETION, (self._tombstone(user_id),))
        return Deletion(*rows[0]) if rows else None

    def delete_user(self, user_id: str, receipt_id: str, now_us: int) -> Deletion:
        """Delete all that is held on a user, for good; events up to then are refused from now on.

        Deleting again, with nothing come since, tells the first deletion.
        """
        owner, tombstone = self._records.owner_of(user_id), self._tombstone(user_id)
        with self._file.transaction() as db:
            ((events, first, last),) = db.execute(
                "SELECT count(*), min(event_time), max(event_time) FROM events WHERE owner = ?",
                (owner,),
            )
            span = self._span(db, owner, first, last)
            deletion = Deletion(receipt_id, now_us, events, *span)
            held = _erase(db, owner)
            earlier: list[tuple[Any, ...]] = db.execute(_DELETION, (tombstone,)).fetchall()
            if earlier and not held:
                deletion = Deletion(*earlier[0])
            else:
                until = max(now_us, deletion.last_us)
                db.execute(
                    "INSERT INTO deletions VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
                    " until = max(until, excluded.until), receipt_id = excluded.receipt_id,"
                    " delete_time = excluded.delete_time, events = excluded.events,"
                    " first_time = excluded.first_time, last_time = excluded.last_time",
                    (tombstone, until, *deletion),
                )
            # Within the step, or whoever comes back at this moment could lose the new key.
            self._records.vault.erase(owner)
        self._file.scrub()
        return deletion

    def _span(
        self, db: apsw.Connection, owner: str, first_us: int | None, last_us: int | None
    ) -> tuple[int, int]:
        """Times of a user's first and last event, those included that the log has lost."""
        times = [] if first_us is None or last_us is None else [first_us, last_us]
        for (state,) in db.execute("SELECT state FROM users WHERE owner = ?", (owner,)):
            with suppress(StoreUnavailable, UserErased):
                span = self._records.state(owner, state)[1].traces.span
                times += [round(time * 1e6) for time in span if np.isfinite(time)]
        return min(times, default=0), max(times, default=0)

    def prune_events(self, before_us: int, limit: int) -> int:
        """Forget logged events of before a moment, so many at most; how many went."""
        with self._file.transaction() as db:
            db.execute(
                "DELETE FROM events WHERE number IN"
                " (SELECT number FROM events WHERE event_time < ? ORDER BY event_time LIMIT ?)",
                (before_us, limit),
            )
            gone = db.changes()
            counted(db, events=-gone)
        return gone

    def prune_users(self, before_us: int, limit: int) -> int:
        """Forget users whose newest event is of before a moment's day; how many went."""
        day = before_us // DAY_US
        owners: list[str] = []
        seen = True
        while seen and not owners:  # in steps, as many may have been there since they were placed
            with self._file.transaction() as db:
                rows: list[Any] = db.execute(
                    "SELECT number, owner, newest_day FROM users WHERE idle_day < ?"
                    " ORDER BY idle_day LIMIT ?",
                    (day, limit),
                ).fetchall()
                seen = bool(rows)
                db.executemany(
                    "UPDATE users SET idle_day = newest_day WHERE number = ?",
                    [(number,) for number, _, newest_day in rows if newest_day >= day],
                )
                owners = [owner for _, owner, newest_day in rows if newest_day < day]
                for owner in owners:
                    _erase(db, owner)
                self._records.vault.erase(*owners)
        return len(owners)

    def prune_deletions(self, before_us: int, limit: int) -> int:
        """Forget deletions of before a moment, so many at most; how many went."""
        with self._file.transaction() as db:
            db.execute(
                "DELETE FROM deletions WHERE user IN"
                " (SELECT user FROM deletions WHERE delete_time < ? LIMIT ?)",
                (before_us, limit),
            )
            return db.changes()

    def forget(self, owners: Iterable[str]) -> None:
        """Delete what is kept of users as if they had never been; their keys stay."""
        with self._file.transaction() as db:
            for owner in owners:
                _erase(db, owner)

    def _tombstone(self, user_id: str) -> bytes:
        return tombstone_digest(user_id, self.alarms.store_id)


def counted(db: apsw.Connection, **more: int) -> None:
    """Keep count of how many there are of what, within the transaction that changes it."""
    db.executemany(
        "UPDATE facts SET value = value + ? WHERE name = ?",
        [(number, name) for name, number in more.items() if number],
    )


def _erase(db: apsw.Connection, owner: str) -> bool:
    """Delete all rows of a user; whether there were any."""
    gone = {}
    for table, column in (
        ("events", "owner"),
        ("users", "owner"),
        ("transitions", "owner"),
        ("relations", "owner"),
        ("relations", "other"),
    ):
        db.execute(f"DELETE FROM {table} WHERE {column} = ?", (owner,))
        gone[table, column] = db.changes()
    counted(db, users=-gone["users", "owner"], events=-gone["events", "owner"])
    return any(gone.values())
