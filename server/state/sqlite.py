"""The embedded store: SQLite with a write-ahead log, every commit synced to disk.

Nothing is cached, so several processes on one file see each other's writes and never lose one:
state is read and replaced within the transaction that logs the event.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import merge
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import numpy as np

from ebbing.history import HISTORY_LENGTH
from server import failpoints
from server.errors import StoreUnavailable, UserErased
from server.state import user_state
from server.state.alarms import Alarms
from server.state.records import Records
from server.state.sqlite_alarms import ALARM_SCHEMA, SqliteAlarms
from server.state.sqlite_catalogue import CATALOGUE_SCHEMA
from server.state.sqlite_file import SqliteFile
from server.state.sqlite_forgetting import (
    DELETION_SCHEMA,
    SqliteForgetting,
    counted,
)
from server.state.store import (
    DAY_US,
    Interaction,
    StoreSize,
    UserRecord,
    UserState,
    WriteOutcome,
    item_heat,
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
CREATE INDEX events_of ON events (owner, engaged, event_time, event_id);
CREATE INDEX oldest_events ON events (event_time);
CREATE TABLE users (
    number INTEGER PRIMARY KEY,
    owner TEXT NOT NULL UNIQUE,
    newest_day INTEGER NOT NULL,
    due_time INTEGER,
    turn INTEGER,
    version INTEGER NOT NULL,
    told BLOB NOT NULL,
    state BLOB NOT NULL
);
CREATE INDEX idle_users ON users (newest_day);
CREATE INDEX due_users ON users (due_time) WHERE due_time IS NOT NULL;
CREATE INDEX touched_users ON users (turn) WHERE turn IS NOT NULL;
CREATE TABLE facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE INDEX facts_again ON facts (value) WHERE name IN ('store_id', 'vault');
INSERT INTO facts VALUES
    ('store_id', lower(hex(randomblob(16)))), ('vault', ''), ('catalogue', 1),
    ('users', 0), ('events', 0);
"""


_STATE = "SELECT state FROM users WHERE owner = ?"
# The number of the newest event only grows: whoever was touched first comes first.
_WRITE_USER = (
    "INSERT INTO users VALUES (NULL, ?, ?, NULL,"
    " iif(?, (SELECT seq FROM sqlite_sequence WHERE name = 'events'), NULL), 1, x'', ?)"
    " ON CONFLICT (owner) DO UPDATE SET state = excluded.state, version = version + 1,"
    " newest_day = max(newest_day, excluded.newest_day), turn = coalesce(turn, excluded.turn)"
)


class _Kept(NamedTuple):
    """What is known of a user before events are appended."""

    owner: str
    state: bytes | None
    deleted_until: int


