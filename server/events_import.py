"""Event logs from files, straight into a store: checked and resolved as the gateway does it.

Rows are read some hundred thousand at a time and ordered by user, so that the events of one user
are written together, in steps of some twenty thousand. Reading and checking can be done by another
process, while this one writes.
"""

from __future__ import annotations

import gc
import signal
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from heapq import nsmallest
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple, TypeVar

from server.catalog import Catalog
from server.events_rows import BadRow, Row, Rows
from server.events_taking import Events, Taking
from server.state.store import Interaction, Store, WriteOutcome

__all__ = [
    "Group",
    "Imported",
    "ahead",
    "groups",
    "write",
]

CHUNK = 400_000
"""Rows read before they are ordered by user."""
GROUP = 20_000
"""Events written in one step, or a few more."""
NAMED = 5
"""Bad rows that are named."""
T = TypeVar("T")


class Group(NamedTuple):
    """What is written in one step, as columns: these are quicker to hand over than objects."""

    columns: tuple[list[object], ...]
    """In the order of the fields of ``Interaction``."""
    places: list[tuple[int, int]]
    """File and row of each."""
    bad: list[BadRow]
    """Rows left out since the last group."""
    rows: int
    """Rows in it and in ``bad``."""
    total: int
    """Rows in all files, as far as can be told by now."""


@dataclass
class Imported:
    """What became of all rows."""

    accepted: int = 0
    duplicates: int = 0
    deleted_users: int = 0
    """Events of users that were deleted after them, which are refused."""
    bad: Counter[str] = field(default_factory=Counter)
    """Rows left out, by reason."""
    named: list[BadRow] = field(default_factory=list)
    """The first of them."""

    def leave_out(self, rows: Iterable[BadRow]) -> None:
        """Count rows that are left out."""
        found = list(rows)
        self.bad.update(row.reason for row in found)
        self.named = nsmallest(NAMED, [*self.named, *found])

    @property
    def left_out(self) -> int:
        """Rows left out."""
        return self.bad.total()


def write(
    store: Store, prepared: Iterable[Group], tell: Callable[[Imported, Group, bool], None]
) -> Imported:
    """Write groups; durable one by one.

    Args:
        store: where to.
        prepared: from ``groups``.
        tell: is told before each group is written, with its bad rows counted, and after; which
            of both is its last argument. What it raises ends the import.

    Raises:
        StorageFull, StoreUnavailable: the store refused a group; those before it are there.
    """
    done = Imported()
    for group in prepared:
        done.leave_out(group.bad)
        tell(done, group, False)
        outcomes = store.append(list(map(Interaction, *group.columns)))
        counts = Counter(outcomes)
        done.accepted += counts[WriteOutcome.ACCEPTED]
        done.duplicates += counts[WriteOutcome.DUPLICATE]
        done.deleted_users += counts[WriteOutcome.USER_DELETED]
        if counts[WriteOutcome.ID_REUSED]:
            done.leave_out(
                BadRow(*place, "another event has this event_id")
                for place, outcome in zip(group.places, outcomes, strict=True)
                if outcome is WriteOutcome.ID_REUSED
            )
        tell(done, group, True)
    return done


def groups(paths: Sequence[Path], taking: Taking, store: Store) -> Iterator[Group]:
    """The events of files, checked and resolved, in the groups they are to be written in.

    Args:
        paths: the files.
        taking: how rows become events.
        store: whose catalogue says what items are about.

    Raises:
        FileError: a file cannot be read.
    """
    source, read = Rows(paths), 0
    following = iter(source)
    catalog = Catalog(store, ThreadPoolExecutor(1))  # no thread is made until something is written
    events = Events(taking)
    while chunk := list(islice(following, CHUNK)):
        read += len(chunk)
        total = max(read, round(read / source.share))
        bad = [row for row in chunk if isinstance(row, BadRow)]
        good = [row for row in chunk if isinstance(row, Row)]
        good.sort(key=lambda row: row.user_id or "")
        rows = len(bad)
        for first, last in list(_cuts(good)) or [(0, 0)]:
            columns, places, more = events.prepare(good[first:last], catalog)
            yield Group(columns, places, bad + more, rows + last - first, total)
            bad, rows = [], 0


def ahead(make: Callable[[], Iterator[T]]) -> Generator[T, None, None]:
    """What ``make`` yields, made by another process, which is one step ahead.

    Both ``make`` and what it yields or raises must be able to travel between processes.
    """
    context = get_context("spawn")  # a fork would share database files and locks of threads
    here, there = context.Pipe(duplex=False)
    worker = context.Process(target=_send, args=(there, make), daemon=True)
    worker.start()
    there.close()
    try:
        while True:
            try:
                kind, made = here.recv()
            except EOFError:
                raise RuntimeError("the process that reads the log was ended") from None
            if kind == "failed":
                raise made
            if kind == "done":
                return
            yield made
    finally:
        here.close()
        worker.terminate()  # it only reads
        worker.join()


def _send(there: Connection, make: Callable[[], Iterator[T]]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever it works for hears of it
    gc.disable()  # rows come and go by the million, and are in no cycles
    try:
        for made in make():
            there.send(("made", made))
        there.send(("done", None))
    except BrokenPipeError:
        pass  # nobody wants any more
    except Exception as error:
        there.send(("failed", error))


def _cuts(rows: Sequence[Row]) -> Iterator[tuple[int, int]]:
    """Where to cut rows that are ordered by user: between users, if that is near."""
    first = 0
    while first < len(rows):
        last = min(first + GROUP, len(rows))
        farthest = min(first + 2 * GROUP, len(rows))
        while last < farthest and rows[last].user_id == rows[last - 1].user_id:
            last += 1
        yield first, last
        first = last
