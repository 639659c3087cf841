"""Alarms and transitions in the embedded store."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import apsw

from server.state.alarms import Alarm, Settlement, Span, Transition
from server.state.codec import decode_traces
from server.state.sqlite_file import SqliteFile

__all__ = ["ALARM_SCHEMA", "SqliteAlarms", "touch"]

# A user is touched while it has a turn, its place in the line. Of a sweep over all alarms
# (``renew``), solved_with names the parameters, swept how far it has come, sweep_end its end.
ALARM_SCHEMA = """
CREATE TABLE alarms (
    user_id TEXT PRIMARY KEY,
    due_time INTEGER,
    turn INTEGER,
    version INTEGER NOT NULL,
    told BLOB NOT NULL
);
CREATE INDEX due_alarms ON alarms (due_time) WHERE due_time IS NOT NULL;
CREATE INDEX touched_alarms ON alarms (turn) WHERE turn IS NOT NULL;
CREATE TABLE transitions (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id TEXT NOT NULL,
    interest TEXT NOT NULL,
    from_state INTEGER NOT NULL,
    to_state INTEGER NOT NULL,
    transition_time INTEGER NOT NULL,
    retention REAL NOT NULL,
    reason BLOB NOT NULL,
    written_time INTEGER NOT NULL
);
CREATE TABLE alarm_facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
INSERT INTO alarm_facts VALUES
    ('store_id', lower(hex(randomblob(16)))), ('solved_with', ''), ('swept', 0), ('sweep_end', 0);
"""

_ALARM = (
    "SELECT user_id, due_time, turn IS NOT NULL, version, told, state"
    " FROM alarms LEFT JOIN user_states USING (user_id)"
)


def touch(db: apsw.Connection, user_ids: Iterable[str]) -> None:
    """Put users in line, within the transaction that changes their traces."""
    # The number of the newest event only grows, so that whoever was touched first comes first.
    db.executemany(
        "INSERT INTO alarms VALUES (?, NULL, (SELECT max(rowid) FROM events), 1, x'')"
        " ON CONFLICT DO UPDATE SET turn = coalesce(turn, excluded.turn), version = version + 1",
        ((user_id,) for user_id in user_ids),
    )


class SqliteAlarms:
    """``server.state.alarms.Alarms`` on one SQLite file."""

    def __init__(self, file: SqliteFile) -> None:
        """Set up on a file with these tables."""
        self._file = file
        facts = file.rows("SELECT value FROM alarm_facts WHERE name = 'store_id'")
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
        return [_alarm(row) for row in rows.values()]

    def next_due_us(self) -> int | None:
        """When the earliest alarm is due, whoever is in line; None if there is none."""
        rows = self._file.rows_for_writing(
            "SELECT due_time FROM alarms WHERE due_time IS NOT NULL ORDER BY due_time LIMIT 1"
        )
        return rows[0][0] if rows else None

    def settle(self, settlements: Sequence[Settlement], now_us: int) -> list[bool]:
        """Write what became of alarms, durably and as one step, each only if it is unchanged."""
        written = []
        with self._file.transaction() as db:
            for one in settlements:
                db.execute(
                    "UPDATE alarms SET told = ?, due_time = ?, turn = NULL, version = version + 1"
                    " WHERE user_id = ? AND version = ?",
                    (one.told, one.due_us, one.user_id, one.version),
                )
                written.append(bool(db.changes()))
                if written[-1] and one.transitions:
                    db.executemany(
                        "INSERT INTO transitions VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)",
                        (
                            (
                                t.user_id,
                                t.interest,
                                t.from_state,
                                t.to_state,
                                t.time_us,
                                t.retention,
                                t.reason,
                                now_us,
                            )
                            for t in one.transitions
                        ),
                    )
        return written

    def waiting(self, now_us: int, most: int) -> int:
        """How many users are to be solved, counted up to about ``most``."""
        ((due, touched),) = self._file.rows_for_writing(
            "SELECT (SELECT count(*) FROM (SELECT 1 FROM alarms"
            " WHERE due_time <= ? AND turn IS NULL LIMIT ?)),"
            " (SELECT count(*) FROM (SELECT 1 FROM alarms WHERE turn IS NOT NULL LIMIT ?))",
            (now_us, most, most),
        )
        return int(due + touched)

    def renew(self, parameters: str, share: float) -> bool:
        """Touch a share of the users last solved with other parameters; whether any are left."""
        facts = dict(self._file.rows_for_writing("SELECT name, value FROM alarm_facts"))
        if facts["solved_with"] == parameters and facts["swept"] >= facts["sweep_end"]:
            return False
        with self._file.transaction() as db:
            # Again, as another gateway may have come between.
            facts = dict(db.execute("SELECT name, value FROM alarm_facts"))
            if facts["solved_with"] != parameters:
                ((end,),) = db.execute("SELECT coalesce(max(rowid), 0) FROM alarms")
                facts |= {"solved_with": parameters, "swept": 0, "sweep_end": end}
            swept, end = facts["swept"], facts["sweep_end"]
            reached = min(end, swept + math.ceil(end * share))
            db.execute(
                "UPDATE alarms SET version = version + 1,"
                " turn = coalesce(turn, (SELECT max(rowid) FROM events), 0)"
                " WHERE rowid > ? AND rowid <= ?",
                (swept, reached),
            )
            facts["swept"] = reached
            db.executemany(
                "UPDATE alarm_facts SET value = ? WHERE name = ?",
                ((value, name) for name, value in facts.items()),
            )
        return bool(reached < end)

    def transitions(self, after: int, limit: int) -> list[tuple[int, Transition]]:
        """Transitions with their numbers, in order, after a number."""
        rows = self._file.rows(
            "SELECT number, user_id, interest, from_state, to_state, transition_time, retention,"
            " reason FROM transitions WHERE number > ? ORDER BY number LIMIT ?",
            (after, limit),
        )
        return [(row[0], Transition(*row[1:])) for row in rows]

    def span(self) -> Span:
        """Which transitions are kept."""
        ((oldest, newest),) = self._file.rows(
            "SELECT (SELECT min(number) FROM transitions),"
            " coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'transitions'), 0)"
        )
        return Span(newest + 1 if oldest is None else oldest, newest)

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


def _alarm(row: tuple[Any, ...]) -> Alarm:
    user_id, due_us, touched, version, told, state = row
    try:
        traces = None if state is None else decode_traces(state)
    except ValueError:
        traces = None
    return Alarm(user_id, due_us, bool(touched), version, told, traces)
