"""The stores at work beside their raw engines: what a group wrote, and engines that only write it.

A raw engine is handed the very bytes that the store came to write, under the same keys or into the
same tables and indexes, with the same syncs; it reads nothing and computes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import apsw
import redis

from server.state.records import Grown, Records
from server.state.redis import PARTITIONS, RedisStore
from server.state.redis_append import Logged as LoggedValue
from server.state.redis_claims import claim_of
from server.state.redis_keys import Keys
from server.state.sqlite import SqliteStore
from server.state.sqlite_file import PRAGMAS, opened
from server.state.store import DAY_US, Interaction, item_heat
from server.state.user_state import Bounds
from server.state.vault import PlainVault
from tests.harness.redis import RedisServer
from tests.harness.triton import free_ports

__all__ = [
    "BOUNDS",
    "STORE_NAME",
    "Made",
    "Peer",
    "RawRedis",
    "RawSqlite",
    "Recording",
    "redis_server",
    "redis_store",
    "sqlite",
]

BOUNDS = Bounds(128, 12 * 1024)
STORE_NAME, RAW_NAME = "ebbing-benchmark", "ebbing-benchmark-raw"
LOG_ID = "1763812800000-0"
"""As long as the ids that Redis gives."""


class Event(NamedTuple):
    """A logged event."""

    event_id: str
    owner: str
    engaged: int
    time_us: int
    digest: bytes
    value: bytes


class State(NamedTuple):
    """A user's state."""

    owner: str
    newest_day: int
    value: bytes
    known: bool


class Made(NamedTuple):
    """What a group of events made, as it came."""

    events: list[tuple[str, Interaction, bytes]]
    """Owner, event, value."""
    states: list[State]


class Written(NamedTuple):
    """The bytes that a group of events made."""

    events: list[Event]
    states: list[State]
    heats: list[tuple[int, float]]


class Recording(Records):
    """Records that keep what they have made, until it is taken."""

    def __init__(self) -> None:
        """Set up."""
        super().__init__(PlainVault(), BOUNDS)
        self._made = Made([], [])

    def event(self, owner: str, one: Interaction) -> bytes:
        """A logged event."""
        value = super().event(owner, one)
        self._made.events.append((owner, one, value))
        return value

    def advanced(self, users: Sequence[Grown]) -> list[bytes]:
        """The states of users after more events."""
        values = super().advanced(users)
        for one, value in zip(users, values, strict=True):
            day = one.new[-1].time_us // DAY_US
            self._made.states.append(State(one.owner, day, value, one.sealed is not None))
        return values

    def taken(self) -> Made:
        """What was made since it was asked for last."""
        made, self._made = self._made, Made([], [])
        return made

    def written(self, made: Made) -> Written:
        """The bytes of it."""
        events = [
            Event(one.event_id, owner, 1, one.time_us, self.digest(owner, one), value)
            for owner, one, value in made.events
        ]
        heats = [(one.item_key, item_heat(one.time_s, one.weight)) for _, one, _ in made.events]
        return Written(events, made.states, heats)


class Peer(Protocol):
    """An engine that is told what to write, and what to read."""

    def ready(self, written: Written) -> Any:
        """What ``write`` takes: all that can be computed beforehand."""
        ...

    def write(self, ready: Any) -> None:
        """Write a group, durably."""
        ...

    def read(self, owners: Sequence[str]) -> None:
        """Read the states of a group."""
        ...


class CountedSqlite(SqliteStore):
    """The embedded store, whose connection tells what it has done."""

    @property
    def connection(self) -> apsw.Connection:
        """The one that writes."""
        return self._file.write


def sqlite(path: Path, records: Records | None = None) -> CountedSqlite:
    """The embedded store."""
    return CountedSqlite(path, records or Records(PlainVault(), BOUNDS))


