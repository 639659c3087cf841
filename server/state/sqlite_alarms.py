"""Alarms and transitions in the embedded store."""

from __future__ import annotations

import math
from collections.abc import Sequence

import apsw

from server import failpoints
from server.state.alarms import Alarm, Settlement, Span, Transition
from server.state.records import AlarmRow, Records
from server.state.sqlite_file import SqliteFile

__all__ = ["ALARM_SCHEMA", "SqliteAlarms"]

# A user is touched while it has a turn, its place in the line. Of a sweep over all users
# (``renew``), solved_with names the parameters, swept how far it has come, sweep_end its end.
ALARM_SCHEMA = """
CREATE TABLE transitions (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    owner TEXT NOT NULL,
    written_time INTEGER NOT NULL,
    value BLOB NOT NULL
);
CREATE INDEX transitions_of ON transitions (owner);
INSERT INTO facts VALUES ('solved_with', ''), ('swept', 0), ('sweep_end', 0);
"""

_ALARM = "SELECT owner, due_time, turn IS NOT NULL, version, told, state FROM users"
_SWEEP = "SELECT name, value FROM facts WHERE name IN ('solved_with', 'swept', 'sweep_end')"


class SqliteAlarms:
    """``server.state.alarms.Alarms`` on one SQLite file."""

    def __init__(self, file: SqliteFile, records: Records) -> None:
        """Set up on a file with these tables."""
        self._file = file
        self._records = records
        facts = file.rows("SELECT value FROM facts WHERE name = 'store_id'")
        self.store_id: str = facts[0][0]

    def due(self, now_us: int, limit: int, touched: int) -> list[Alarm]:
        """Up to ``limit`` users that are due, earliest first, and up to ``touched`` in line."""
        due = self._file.rows_for_writing(
            f"{_ALARM} WHERE due_time <= ? ORDER BY due_time LIMIT ?", (now_us, limit)
        )
        in_line = self._file.rows_for_writing(
            f"{_ALARM} WHERE turn IS NOT NULL ORDER BY turn LIMIT ?", (touched,)
        )
        rows = {row[0]: row for row in (*due, *in_line)}
        return self._records.alarms([AlarmRow(*row) for row in rows.values()])

    def next_due_us(self) -> int | None:
        """When the earliest alarm is due, whoever is in line; None if there is none."""
        rows = self._file.rows_for_writing(
            "SELECT due_time FROM users WHERE due_time IS NOT NULL ORDER BY due_time LIMIT 1"
        )
        return rows[0][0] if rows else None

    def settle(self, settlements: Sequence[Settlement], now_us: int) -> list[bool]:
        """Write what became of alarms, durably and as one step, each only if it is unchanged."""
        failpoints.reach("settle.begun")
        with self._file.transaction() as db:
            written = [self._settled(db, one, now_us) for one in settlements]
        failpoints.reach("settle.committed")
        return written

    def _settled(self, db: apsw.Connection, one: Settlement, now_us: int) -> bool:
        unchanged = "SELECT 1 FROM users WHERE owner = ? AND version = ?"
        if not db.execute(unchanged, (one.owner, one.version)).fetchall():
            return False
        told = None if one.told is None else self._records.told(one.owner, one.told)
        db.execute(
            "UPDATE users SET told = coalesce(?, told), due_time = ?, turn = NULL,"
            " version = version + 1 WHERE owner = ?",
            (told, one.due_us, one.owner),
        )
        db.executemany(
            "INSERT INTO transitions VALUES (NULL, ?, ?, ?)",
            (
                (one.owner, now_us, self._records.transition(one.owner, transition))
                for transition in one.transitions
            ),
        )
        return True

    def waiting(self, now_us: int, most: int) -> int:
        """How many users are to be solved, counted up to about ``most``."""
        ((due, touched),) = self._file.rows_for_writing(
            "SELECT (SELECT count(*) FROM (SELECT 1 FROM users"
            " WHERE due_time <= ? AND turn IS NULL LIMIT ?)),"
            " (SELECT count(*) FROM (SELECT 1 FROM users WHERE turn IS NOT NULL LIMIT ?))",
            (now_us, most, most),
        )
        return int(due + touched)

    def renew(self, parameters: str, share: float) -> bool:
        """Touch a share of the users last solved with other parameters; whether any are left."""
        facts = dict(self._file.rows_for_writing(_SWEEP))
        if facts["solved_with"] == parameters and facts["swept"] >= facts["sweep_end"]:
            return False
        with self._file.transaction() as db:
            # Again, as another gateway may have come between.
            facts = dict(db.execute(_SWEEP))
            if facts["solved_with"] != parameters:
                ((end,),) = db.execute("SELECT coalesce(max(number), 0) FROM users")
                facts |= {"solved_with": parameters, "swept": 0, "sweep_end": end}
            swept, end = facts["swept"], facts["sweep_end"]
            reached = min(end, swept + math.ceil(end * share))
            db.execute(
                "UPDATE users SET version = version + 1, turn = coalesce(turn,"
                " (SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0)"
                " WHERE number > ? AND number <= ?",
                (swept, reached),
            )
            facts["swept"] = reached
            db.executemany(
                "UPDATE facts SET value = ? WHERE name = ?",
                ((value, name) for name, value in facts.items()),
            )
        return bool(reached < end)

    def transitions(self, after: int, limit: int) -> list[tuple[int, Transition]]:
        """Transitions with their numbers, in order, after a number."""
        rows = self._file.rows(
            "SELECT number, owner, value FROM transitions WHERE number > ? ORDER BY number LIMIT ?",
            (after, limit),
        )
        return [
            (number, self._records.opened_transition(owner, value)) for number, owner, value in rows
        ]

    def transitions_of(self, user_id: str) -> list[Transition]:
        """The transitions of a user that are kept, in the order they were written."""
        owner = self._records.owner_of(user_id)
        rows = self._file.rows(
            "SELECT value FROM transitions WHERE owner = ? ORDER BY number", (owner,)
        )
        return [self._records.opened_transition(owner, value) for (value,) in rows]

    def span(self) -> Span:
        """Which transitions are kept."""
        ((oldest, newest),) = self._file.rows(
            "SELECT (SELECT min(number) FROM transitions),"
            " coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'transitions'), 0)"
        )
        return Span(newest + 1 if oldest is None else oldest, newest)

    def write_transitions(
        self, transitions: Sequence[tuple[int, Transition]], newest: int, now_us: int
    ) -> None:
        """Take over transitions of another store under their numbers; those there are stay."""
        owners = [self._records.owner_of(one.user_id) for _, one in transitions]
        with self._file.transaction() as db:
            self._records.vault.prepare(owners)
            db.executemany(
                "INSERT OR IGNORE INTO transitions VALUES (?, ?, ?, ?)",
                (
                    (number, owner, now_us, self._records.transition(owner, one))
                    for owner, (number, one) in zip(owners, transitions, strict=True)
                ),
            )
            db.execute(
                "INSERT INTO sqlite_sequence SELECT 'transitions', 0"
                " WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'transitions')"
            )
            db.execute(
                "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'transitions'", (newest,)
            )

    def prune(self, before_us: int, limit: int) -> int:
        """Forget transitions written before a moment, oldest first; how many went."""
        old = (
            "SELECT max(number) FROM (SELECT number, written_time FROM transitions"
            " ORDER BY number LIMIT ?) WHERE written_time < ?"
        )
        if self._file.rows_for_writing(old, (limit, before_us)) == [(None,)]:
            return 0
        with self._file.transaction() as db:
            db.execute(f"DELETE FROM transitions WHERE number <= ({old})", (limit, before_us))
            return db.changes()
