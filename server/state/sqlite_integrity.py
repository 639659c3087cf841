"""Whether a state file is whole: the checksums of its pages, what SQLite can see, and all seals.

The checksums tell that something is damaged, the rest what it is and whose. SQLite compares its
tables with their indexes, and pages with each other; a bit that flips within a value it cannot see.
So every value has a seal or a checksum, and every other column is in an index.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import apsw

from server.errors import EbbingError, UserErased
from server.state.records import Records
from server.state.sqlite_catalogue import whole
from server.state.sqlite_file import SqliteFile

__all__ = ["Checked", "Told", "check"]

ROWS_AT_ONCE = 1000
PAGES = "pages"
PAGES_SHARE = 0.3
"""Of the time there is, after which the checksums of pages are given up."""
TABLES_AND_INDEXES = "tables and indexes"
TABLES_AND_INDEXES_SHARE = 0.6
"""The same of what SQLite checks itself."""
NAMED = 20
"""Problems of tables and indexes that are named; there may be thousands of one cause."""

Told = Callable[[str, int, int], None]
"""Is told what is checked, how much of it was, and of how much."""


@dataclass
class Checked:
    """What a check found."""

    pages: int = 0
    """How many pages have a checksum that does not hold, though nothing else may be wrong."""
    problems: list[str] = field(default_factory=list)
    """Of tables and indexes, the first of them."""
    damaged: Counter[str] = field(default_factory=Counter)
    """How many values of each table are damaged."""
    owners: set[str] = field(default_factory=set)
    """The users they belong to, as they are named in storage."""
    erased: set[str] = field(default_factory=set)
    """Users of whom there is something that nobody can read, as their keys are gone."""
    values: int = 0
    """How many values were looked at."""
    complete: bool = True
    """Whether there was time for everything."""

    @property
    def whole(self) -> bool:
        """Whether nothing is damaged, as far as was looked."""
        return not (self.pages or self.problems or self.damaged)

    def __str__(self) -> str:
        found = [f"{count:,} damaged values in {name}" for name, count in self.damaged.items()]
        if self.problems:
            more = f" and {len(self.problems) - 1} more" if self.problems[1:] else ""
            found.append(" ".join(self.problems[0].split()) + more)
        if self.pages:
            found.append(f"{self.pages:,} damaged pages")
        return "; ".join(found) or "whole"


class _Values(NamedTuple):
    """A table whose values have seals."""

    table: str
    keys: str
    """Columns by which its rows are told apart, the first ones of ``columns``."""
    columns: str
    owner: int | None
    """Which column names the user."""
    require: Callable[[Records, Sequence[Any]], object]
    """Raises for a row that is damaged."""


def _event(records: Records, row: Sequence[Any]) -> None:
    _, event_id, owner, time_us, value, digest = row
    _agree(records.digest(owner, records.interaction(owner, event_id, time_us, value)), digest)


def _user(records: Records, row: Sequence[Any]) -> None:
    _, owner, told, state = row
    records.opened_told(owner, told)
    _agree(records.owner_of(records.state(owner, state)[0]), owner)


def _transition(records: Records, row: Sequence[Any]) -> None:
    records.opened_transition(*row[1:])


def _relation(records: Records, row: Sequence[Any]) -> None:
    owner, other, value = row
    _agree(records.owner_of(records.opened_relation(owner, value).other_user_id), other)


def _agree(one: object, other: object) -> None:
    if one != other:
        raise ValueError


TABLES = (
    _Values("events", "number", "number, event_id, owner, event_time, value, digest", 2, _event),
    _Values("users", "number", "number, owner, told, state", 1, _user),
    _Values("transitions", "number", "number, owner, value", 1, _transition),
    _Values("relations", "owner, other", "owner, other, value", 0, _relation),
    _Values(
        "items",
        "item_id",
        "item_id, item_key, interests, available_time, expire_time, body, checksum",
        None,
        lambda _, row: whole(row),
    ),
    _Values("interests", "path", "path, body, checksum", None, lambda _, row: whole(row)),
)


def check(
    file: SqliteFile,
    records: Records,
    told: Told = lambda *_: None,
    budget_s: float | None = None,
    monotonic: Callable[[], float] = lambda: 0.0,
) -> Checked:
    """Check a file that others may be writing to; of each table the newest rows come first.

    Args:
        file: the file.
        records: read what is stored.
        told: is told how far it is.
        budget_s: how long it may take, seconds; None is as long as it takes.
        monotonic: seconds since any moment; only asked where there is a budget.
    """
    began = monotonic()

    def over(share: float) -> Callable[[], bool]:
        return lambda: budget_s is not None and monotonic() - began > share * budget_s

    found = Checked()
    with _part(PAGES, found, told):
        for _ in file.damaged_pages(over(PAGES_SHARE)):
            found.pages += 1
    with _part(TABLES_AND_INDEXES, found, told):
        for problem in islice(file.problems(over(TABLES_AND_INDEXES_SHARE)), NAMED):
            found.problems.append(problem)
    if not found.problems:  # else its tables cannot be relied on
        with file.unverified() as db:
            for values in TABLES:
                _check_values(db, records, values, found, told, over(1.0))
    return found


@contextmanager
def _part(name: str, found: Checked, told: Told) -> Iterator[None]:
    told(name, 0, 1)
    try:
        yield
    except TimeoutError:
        found.complete = False
    told(name, 1, 1)


def _check_values(
    db: apsw.Connection,
    records: Records,
    values: _Values,
    found: Checked,
    told: Told,
    over: Callable[[], bool],
) -> None:
    ((rows,),) = db.execute(f"SELECT count(*) FROM {values.table}")
    done = 0
    for row in _newest_first(db, values):
        try:
            values.require(records, row)
        except UserErased:
            found.erased.add(row[values.owner or 0])
        except (EbbingError, ValueError, TypeError, AttributeError, struct.error):
            found.damaged[values.table] += 1
            if values.owner is not None:
                found.owners.add(row[values.owner])
        done += 1
        found.values += 1
        if done % ROWS_AT_ONCE == 0:
            told(values.table, done, max(done, rows))
            if over():
                found.complete = False
                return
    told(values.table, done, done)


def _newest_first(db: apsw.Connection, values: _Values) -> Iterator[tuple[Any, ...]]:
    select = f"SELECT {values.columns} FROM {values.table}"
    columns = values.keys.split(", ")
    order = ", ".join(f"{column} DESC" for column in columns)
    marks = ", ".join("?" * len(columns))
    where = ""
    last: tuple[Any, ...] = ()
    while True:
        end = f"{where} ORDER BY {order} LIMIT {ROWS_AT_ONCE}"
        try:
            rows = db.execute(f"{select} {end}", last).fetchall()
        except UnicodeDecodeError:
            keys = db.execute(f"SELECT {values.keys} FROM {values.table} {end}", last).fetchall()
            rows = [_readable(db, values, key) for key in keys]
        yield from rows
        if len(rows) < ROWS_AT_ONCE:
            return
        where, last = f"WHERE ({values.keys}) < ({marks})", rows[-1][: len(columns)]


def _readable(db: apsw.Connection, values: _Values, key: tuple[Any, ...]) -> tuple[Any, ...]:
    """A row; None for a text that is none, or for a value that a flipped bit makes a text."""
    marks = ", ".join("?" * len(key))
    row = []
    for column in values.columns.split(", "):
        sql = f"SELECT {column} FROM {values.table} WHERE ({values.keys}) = ({marks})"
        try:
            row.append(db.execute(sql, key).fetchall()[0][0])
        except UnicodeDecodeError:
            row.append(None)
    return tuple(row)
