"""The embedded store: SQLite with a write-ahead log, every commit synced to disk.

Nothing is cached, so several processes on one file see each other's writes and never lose one:
state is read and replaced within the transaction that logs the event.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from pathlib import Path

from server.errors import StoreUnavailable
from server.state.alarms import Alarms
from server.state.records import Records
from server.state.sqlite_alarms import ALARM_SCHEMA, SqliteAlarms
from server.state.sqlite_catalogue import CATALOGUE_SCHEMA
from server.state.sqlite_file import SqliteFile
from server.state.sqlite_forgetting import DELETION_SCHEMA
from server.state.sqlite_writing import SqliteWriting
from server.state.store import (
    Interaction,
    StoreSize,
    UserRecord,
    UserState,
)

__all__ = ["SqliteStore"]

LOG_PAGE = 512
"""Events of a user read from the log at once."""

SCHEMA = """
CREATE TABLE events (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    engaged INTEGER NOT NULL,
    event_time INTEGER NOT NULL,
    digest BLOB NOT NULL,
    value BLOB NOT NULL
);
CREATE INDEX events_of ON events (owner, engaged, event_time);
CREATE INDEX oldest_events ON events (event_time);
CREATE TABLE users (
    number INTEGER PRIMARY KEY,
    owner TEXT NOT NULL UNIQUE,
    newest_day INTEGER NOT NULL,
    idle_day INTEGER NOT NULL,
    due_time INTEGER,
    turn INTEGER,
    version INTEGER NOT NULL,
    told BLOB NOT NULL,
    state BLOB NOT NULL
);
CREATE INDEX idle_users ON users (idle_day);
CREATE INDEX due_users ON users (due_time) WHERE due_time IS NOT NULL;
CREATE INDEX touched_users ON users (turn) WHERE turn IS NOT NULL;
CREATE TABLE facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE INDEX facts_again ON facts (value) WHERE name IN ('store_id', 'vault', 'restored');
INSERT INTO facts VALUES
    ('store_id', lower(hex(randomblob(16)))), ('vault', ''), ('restored', ''), ('catalogue', 1),
    ('users', 0), ('events', 0);
