"""What an event costs as users grow: CPU time and pages, of the store and of the raw engine."""

from __future__ import annotations

import resource
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import apsw

from benchmarks.state_bytes import sqlite_bytes
from benchmarks.state_load import events, preload
from benchmarks.state_peers import RawSqlite, Recording, sqlite

__all__ = ["growth"]

GROUPS = (32, 256)
EVENTS = 2048
"""Events of a turn: few, so that states hardly grow where there are few users."""
LOADING = ("synchronous = OFF", "cache_size = -1048576", "wal_autocheckpoint = 50000")


def growth(users: Sequence[int], rounds: int) -> dict[str, Any]:
    """By how many users there are; all take turns, so that other work hits them alike.

    Args:
        users: of each file.
        rounds: turns of each.
    """
    with ExitStack() as stack:
        files = []
        for count in users:
            began = time.monotonic()
            files.append(stack.enter_context(closing(_File(count))))
            print(f"{count} users: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        for n in range(rounds + 1):
            for group in GROUPS:
                for file in files:
                    file.take_turn(group, counts=n > 0)  # the first one warms the caches
        by_users = {str(one.users): one.found() for one in files}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"by_users": by_users, **_spread(by_users), "peak_memory_mib": peak}


def _spread(by_users: dict[str, dict[str, Any]]) -> dict[str, float]:
    """How much more the most costly number of users costs than the least."""
    found = {}
    for group in GROUPS:
        for kind in ("cpu_us", "raw_cpu_us"):
            costs = [row[f"groups_of_{group}"][kind] for row in by_users.values()]
            found[f"{kind}_of_{group}_most_over_least"] = round(max(costs) / min(costs), 3)
    return found


def _read_through(path: Path) -> None:
    """Have the system hold a file in memory, of which it may have let go meanwhile.

    What is measured is what the engine does, and not how many pages of a file come from the disk.
    """
    with path.open("rb") as file:
        while file.read(2**22):
            pass


class _File:
    """A state file of so many users, and a copy of it for the raw engine."""

    def __init__(self, users: int) -> None:
        self.users = users
        self._folder = tempfile.TemporaryDirectory(prefix="ebbing-state-")
        place = Path(self._folder.name)
        self._path = place / "state.db"
        with closing(sqlite(self._path)) as store:
            for pragma in LOADING:  # of this connection alone, and not measured
                store.connection.execute(f"PRAGMA {pragma}").fetchall()
            preload(store, users)
        shutil.copyfile(self._path, place / "raw.db")
        self._records = Recording()
        self._store = sqlite(self._path, self._records)
        self._raw = RawSqlite(place / "raw.db")
        self._stream = events(1, users, 0)
        self._costs: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def take_turn(self, group: int, counts: bool) -> None:
        """Append events in groups of a size, to the store and to the raw engine."""
        groups = [list(islice(self._stream, group)) for _ in range(EVENTS // group)]
        made = []

        def append() -> None:
            for some in groups:
                self._store.append(some)
                made.append(self._records.taken())

        def append_raw() -> None:
            for one in ready:
                self._raw.write(one)

        _read_through(self._path)
        costs = self._cost("", self._store.connection, append)
        _read_through(self._path.with_name("raw.db"))
        ready = [self._raw.ready(self._records.written(one)) for one in made]
        costs |= self._cost("raw_", self._raw.db, append_raw)
        if counts:
            for name, value in costs.items():
                self._costs[group][name].append(value)

    @staticmethod
    def _cost(kind: str, db: apsw.Connection, task: Callable[[], None]) -> dict[str, float]:
        for status in (apsw.SQLITE_DBSTATUS_CACHE_WRITE, apsw.SQLITE_DBSTATUS_CACHE_MISS):
            db.status(status, True)
        cpu, wall = time.process_time(), time.perf_counter()
        task()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        return {
            f"{kind}cpu_us": cpu / EVENTS * 1e6,
            f"{kind}us": wall / EVENTS * 1e6,
            f"{kind}pages_written": db.status(apsw.SQLITE_DBSTATUS_CACHE_WRITE)[0] / EVENTS,
            f"{kind}pages_missed": db.status(apsw.SQLITE_DBSTATUS_CACHE_MISS)[0] / EVENTS,
        }

    def found(self) -> dict[str, Any]:
        """Costs of an event, and bytes."""
        costs = {
            f"groups_of_{group}": {name: round(median(each), 2) for name, each in costs.items()}
            for group, costs in self._costs.items()
        }
        return {**costs, **sqlite_bytes(self._path)}

    def close(self) -> None:
        """Remove both."""
        self._store.close()
        self._raw.close()
        self._folder.cleanup()
