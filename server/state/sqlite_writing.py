"""What the embedded store writes of users: events, the states they lead to, and whole users."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import apsw
import numpy as np

from ebbing.history import HISTORY_LENGTH
from server import failpoints
from server.errors import StoreUnavailable, UserErased
from server.state import user_state
from server.state.records import Grown
from server.state.sqlite_forgetting import SqliteForgetting, counted
from server.state.store import DAY_US, Interaction, UserRecord, WriteOutcome, item_heat

__all__ = ["SqliteWriting"]

IDLE_DAYS = 32
"""How far the day by which idle users are found may lie behind that of a user's newest event."""

_KEPT = "SELECT owner, number, state, turn IS NOT NULL, idle_day FROM users WHERE owner = ?"
_LOG_EVENT = "INSERT OR IGNORE INTO events VALUES (NULL, ?, ?, ?, ?, ?, ?)"
_NEW_USER = "INSERT INTO users VALUES (NULL, ?, ?, ?, NULL, ?, 1, x'', ?)"
_UPDATE_USER = (
    "UPDATE users SET state = ?, version = version + 1, newest_day = max(newest_day, ?)"
    " WHERE number = ?"
)
# The same of a user whose place in an index changes: SQLite writes the index of every column that
# is named, whether it changes or not.
_MOVE_USER = (
    "UPDATE users SET state = ?, version = version + 1, newest_day = max(newest_day, ?),"
    " turn = coalesce(turn, ?), idle_day = ? WHERE number = ?"
)


class _Kept(NamedTuple):
    """What is kept of a user before events are appended."""

    number: int
    state: bytes
    touched: bool
    idle_day: int


class _User(NamedTuple):
    """A user whose events are appended."""

    owner: str
    deleted_until: int
    kept: _Kept | None


