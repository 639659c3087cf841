"""The embedded store: SQLite with a write-ahead log, every commit synced to disk.

Nothing is cached, so several processes on one file see each other's writes and never lose one:
state is read and replaced within the transaction that logs the event.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import apsw
import numpy as np

from ebbing.interest.trace import TraceTable
from server.errors import ItemKeyCollision, StoreUnavailable
from server.state.alarms import Alarms
from server.state.codec import decode_traces, encode_traces
from server.state.sqlite_alarms import ALARM_SCHEMA, SqliteAlarms, touch
from server.state.sqlite_file import SqliteFile
from server.state.store import (
    History,
    Interaction,
    InterestRecord,
    ItemRecord,
    RelationRecord,
    WriteOutcome,
    advance,
    item_heat,
)

__all__ = ["SqliteStore"]

LOG_PAGE = 512
"""Events of a user read from the log at once."""

SCHEMA = """
CREATE TABLE events (
    event_id TEXT NOT NULL UNIQUE,
    user_id TEXT NOT NULL,
    event_time INTEGER NOT NULL,
    item_key INTEGER NOT NULL,
    event_type INTEGER NOT NULL,
    weight REAL NOT NULL,
    interests TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX engagements ON events (user_id, event_time, event_id, item_key, event_type)
    WHERE weight > 0;
CREATE TABLE user_states (user_id TEXT PRIMARY KEY, state BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE item_heat (item_key INTEGER PRIMARY KEY, heat REAL NOT NULL);
CREATE INDEX hottest_items ON item_heat (heat DESC);
CREATE TABLE items (
    item_id TEXT PRIMARY KEY,
    item_key INTEGER NOT NULL UNIQUE,
    interests TEXT NOT NULL,
    available_time INTEGER NOT NULL,
    expire_time INTEGER NOT NULL,
    body BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE interests (path TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE relations (
    user_id TEXT NOT NULL,
    other_user_id TEXT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (user_id, other_user_id)
) WITHOUT ROWID;
CREATE TABLE versions (name TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO versions VALUES ('catalogue', 1);
"""

_STATE = "SELECT state FROM user_states WHERE user_id = ?"
_ITEM_COLUMNS = "item_id, item_key, interests, available_time, expire_time, body"


class SqliteStore:
    """``server.state.store.Store`` on one SQLite file."""

    def __init__(self, path: Path, max_interests: int, max_bytes: int = 0) -> None:
        """Open or make the file.

        Args:
            path: the file; its folder must exist.
            max_interests: interests kept per user.
            max_bytes: largest size of the file; 0 is no limit.

        Raises:
            StoreUnavailable: the file is locked, not a state file, of another version or damaged.
            StorageFull: there is no room for it.
        """
        self._max_interests = max_interests
        self._file = SqliteFile(path, SCHEMA + ALARM_SCHEMA, max_bytes)
        self.alarms: Alarms = SqliteAlarms(self._file)

    def append(self, interactions: Sequence[Interaction]) -> list[WriteOutcome]:
        """Log interactions and update the states of their users, durably and as one step."""
        outcomes = []
        by_user: dict[str, list[Interaction]] = defaultdict(list)
        heats: dict[int, float] = {}
        with self._file.transaction() as db:
            for one in interactions:
                outcome = self._log(db, one)
                outcomes.append(outcome)
                if outcome is not WriteOutcome.ACCEPTED:
                    continue
                by_user[one.user_id].append(one)
                if one.weight and one.item_key:
                    heat = item_heat(one.time_s, one.weight)
                    known = heats.get(one.item_key, -np.inf)
                    heats[one.item_key] = float(np.logaddexp2(known, heat))
            states = []
            for user_id, new in by_user.items():
                traces = _traces(db.execute(_STATE, (user_id,)).fetchall()) or TraceTable.empty()
                advanced = advance(traces, new, self._max_interests)
                states.append((user_id, encode_traces(advanced)))
            db.executemany("INSERT OR REPLACE INTO user_states VALUES (?, ?)", states)
            touch(db, (user for user, new in by_user.items() if any(i.weight for i in new)))
            db.executemany(
                "INSERT INTO item_heat VALUES (?, ?) ON CONFLICT DO UPDATE SET heat ="
                " max(heat, excluded.heat) + log2(1 + pow(2, -abs(heat - excluded.heat)))",
                heats.items(),
            )
        return outcomes

    @staticmethod
    def _log(db: apsw.Connection, one: Interaction) -> WriteOutcome:
        db.execute(
            "INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                one.event_id,
                one.user_id,
                one.time_us,
                one.item_key,
                one.event_type,
                one.weight,
                json.dumps(one.interests),
                one.body,
            ),
        )
        if db.changes():
            return WriteOutcome.ACCEPTED
        (body,) = next(db.execute("SELECT body FROM events WHERE event_id = ?", (one.event_id,)))
        return WriteOutcome.DUPLICATE if body == one.body else WriteOutcome.ID_REUSED

    def traces(self, user_id: str) -> TraceTable | None:
        """A user's traces; None for a user without events."""
        return _traces(self._file.rows(_STATE, (user_id,)))

    def history(self, user_id: str, until_us: int, limit: int) -> History:
        """A user's newest engagements with items up to a moment."""
        rows = self._file.rows(
            "SELECT item_key, event_time, event_type FROM events WHERE weight > 0 AND user_id = ?"
            " AND event_time <= ? AND item_key <> 0"
            " ORDER BY event_time DESC, event_id DESC LIMIT ?",
            (user_id, until_us, limit),
        )
        columns = np.array(rows, np.int64).reshape(-1, 3)[::-1]
        return History(columns[:, 0], columns[:, 1] / 1e6, columns[:, 2].astype(np.int32))

    def interactions(
        self, user_id: str, until_us: int, newest: int | None = None
    ) -> Iterable[Interaction]:
        """A user's engagements up to a moment, or so many of the newest of them, oldest first."""
        up_to = "FROM events WHERE weight > 0 AND user_id = ? AND event_time <= ?"
        skipped = 0
        if newest is not None:
            ((known,),) = self._file.rows(f"SELECT count(*) {up_to}", (user_id, until_us))
            skipped = max(0, known - newest)
        # A cursor left open while others read would hide from them what is written meanwhile.
        last: tuple[int, str] | None = (-1, "")
        while last:
            rows = self._file.rows(
                "SELECT event_id, user_id, item_key, event_type, event_time, weight, interests,"
                f" body {up_to} AND (event_time, event_id) > (?, ?)"
                " ORDER BY event_time, event_id LIMIT ? OFFSET ?",
                (user_id, until_us, *last, LOG_PAGE, skipped),
            )
            skipped = 0
            for event_id, user, key, kind, time_us, weight, interests, body in rows:
                about = _interests(interests)
                yield Interaction(event_id, user, key, kind, time_us, weight, about, body)
            last = (rows[-1][4], rows[-1][0]) if len(rows) == LOG_PAGE else None

    def first_engagement_us(self, user_id: str) -> int | None:
        """Time of a user's first engagement; None for a user without any."""
        ((first,),) = self._file.rows(
            "SELECT min(event_time) FROM events WHERE weight > 0 AND user_id = ?", (user_id,)
        )
        return first  # type: ignore[no-any-return]

    def popular(self, limit: int) -> list[int]:
        """Keys of the items with most recent engagement, best first."""
        rows = self._file.rows(
            "SELECT item_key FROM item_heat ORDER BY heat DESC LIMIT ?", (limit,)
        )
        return [key for (key,) in rows]

    def catalogue_version(self) -> int:
        """A number that changes whenever an item does."""
        ((version,),) = self._file.rows("SELECT version FROM versions WHERE name = 'catalogue'", ())
        return int(version)

    def write_items(self, items: Sequence[ItemRecord]) -> None:
        """Create or replace items, all or none."""
        rows = [
            (i.item_id, i.item_key, json.dumps(i.interests), i.available_us, i.expire_us, i.body)
            for i in items
        ]
        upsert = (
            f"INSERT INTO items ({_ITEM_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (item_id) DO UPDATE SET interests = excluded.interests,"
            " available_time = excluded.available_time, expire_time = excluded.expire_time,"
            " body = excluded.body"
        )
        with self._file.transaction() as db:
            try:
                db.executemany(upsert, rows)
            except apsw.ConstraintError:
                raise ItemKeyCollision(
                    "the 63-bit key of an item is that of another one: rename the item"
                ) from None
            self._touch_catalogue(db)

    def delete_item(self, item_id: str) -> None:
        """Delete an item; nothing happens where there is none."""
        with self._file.transaction() as db:
            db.execute("DELETE FROM items WHERE item_id = ?", (item_id,))
            self._touch_catalogue(db)

    def items(self, keys: Sequence[int]) -> list[ItemRecord]:
        """The items among keys that the catalogue holds, in any order."""
        rows = self._file.rows(
            f"SELECT {_ITEM_COLUMNS} FROM items WHERE item_key IN (SELECT value FROM json_each(?))",
            (json.dumps(list(keys)),),
        )
        return [_item(row) for row in rows]

    def list_items(self, after: str, limit: int) -> list[ItemRecord]:
        """Items by id, after a given one."""
        rows = self._file.rows(
            f"SELECT {_ITEM_COLUMNS} FROM items WHERE item_id > ? ORDER BY item_id LIMIT ?",
            (after, limit),
        )
        return [_item(row) for row in rows]

    def write_interests(self, interests: Sequence[InterestRecord]) -> None:
        """Create or replace descriptions of interests, all or none."""
        with self._file.transaction() as db:
            db.executemany("INSERT OR REPLACE INTO interests VALUES (?, ?)", interests)

    def list_interests(self, after: str, limit: int) -> list[InterestRecord]:
        """Described interests by path, after a given one."""
        rows = self._file.rows(
            "SELECT path, body FROM interests WHERE path > ? ORDER BY path LIMIT ?", (after, limit)
        )
        return [InterestRecord(*row) for row in rows]

    def write_relations(self, relations: Sequence[RelationRecord]) -> None:
        """Create or replace relations, all or none."""
        with self._file.transaction() as db:
            db.executemany("INSERT OR REPLACE INTO relations VALUES (?, ?, ?)", relations)

    def list_relations(self, user_id: str, after: str, limit: int) -> list[RelationRecord]:
        """A user's relations by other user, after a given one."""
        rows = self._file.rows(
            "SELECT user_id, other_user_id, body FROM relations"
            " WHERE user_id = ? AND other_user_id > ? ORDER BY other_user_id LIMIT ?",
            (user_id, after, limit),
        )
        return [RelationRecord(*row) for row in rows]

    def close(self) -> None:
        """Give everything back; the store is not used again."""
        self._file.close()

    @staticmethod
    def _touch_catalogue(db: apsw.Connection) -> None:
        db.execute("UPDATE versions SET version = version + 1 WHERE name = 'catalogue'")


def _traces(rows: Sequence[tuple[Any, ...]]) -> TraceTable | None:
    """The traces in the rows of ``_STATE``."""
    if not rows:
        return None
    try:
        return decode_traces(rows[0][0])
    except ValueError as error:
        raise StoreUnavailable(
            "the state of this user is damaged: restore the state file from a backup"
        ) from error


def _interests(text: str) -> tuple[tuple[str, float], ...]:
    return tuple((name, share) for name, share in json.loads(text))


def _item(row: tuple[Any, ...]) -> ItemRecord:
    return ItemRecord(row[0], row[1], _interests(row[2]), row[3], row[4], row[5])