class SqliteStore(SqliteForgetting):
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

    def append(self, interactions: Sequence[Interaction]) -> list[WriteOutcome]:
        """Log interactions and update the states of their users, durably and as one step."""
        new: dict[str, list[Interaction]] = defaultdict(list)
        owners = {one.user_id: "" for one in interactions}
        owners = {user_id: self._records.owner_of(user_id) for user_id in owners}
        failpoints.reach("append.begun")
        with self._file.transaction() as db:
            kept = self._kept(db, owners)
            # Within the step, or whoever is deleted at this moment could lose the key again; and
            # not for what is refused, which would leave a key of somebody deleted.
            taken = {o.user_id for o in interactions if o.time_us > kept[o.user_id].deleted_until}
            self._records.vault.prepare(owners[user_id] for user_id in taken)
            outcomes = self._log(db, interactions, kept)
            for one, outcome in zip(interactions, outcomes, strict=True):
                if outcome is WriteOutcome.ACCEPTED:
                    new[one.user_id].append(one)
            failpoints.reach("append.logged")
            db.executemany(
                _WRITE_USER,
                [self._advanced(db, user, kept[user], events) for user, events in new.items()],
            )
            known = sum(kept[user_id].state is not None for user_id in new)
            counted(db, users=len(new) - known, events=sum(map(len, new.values())))
            db.executemany(
                "INSERT INTO item_heat VALUES (?, ?) ON CONFLICT DO UPDATE SET heat ="
                " max(heat, excluded.heat) + log2(1 + pow(2, -abs(heat - excluded.heat)))",
                _heats(new.values()).items(),
            )
        failpoints.reach("append.committed")
        return outcomes

    def _kept(self, db: apsw.Connection, owners: Mapping[str, str]) -> dict[str, _Kept]:
        """What is kept of users; the names are theirs in storage."""
        ((deleted,),) = db.execute("SELECT EXISTS (SELECT 1 FROM deletions)")
        found = {}
        for user_id, owner in owners.items():
            states: list[Any] = db.execute(_STATE, (owner,)).fetchall()
            until = -1
            if deleted:
                tombstone = (self._tombstone(user_id),)
                rows = db.execute("SELECT until FROM deletions WHERE user = ?", tombstone)
                until = next(iter(rows), (-1,))[0]
            found[user_id] = _Kept(owner, states[0][0] if states else None, until)
        return found

    def _log(
        self, db: apsw.Connection, interactions: Sequence[Interaction], kept: Mapping[str, _Kept]
    ) -> list[WriteOutcome]:
        """Log what is new of events."""
        rows, outcomes = [], []
        for one in interactions:
            owner, _, deleted_until = kept[one.user_id]
            refused = one.time_us <= deleted_until
            outcomes.append(WriteOutcome.USER_DELETED if refused else WriteOutcome.ACCEPTED)
            if not refused:
                digest, value = self._records.digest(owner, one), self._records.event(owner, one)
                row = (one.event_id, owner, one.weight > 0, one.time_us, digest, value)
                rows.append((len(outcomes) - 1, row))
        written = db.executemany(
            "INSERT OR IGNORE INTO events VALUES (NULL, ?, ?, ?, ?, ?, ?) RETURNING event_id",
            [row for _, row in rows],
        )
        unseen = {event_id for (event_id,) in written}
        for number, (event_id, owner, _, _, digest, _) in rows:
            if event_id in unseen:
                unseen.remove(event_id)
                continue
            known = db.execute("SELECT owner, digest FROM events WHERE event_id = ?", (event_id,))
            same = next(known) == (owner, digest)
            outcomes[number] = WriteOutcome.DUPLICATE if same else WriteOutcome.ID_REUSED
        return outcomes

    def _advanced(
        self, db: apsw.Connection, user_id: str, kept: _Kept, events: Sequence[Interaction]
    ) -> tuple[str, int, bool, bytes]:
        """The row of a user after more events: owner, newest day, whether touched, state."""
        try:
            state = self._records.advanced(
                user_id, kept.owner, kept.state, events, lambda: self._logged(db, kept.owner)
            )
        except UserErased:  # what a deletion that was cut off has left
            state = self._records.advanced(user_id, kept.owner, None, events, lambda: ())
        newest_day = max(one.time_us for one in events) // DAY_US
        return kept.owner, newest_day, any(one.weight for one in events), state

    def _logged(self, db: apsw.Connection, owner: str) -> list[Interaction]:
        """A user's newest engagements with items, within a transaction."""
        found: list[Interaction] = []
        rows = db.execute(
            "SELECT event_id, event_time, value FROM events WHERE owner = ? AND engaged = 1"
            " ORDER BY event_time DESC, event_id DESC",
            (owner,),
        )
        for row in rows:
            one = self._records.interaction(owner, *row)
            if one.item_key:
                found.append(one)
                if len(found) == HISTORY_LENGTH:
                    break
        return found

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
        skipped = 0
        if newest is not None:
            ((known,),) = self._file.rows(
                "SELECT count(*) FROM events WHERE owner = ? AND engaged = 1 AND event_time <= ?",
                (owner, until_us),
            )
            skipped = max(0, known - newest)
        return self._read(owner, 1, until_us, skipped)

    def events_of(self, user_id: str) -> Iterable[Interaction]:
        """All of a user's events, engagements or not, oldest first; read as they are asked for."""
        owner = self._records.owner_of(user_id)
        return _by_time(self._read(owner, 0, 2**62, 0), self._read(owner, 1, 2**62, 0))

    def _read(self, owner: str, engaged: int, until_us: int, skipped: int) -> Iterator[Interaction]:
        # A cursor left open while others read would hide from them what is written meanwhile.
        last: tuple[int, str] | None = (-1, "")
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
        """A page of all events, in the order they were written, and where it ended."""
        rows = self._file.rows(
            "SELECT owner, event_id, event_time, value, number FROM events WHERE number > ?"
            " ORDER BY number LIMIT ?",
            (int(after or 0), limit),
        )
        page = [self._records.interaction(*row[:4]) for row in rows]
        return page, str(rows[-1][4]) if rows else after

    def users(self, after: str, limit: int) -> tuple[list[UserRecord], str]:
        """A page of all users, by their names in storage, and where it ended."""
        rows = self._file.rows(
            "SELECT owner, state, told, due_time FROM users WHERE owner > ? ORDER BY owner LIMIT ?",
            (after, limit),
        )
        return [self._user(*row) for row in rows], rows[-1][0] if rows else after

    def write_users(self, records: Sequence[UserRecord]) -> None:
        """Create or replace what is kept of users, as one step; their events stay."""
        owners = [self._records.owner_of(one.user_id) for one in records]
        with self._file.transaction() as db:
            self._records.vault.prepare(owners)
            for owner, one in zip(owners, records, strict=True):
                newest_s = user_state.decode(one.state).traces.span[1]
                ((known,),) = db.execute("SELECT count(*) FROM users WHERE owner = ?", (owner,))
                db.execute(
                    "INSERT INTO users VALUES (NULL, ?, ?, ?, NULL, 1, ?, ?)"
                    " ON CONFLICT (owner) DO UPDATE SET state = excluded.state,"
                    " told = excluded.told, due_time = excluded.due_time, turn = NULL,"
                    " newest_day = max(newest_day, excluded.newest_day), version = version + 1",
                    (
                        owner,
                        int(max(newest_s, 0.0) * 1e6) // DAY_US,
                        one.due_us,
                        self._records.told(owner, one.told),
                        self._records.sealed_state(one.user_id, owner, one.state),
                    ),
                )
                counted(db, users=1 - known)

    def rebuild(self, user_ids: Sequence[str]) -> int:
        """Compute the states of users anew from the log, each as one step; how many differed.

        A state that counts events the log has lost to their age is left as it is.
        """
        return sum(self._rebuilt(user_id) for user_id in user_ids)

    def _rebuilt(self, user_id: str) -> bool:
        owner = self._records.owner_of(user_id)
        with self._file.transaction() as db:
            rows = db.execute(
                "SELECT event_id, event_time, value FROM events WHERE owner = ?", (owner,)
            )
            events = [self._records.interaction(owner, *row) for row in rows]
            if not events:
                return False
            # Whatever is damaged of the state is replaced; events come of whole pages alone.
            with self._file.mended():
                return self._replaced(db, user_id, owner, events)

    def _replaced(
        self, db: apsw.Connection, user_id: str, owner: str, events: list[Interaction]
    ) -> bool:
        kept = self._kept(db, {user_id: owner})[user_id]
        state = self._records.advanced(user_id, owner, None, events, lambda: ())
        new = self._records.state_bytes(owner, state)[1]
        told = db.execute("SELECT told, due_time FROM users WHERE owner = ?", (owner,))
        alarm = told.fetchone() or (b"", None)
        if kept.state and self._stands(owner, kept.state, new) and self._whole(owner, alarm[0]):
            return False
        db.execute("DELETE FROM users WHERE owner = ?", (owner,))
        db.execute(_WRITE_USER, self._advanced(db, user_id, kept._replace(state=None), events))
        if self._whole(owner, alarm[0]):
            db.execute("UPDATE users SET told = ?, due_time = ? WHERE owner = ?", (*alarm, owner))
        counted(db, users=int(kept.state is None))
        return True

    def _stands(self, owner: str, sealed: bytes, new: bytes) -> bool:
        """Whether a state is that of the log, or counts events that the log has lost."""
        try:
            old = self._records.state_bytes(owner, sealed)[1]
            counted, logged = (user_state.decode(one).traces.event_count for one in (old, new))
            return counted > logged or user_state.same(old, new)
        except (StoreUnavailable, ValueError):
            return False  # what is damaged is what a rebuild is for

    def _whole(self, owner: str, told: bytes) -> bool:
        try:
            self._records.opened_told(owner, told)
        except StoreUnavailable:
            return False
        return True

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


def _heats(groups: Iterable[Sequence[Interaction]]) -> dict[int, float]:
    heats: dict[int, float] = {}
    for events in groups:
        for one in events:
            if one.weight and one.item_key:
                heat = item_heat(one.time_s, one.weight)
                known = heats.get(one.item_key)
                heats[one.item_key] = heat if known is None else float(np.logaddexp2(known, heat))
    return heats


def _by_time(*sources: Iterator[Interaction]) -> Iterator[Interaction]:
    return merge(*sources, key=lambda one: (one.time_us, one.event_id))