"""


class SqliteStore(SqliteWriting):
    """``server.state.store.Store`` on one SQLite file."""

    def __init__(self, path: Path, records: Records, max_bytes: int = 0) -> None:
        """Open or make the file.

        Args:
            path: the file; its folder must exist.
            records: encodes what is stored of users.
            max_bytes: largest size of the file; 0 is no limit.

        Raises:
            StoreUnavailable: the file is locked, not a state file, of another version, damaged, or
                written with other keys.
            StorageFull: there is no room for it.
        """
        file = SqliteFile(
            path, SCHEMA + CATALOGUE_SCHEMA + DELETION_SCHEMA + ALARM_SCHEMA, max_bytes
        )
        super().__init__(file, records)
        try:
            self._require_vault()
            self.alarms: Alarms = SqliteAlarms(self._file, records)
        except BaseException:
            self._file.close()
            raise

    def states(self, user_ids: Sequence[str]) -> list[UserState | None]:
        """The states of users; None for one without events."""
        owners = [self._records.owner_of(user_id) for user_id in user_ids]
        if len(owners) == 1:
            rows = self._file.rows("SELECT owner, state FROM users WHERE owner = ?", owners)
        else:
            rows = self._file.rows(
                "SELECT owner, state FROM users WHERE owner IN (SELECT value FROM json_each(?))",
                (json.dumps(owners),),
            )
        told = self._records.states(rows)
        found = {owner: state for (owner, _), (_, state) in zip(rows, told, strict=True)}
        return [found.get(owner) for owner in owners]

    def interactions(
        self, user_id: str, until_us: int, newest: int | None = None
    ) -> Iterable[Interaction]:
        """A user's engagements up to a moment, or so many of the newest of them, oldest first."""
        owner = self._records.owner_of(user_id)
        if newest is None:
            return self._read(owner, 1, until_us)
        return self._newest(owner, until_us, newest)

    def _newest(self, owner: str, until_us: int, newest: int) -> Iterator[Interaction]:
        """So many of the newest engagements."""
        engaged = "FROM events WHERE owner = ? AND engaged = 1 AND event_time"
        # What the index alone can tell: of the moment at which they begin there may be more.
        first = self._file.rows(
            f"SELECT event_time {engaged} <= ? ORDER BY event_time DESC LIMIT 1 OFFSET ?",
            (owner, until_us, newest - 1),
        )
        if not newest or not first:
            return self._read(owner, 1, until_us) if newest else iter(())
        ((first_us,),) = first
        ((known,),) = self._file.rows(
            f"SELECT count(*) {engaged} BETWEEN ? AND ?", (owner, first_us, until_us)
        )
        return self._read(owner, 1, until_us, (first_us, ""), known - newest)

    def asides(self, user_id: str, since_us: int, until_us: int) -> Iterable[Interaction]:
        """A user's events that leave no trace between two moments, oldest first."""
        return self._read(self._records.owner_of(user_id), 0, until_us, (since_us, ""))

    def events_of(self, user_id: str) -> Iterable[Interaction]:
        """All of a user's events, engagements or not, oldest first; read as they are asked for."""
        owner = self._records.owner_of(user_id)
        return _by_time(self._read(owner, 0, 2**62), self._read(owner, 1, 2**62))

    def _read(
        self,
        owner: str,
        engaged: int,
        until_us: int,
        after: tuple[int, str] = (-1, ""),
        skipped: int = 0,
    ) -> Iterator[Interaction]:
        # A cursor left open while others read would hide from them what is written meanwhile.
        last: tuple[int, str] | None = after
        while last:
            rows = self._file.rows(
                "SELECT event_id, event_time, value FROM events WHERE owner = ? AND engaged = ?"
                " AND event_time <= ? AND (event_time, event_id) > (?, ?)"
                " ORDER BY event_time, event_id LIMIT ? OFFSET ?",
                (owner, engaged, until_us, *last, LOG_PAGE, skipped),
            )
            skipped = 0
            for row in rows:
                yield self._records.interaction(owner, *row)
            last = (rows[-1][1], rows[-1][0]) if len(rows) == LOG_PAGE else None

    def first_engagement_us(self, user_id: str) -> int | None:
        """Time of a user's first logged engagement; None for a user without any."""
        ((first,),) = self._file.rows(
            "SELECT min(event_time) FROM events WHERE owner = ? AND engaged = 1",
            (self._records.owner_of(user_id),),
        )
        return first  # type: ignore[no-any-return]

    def user(self, user_id: str) -> UserRecord | None:
        """All that is kept of a user but for events and relations; None where there is nothing."""
        rows = self._file.rows(
            "SELECT owner, state, told, due_time FROM users WHERE owner = ?",
            (self._records.owner_of(user_id),),
        )
        return self._user(*rows[0]) if rows else None

    def log(self, after: str, limit: int) -> tuple[list[Interaction], str]:
        """A page of all events, in the order they were written, and where it ended.

        Raises:
            StoreUnavailable: ``after`` is of before a backup was restored, which gives numbers
                again that events had which it lost.
        """
        number, _, of = after.partition("@")
        restored = self._fact("restored")
        if after and of != restored:
            raise StoreUnavailable(
                "a backup of the state was restored since its log was read up to here: export into"
                " a new folder, or move it into a new state"
            )
        rows = self._file.rows(
            "SELECT owner, event_id, event_time, value, number FROM events WHERE number > ?"
            " ORDER BY number LIMIT ?",
            (int(number or 0), limit),
        )
        page = [self._records.interaction(*row[:4]) for row in rows]
        return page, f"{rows[-1][4]}@{restored}" if rows else after

    def users(self, after: str, limit: int) -> tuple[list[UserRecord], str]:
        """A page of all users, by their names in storage, and where it ended."""
        rows = self._file.rows(
            "SELECT owner, state, told, due_time FROM users WHERE owner > ? ORDER BY owner LIMIT ?",
            (after, limit),
        )
        return [self._user(*row) for row in rows], rows[-1][0] if rows else after

    def size(self) -> StoreSize:
        """How much there is."""
        facts = dict(self._file.rows("SELECT name, value FROM facts"))
        return StoreSize(facts["users"], facts["events"], self._file.bytes())

    def close(self) -> None:
        """Give everything back; the store is not used again."""
        self._file.close()

    def _user(self, owner: str, state: bytes, told: bytes, due_us: int | None) -> UserRecord:
        opened_told = self._records.opened_told(owner, told)
        return UserRecord(*self._records.state_bytes(owner, state), opened_told, due_us)

    def _require_vault(self) -> None:
        fingerprint = self._records.vault.fingerprint
        written_with = self._fact("vault")
        if not written_with:
            with self._file.transaction() as db:
                db.execute("UPDATE facts SET value = ? WHERE name = 'vault'", (fingerprint,))
        elif written_with != fingerprint:
            raise StoreUnavailable(
                "the state was written with other keys: give the ones it was written with, or move"
                " it with 'ebbing state migrate'"
            )


def _by_time(*sources: Iterator[Interaction]) -> Iterator[Interaction]:
    return merge(*sources, key=lambda one: (one.time_us, one.event_id))