class SqliteWriting(SqliteForgetting):
    """The part of ``server.state.store.Store`` that writes events and users."""

    def append(self, interactions: Sequence[Interaction]) -> list[WriteOutcome]:
        """Log interactions and update the states of their users, durably and as one step."""
        new: dict[str, list[Interaction]] = defaultdict(list)
        owner_of = self._records.owner_of
        owners = {user_id: owner_of(user_id) for user_id in {o.user_id for o in interactions}}
        failpoints.reach("append.begun")
        with self._file.transaction() as db:
            users = self._users(db, owners)
            # Within the step, or whoever is deleted at this moment could lose the key again; and
            # not for what is refused, which would leave a key of somebody deleted.
            taken = {o.user_id for o in interactions if o.time_us > users[o.user_id].deleted_until}
            self._records.vault.prepare(owners[user_id] for user_id in taken)
            outcomes = self._log(db, interactions, users)
            for one, outcome in zip(interactions, outcomes, strict=True):
                if outcome is WriteOutcome.ACCEPTED:
                    new[one.user_id].append(one)
            failpoints.reach("append.logged")
            self._advance(db, users, new)
            known = sum(users[user_id].kept is not None for user_id in new)
            counted(db, users=len(new) - known, events=sum(map(len, new.values())))
            db.executemany(
                "INSERT INTO item_heat VALUES (?, ?) ON CONFLICT DO UPDATE SET heat ="
                " max(heat, excluded.heat) + log2(1 + pow(2, -abs(heat - excluded.heat)))",
                _heats(new.values()).items(),
            )
        failpoints.reach("append.committed")
        return outcomes

    def _users(self, db: apsw.Connection, owners: Mapping[str, str]) -> dict[str, _User]:
        """What is known of users, by their ids; ``owners`` are their names in storage."""
        rows = db.executemany(_KEPT, [(owner,) for owner in owners.values()])
        kept = {owner: _Kept(*row) for owner, *row in rows}
        ((deleted,),) = db.execute("SELECT EXISTS (SELECT 1 FROM deletions)")
        untils = dict.fromkeys(owners, -1)
        if deleted:
            for user_id in owners:
                tombstone = (self._tombstone(user_id),)
                for (until,) in db.execute("SELECT until FROM deletions WHERE user = ?", tombstone):
                    untils[user_id] = until
        return {
            user_id: _User(owner, untils[user_id], kept.get(owner))
            for user_id, owner in owners.items()
        }

    def _log(
        self, db: apsw.Connection, interactions: Sequence[Interaction], users: Mapping[str, _User]
    ) -> list[WriteOutcome]:
        """Log what is new of events."""
        rows, numbers = [], []
        outcomes = [WriteOutcome.ACCEPTED] * len(interactions)
        digest_of, value_of = self._records.digest, self._records.event
        for n, one in enumerate(interactions):
            owner, deleted_until, _ = users[one.user_id]
            if one.time_us <= deleted_until:
                outcomes[n] = WriteOutcome.USER_DELETED
                continue
            digest, value = digest_of(owner, one), value_of(owner, one)
            rows.append((one.event_id, owner, one.weight > 0, one.time_us, digest, value))
            numbers.append(n)
        last = _last_number(db)
        before = db.total_changes()
        db.executemany(_LOG_EVENT, rows)
        if db.total_changes() - before < len(rows):
            seen: set[str] = set()
            for n, (event_id, owner, _, _, digest, _) in zip(numbers, rows, strict=True):
                known = db.execute(
                    "SELECT number, owner, digest FROM events WHERE event_id = ?", (event_id,)
                )
                number, *found = next(known)
                if number <= last or event_id in seen:
                    same = found == [owner, digest]
                    outcomes[n] = WriteOutcome.DUPLICATE if same else WriteOutcome.ID_REUSED
                seen.add(event_id)
        return outcomes

    def _advance(
        self,
        db: apsw.Connection,
        users: Mapping[str, _User],
        new: Mapping[str, Sequence[Interaction]],
    ) -> None:
        """Write the states of users after more events, which are logged."""
        added, updated, moved = [], [], []
        # The number of the newest event only grows: whoever was touched first comes first.
        last = _last_number(db)
        states = self._advanced(db, users, new)
        for (user_id, events), state in zip(new.items(), states, strict=True):
            owner, _, kept = users[user_id]
            newest_day = max(one.time_us for one in events) // DAY_US
            turn = last if any(one.weight for one in events) else None
            if kept is None:
                added.append((owner, newest_day, newest_day, turn, state))
                continue
            late = newest_day >= kept.idle_day + IDLE_DAYS
            if late or (turn and not kept.touched):
                idle_day = newest_day if late else kept.idle_day
                moved.append((state, newest_day, turn, idle_day, kept.number))
            else:
                updated.append((state, newest_day, kept.number))
        for sql, rows in ((_NEW_USER, added), (_UPDATE_USER, updated), (_MOVE_USER, moved)):
            db.executemany(sql, rows)

    def _advanced(
        self,
        db: apsw.Connection,
        users: Mapping[str, _User],
        new: Mapping[str, Sequence[Interaction]],
    ) -> list[bytes]:
        """The states of users after more events."""
        grown = []
        for user_id, events in new.items():
            owner, _, kept = users[user_id]
            logged = partial(self._logged, db, owner)
            grown.append(Grown(user_id, owner, kept and kept.state, events, logged))
        try:
            return self._records.advanced(grown)
        except UserErased:
            return [self._advanced_anew(one) for one in grown]

    def _advanced_anew(self, one: Grown) -> bytes:
        """The state of a user after more events, without what nobody can read any more."""
        try:
            return self._records.advanced([one])[0]
        except UserErased:  # what a deletion that was cut off has left
            return self._records.advanced([Grown(one.user_id, one.owner, None, one.new)])[0]

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

    def write_users(self, records: Sequence[UserRecord]) -> None:
        """Create or replace what is kept of users, as one step; their events stay."""
        owners = [self._records.owner_of(one.user_id) for one in records]
        with self._file.transaction() as db:
            self._records.vault.prepare(owners)
            for owner, one in zip(owners, records, strict=True):
                newest_s = user_state.decode(one.state).traces.span[1]
                ((known,),) = db.execute("SELECT count(*) FROM users WHERE owner = ?", (owner,))
                newest_day = int(max(newest_s, 0.0) * 1e6) // DAY_US
                db.execute(
                    "INSERT INTO users VALUES (NULL, ?, ?, ?, ?, NULL, 1, ?, ?)"
                    " ON CONFLICT (owner) DO UPDATE SET state = excluded.state,"
                    " told = excluded.told, due_time = excluded.due_time, turn = NULL,"
                    " newest_day = max(newest_day, excluded.newest_day), version = version + 1",
                    (
                        owner,
                        newest_day,
                        newest_day,
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
        user = self._users(db, {user_id: owner})[user_id]
        kept = user.kept
        (state,) = self._records.advanced([Grown(user_id, owner, None, events)])
        new = self._records.state_bytes(owner, state)[1]
        told = db.execute("SELECT told, due_time FROM users WHERE owner = ?", (owner,))
        alarm = told.fetchone() or (b"", None)
        if kept and self._stands(owner, kept.state, new) and self._whole(owner, alarm[0]):
            return False
        db.execute("DELETE FROM users WHERE owner = ?", (owner,))
        self._advance(db, {user_id: user._replace(kept=None)}, {user_id: events})
        if self._whole(owner, alarm[0]):
            db.execute("UPDATE users SET told = ?, due_time = ? WHERE owner = ?", (*alarm, owner))
        counted(db, users=int(kept is None))
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


def _last_number(db: apsw.Connection) -> int:
    """The number of the newest event there ever was."""
    rows: Any = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'")
    return next(rows, (0,))[0]


def _heats(groups: Iterable[Sequence[Interaction]]) -> dict[int, float]:
    heats: dict[int, float] = {}
    for events in groups:
        for one in events:
            if one.weight and one.item_key:
                heat = item_heat(one.time_s, one.weight)
                known = heats.get(one.item_key)
                heats[one.item_key] = heat if known is None else float(np.logaddexp2(known, heat))
    return heats