class RawSqlite:
    """``Peer`` on a state file of its own."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it."""
        sqlite(path).close()
        self.db = opened(path)
        for pragma in PRAGMAS:
            self.db.execute(f"PRAGMA {pragma}").fetchall()

    def ready(self, written: Written) -> Written:
        """As it is."""
        return written

    def write(self, ready: Written) -> None:
        """One synced transaction."""
        db = self.db
        db.execute("BEGIN IMMEDIATE")
        db.executemany("INSERT INTO events VALUES (NULL, ?, ?, ?, ?, ?, ?)", ready.events)
        new = [(owner, day, day, state) for owner, day, state, known in ready.states if not known]
        db.executemany("INSERT INTO users VALUES (NULL, ?, ?, ?, NULL, 1, 1, x'', ?)", new)
        db.executemany(
            "UPDATE users SET state = ?, version = version + 1, newest_day = ? WHERE owner = ?",
            [(state, day, owner) for owner, day, state, known in ready.states if known],
        )
        db.executemany("INSERT OR REPLACE INTO item_heat VALUES (?, ?)", ready.heats)
        db.execute("COMMIT")

    def read(self, owners: Sequence[str]) -> None:
        """One statement a state."""
        for owner in owners:
            self.db.execute("SELECT state FROM users WHERE owner = ?", (owner,)).fetchall()

    def close(self) -> None:
        """Close the file."""
        self.db.close()


class RawRedis:
    """``Peer`` under keys of its own, by pipelines of redis-py."""

    def __init__(self, url: str, together: bool) -> None:
        """Connect.

        Args:
            url: the server.
            together: a group is one transaction, which the server syncs once; without, it syncs
                as often as it has read 16 KB of commands.
        """
        self._client = redis.Redis.from_url(url, protocol=2)
        self._keys = Keys(RAW_NAME, PARTITIONS)
        self._together = together
        self._turn = 0

    def ready(self, written: Written) -> list[tuple[Any, ...]]:
        """The commands."""
        return [*self._of_states(written), *self._of_events(written)]

    def _of_states(self, written: Written) -> Iterator[tuple[Any, ...]]:
        first_us: dict[str, int] = {}
        for event in reversed(written.events):
            first_us[event.owner] = event.time_us
        for owner, newest_day, value, known in written.states:
            self._turn += 1
            place = self._keys.of(owner)
            version = 1763812800000000 + self._turn
            words = ("state", value, "version", version, "counted", self._turn)
            yield "HSET", place("user", owner), *words
            yield "ZADD", place("line"), "NX", version, owner
            yield "ZADD", place("newest"), "GT", newest_day, owner
            if not known:
                yield "ZADD", place("owners"), 0, owner
            yield "ZADD", place("oldest"), "LT", first_us[owner], owner

    def _of_events(self, written: Written) -> Iterator[tuple[Any, ...]]:
        for event, (item, heat) in zip(written.events, written.heats, strict=True):
            event_id, owner, _, time_us, digest, sealed = event
            place = self._keys.of(owner)
            # As redis_append.Logged reads it.
            place_in_log = bytes([1, 0, 0, 0, len(LOG_ID)]) + LOG_ID.encode()
            value = digest + time_us.to_bytes(8, "little") + place_in_log + sealed
            assert LoggedValue.of(value) == (digest, time_us, LOG_ID.encode(), sealed)
            yield "HSET", self._keys.of(event_id)("ids"), *claim_of(event_id, owner)
            yield "XADD", place("log"), "*", "o", owner, "e", event_id
            yield "HSET", place("events", owner), event_id, value
            yield "ZADD", place("engagements", owner), time_us, event_id
            yield "ZADD", self._keys.heat("items"), repr(heat), item

    def write(self, ready: list[tuple[Any, ...]]) -> None:
        """One pipeline."""
        self._run(ready, self._together)

    def read(self, owners: Sequence[str]) -> None:
        """One command a state, in one pipeline."""
        commands = [("HGET", self._keys.of(one)("user", one), "state") for one in owners]
        self._run(commands, together=False)

    def _run(self, commands: Iterable[tuple[Any, ...]], together: bool) -> None:
        with self._client.pipeline(transaction=together) as pipeline:
            for words in commands:
                pipeline.execute_command(*words)
            pipeline.execute()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


@contextmanager
def redis_server(given: str, folder: Path) -> Iterator[str]:
    """URL of a server: the given one, left as found, or with ``start`` a new one in a folder."""
    if given != "start":
        client = redis.Redis.from_url(given)
        try:
            yield given
        finally:
            for name in (STORE_NAME, RAW_NAME):
                for key in client.scan_iter(match=f"{{{name}[:}}]*", count=1000):
                    client.unlink(key)
            client.close()
        return
    with RedisServer(folder, *free_ports(1)) as server:
        yield server.url


def redis_store(url: str, records: Records | None = None) -> RedisStore:
    """The store on a server."""
    mark = "&" if "?" in url else "?"
    return RedisStore(f"{url}{mark}name={STORE_NAME}", records or Records(PlainVault(), BOUNDS))
