"""What keeping state costs: the store's update and read paths beside the raw engine.

Events of random users are appended in groups, as the gateway commits them: each is logged, its
user's state read, advanced and replaced, its alarm touched, in one synced transaction. The peer
writes the very same bytes into the same tables and indexes, statement by statement, and reads and
computes nothing: what the engine can do at best. Both take turns on files of their own, so that
other work on the machine hits both alike.

    python -m benchmarks.state                          # rates and ratios, SQLite
    python -m benchmarks.state --redis redis://host:port/0
    python -m benchmarks.state --users 10000 1000000    # cost per event as users grow
    python -m benchmarks.state --capacity               # bytes a user
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import apsw
from google.protobuf.timestamp_pb2 import Timestamp

from benchmarks.record import circumstances, keep
from ebbing.history import item_key
from ebbing.v1.user_event_pb2 import UserEvent
from server.state.records import Records
from server.state.sqlite import SqliteStore
from server.state.store import Interaction, Store, item_heat
from server.state.user_state import Bounds, Logged
from server.state.vault import PlainVault

DAY_US = 86_400_000_000
START_US = 1_750_000_000_000_000
BOUNDS = Bounds(128, 12 * 1024)
INTERESTS = 30
"""Interests of a user."""
ITEMS = 20_000
PRELOADED = 4
"""Events of each user before anything is measured."""
STEP_US = 40_000_000
"""Time between events."""


def events(seed: int, users: int, first: int) -> Iterator[Interaction]:
    """Events without end, of random users among so many, each about two interests of its user."""
    chance = random.Random(seed)
    number = first
    while True:
        user = chance.randrange(users)
        yield event(chance, number, user, START_US + number * STEP_US)
        number += 1


def event(chance: random.Random, number: int, user: int, time_us: int) -> Interaction:
    """One event of a user."""
    topic = int(INTERESTS * chance.random() ** 2)
    item = f"item-{chance.randrange(ITEMS):06}"
    moment = Timestamp()
    moment.FromMicroseconds(time_us)
    body = UserEvent(
        event_id=f"{number:016x}-{chance.getrandbits(32):08x}",
        user_id=f"user-{user:08}",
        item_id=item,
        event_type="EVENT_TYPE_CLICK",
        event_time=moment,
        session_id=f"session-{chance.getrandbits(32):08x}",
    )
    interests = ((f"topic/{(user + topic) % 400:03}", 1.0), (f"brand/{(user * 7 + topic) % 90}", 0.5))
    return Interaction(
        body.event_id,
        body.user_id,
        item_key(item),
        int(body.event_type),
        time_us,
        1.0,
        interests,
        body.SerializeToString(deterministic=True),
    )


@dataclass
class Written:
    """The bytes that a group of events made."""

    events: list[tuple[str, str, int, int, bytes, bytes]] = field(default_factory=list)
    """Id, owner, whether it is an engagement, time, digest, value."""
    states: list[tuple[str, int, bytes]] = field(default_factory=list)
    """Owner, newest day, value."""
    heats: list[tuple[int, float]] = field(default_factory=list)


class Recording(Records):
    """Records that keep what they have made."""

    def __init__(self) -> None:
        super().__init__(PlainVault(), BOUNDS)
        self.written = Written()

    def event(self, owner: str, one: Interaction) -> bytes:
        value = super().event(owner, one)
        digest = self.digest(owner, one)
        row = (one.event_id, owner, int(one.weight > 0), one.time_us, digest, value)
        self.written.events.append(row)
        self.written.heats.append((one.item_key, item_heat(one.time_s, one.weight)))
        return value

    def advanced(
        self,
        user_id: str,
        owner: str,
        sealed: bytes | None,
        new: Sequence[Interaction],
        logged: Logged,
    ) -> bytes:
        value = super().advanced(user_id, owner, sealed, new, logged)
        self.written.states.append((owner, new[-1].time_us // DAY_US, value))
        return value


class Raw(Protocol):
    """An engine that is told what to write, and what to read."""

    def write(self, written: Written) -> None: ...

    def read(self, owners: Sequence[str]) -> None: ...


class RawSqlite:
    """The same tables, the same bytes, the same syncs; nothing is read or computed."""

    def __init__(self, path: Path) -> None:
        SqliteStore(path, Records(PlainVault(), BOUNDS)).close()
        self._db = apsw.Connection(str(path))
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "cache_size = -65536"):
            self._db.execute(f"PRAGMA {pragma}").fetchall()
        self._db.execute("PRAGMA secure_delete = ON").fetchall()

    def write(self, written: Written) -> None:
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        db.executemany(
            "INSERT INTO events VALUES (NULL, ?, ?, ?, ?, ?, ?)", written.events
        )
        db.executemany(
            "INSERT INTO users VALUES (NULL, ?, ?, NULL, 1, 1, x'', ?) ON CONFLICT (owner)"
            " DO UPDATE SET state = excluded.state, version = version + 1,"
            " newest_day = excluded.newest_day, turn = excluded.turn",
            written.states,
        )
        db.executemany("INSERT OR REPLACE INTO item_heat VALUES (?, ?)", written.heats)
        db.execute("COMMIT")

    def read(self, owners: Sequence[str]) -> None:
        for owner in owners:
            self._db.execute("SELECT state FROM users WHERE owner = ?", (owner,)).fetchall()

    def close(self) -> None:
        self._db.close()


def rate(task: Callable[[], None], count: int) -> float:
    """How many a second."""
    started = time.perf_counter()
    task()
    return count / (time.perf_counter() - started)


def turns(
    store: Store, records: Recording, raw: Raw, group: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Rates of groups of one size, store and raw engine by turns."""
    count = max(group, options.events // (16 if group == 1 else 1))
    stream = events(group, options.population, group * 20_000)
    rates: dict[str, list[float]] = {"updates": [], "raw_updates": [], "reads": [], "raw_reads": []}
    for _ in range(options.rounds):
        batches = [[next(stream) for _ in range(group)] for _ in range(count // group)]
        made = []

        def update(batches: list[list[Interaction]] = batches, made: list[Written] = made) -> None:
            for batch in batches:
                records.written = Written()
                store.append(batch)
                made.append(records.written)

        def update_raw(made: list[Written] = made) -> None:
            for written in made:
                raw.write(written)

        size = len(batches) * group
        rates["updates"].append(rate(update, size))
        rates["raw_updates"].append(rate(update_raw, size))
        names = [[one.user_id for one in batch] for batch in batches]

        def read(names: list[list[str]] = names) -> None:
            for some in names:
                store.states(some)

        def read_raw(names: list[list[str]] = names) -> None:
            for some in names:
                raw.read(some)

        rates["reads"].append(rate(read, size))
        rates["raw_reads"].append(rate(read_raw, size))
    found = {f"{name}_per_s": round(statistics.median(each)) for name, each in rates.items()}
    for kind in ("updates", "reads"):
        ratios = [a / b for a, b in zip(rates[kind], rates[f"raw_{kind}"], strict=True)]
        found[f"{kind}_over_raw"] = round(statistics.median(ratios), 3)
    return found


def preload(store: Store, users: int, each: int) -> None:
    """Give every user some events, one a user in each of so many passes, in random order.

    Whatever is loaded once in order lies in full pages, each of which splits when it first grows.
    """
    chance = random.Random(users)
    for n in range(each):
        order = list(range(users))
        chance.shuffle(order)
        time_us = START_US - (each - n) * 5 * DAY_US
        for start in range(0, users, 2000):
            store.append(
                [
                    event(chance, (n + 1) * 10**12 + user, user, time_us + user)
                    for user in order[start : start + 2000]
                ]
            )


def growth(options: argparse.Namespace) -> dict[str, Any]:
    """CPU time per event as users grow, on files with so many users, by size of groups."""
    found: dict[str, dict[str, Any]] = {}
    for users in options.users:
        with folder() as place, closing(sqlite(place / "state.db")) as store:
            preload(store, users, PRELOADED)
            stream = events(1, users, 0)
            row: dict[str, Any] = {}
            for group in (32, 256):
                costs = []
                for _ in range(options.rounds):
                    batches = [[next(stream) for _ in range(group)] for _ in range(4096 // group)]
                    started = time.process_time()
                    for batch in batches:
                        store.append(batch)
                    costs.append((time.process_time() - started) / 4096 * 1e6)
                row[f"cpu_us_per_event_of_{group}"] = round(statistics.median(costs), 1)
            size = store.size()
            row["file_bytes_per_user"] = round(size.stored_bytes / size.users)
            row["peak_memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            found[str(users)] = row
    return {
        "by_users": found,
        **{
            f"most_over_least_of_{group}": round(
                max(r[f"cpu_us_per_event_of_{group}"] for r in found.values())
                / min(r[f"cpu_us_per_event_of_{group}"] for r in found.values()),
                3,
            )
            for group in (32, 256)
        },
    }


def capacity() -> dict[str, Any]:
    """Bytes a user: state, what was told of it and its alarm, as the engine stores them."""
    found = {}
    for count, interests in ((10, 5), (50, 15), (200, 30), (1000, 60), (5000, 128)):
        with folder() as place, closing(sqlite(place / "state.db")) as store:
            chance = random.Random(count)
            for user in range(40):
                log = []
                for n in range(count):
                    topic = int(interests * chance.random() ** 1.5)
                    one = event(chance, user * 10**6 + n, user, START_US + n * 3 * 3600 * 10**6)
                    about = ((f"department/topic-{topic:03}", 1.0),)
                    log.append(Interaction(*(about if f == "interests" else getattr(one, f) for f in FIELDS)))
                store.append(log)
            told(store)
            rows = apsw.Connection(str(place / "state.db")).execute(
                "SELECT length(state) + length(told) + 2 * length(owner) + 40, length(state),"
                " length(told) FROM users"
            ).fetchall()
            log_bytes = store.size().stored_bytes / 40 - statistics.mean(row[0] for row in rows)
            found[f"{count} events, {interests} interests"] = {
                "bytes": round(statistics.mean(row[0] for row in rows)),
                "most_bytes": max(row[0] for row in rows),
                "state": round(statistics.mean(row[1] for row in rows)),
                "told": round(statistics.mean(row[2] for row in rows)),
                "log_bytes_per_event": round(log_bytes / count),
            }
    return found


FIELDS = ("event_id", "user_id", "item_key", "event_type", "time_us", "weight", "interests", "body")


def told(store: Store) -> None:
    """Tell of all users, as the watch does."""
    from ebbing.interest.forgetting import ForgettingParameters
    from server.assessing import ReleaseAssess
    from server.solving import solved_alarms

    assess = ReleaseAssess(ForgettingParameters.builtin(), lambda *_: b"")
    alarms = store.alarms.due(2 * START_US, 1000, 1000)
    store.alarms.settle(solved_alarms(alarms, assess, START_US), START_US)


@contextmanager
def folder() -> Iterator[Path]:
    """A folder for a while, on a disk that syncs."""
    place = Path(tempfile.mkdtemp(prefix="ebbing-state-", dir=os.environ.get("TMPDIR")))
    try:
        yield place
    finally:
        shutil.rmtree(place)


def sqlite(path: Path, records: Records | None = None) -> SqliteStore:
    """The embedded store."""
    return SqliteStore(path, records or Records(PlainVault(), BOUNDS))


def rates(options: argparse.Namespace) -> dict[str, Any]:
    """Rates and ratios of all sizes of groups."""
    with folder() as place:
        records = Recording()
        store, raw = sqlite(place / "state.db", records), RawSqlite(place / "raw.db")
        with closing(store), closing(raw):
            preload(store, options.population, PRELOADED)
            raw.write(records.written)
            before = store.size()
            found = {
                str(group): turns(store, records, raw, group, options) for group in options.groups
            }
            size = store.size()
            grown = (size.stored_bytes - before.stored_bytes) / (size.events - before.events)
            return {
                "groups": found,
                "file_bytes_per_event": round(grown),
                "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            }


def main() -> None:
    """Read the options, run, print and keep the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--groups", type=int, nargs="+", default=[1, 32, 256], help="events a group")
    parser.add_argument("--population", type=int, default=10_000, help="users")
    parser.add_argument("--events", type=int, default=8192, help="events a round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds each")
    parser.add_argument("--users", type=int, nargs="+", help="measure cost as users grow to these")
    parser.add_argument("--capacity", action="store_true", help="measure bytes a user")
    parser.add_argument("--out", type=Path, help="file to keep the result in")
    options = parser.parse_args()
    if options.capacity:
        part = {"capacity": capacity()}
    elif options.users:
        part = {"growth": growth(options)}
    else:
        part = {"sqlite": rates(options), "population": options.population}
    result = {**circumstances(), **part}
    print(json.dumps(result, indent=2))
    keep(result, options.out)


if __name__ == "__main__":
    main()
