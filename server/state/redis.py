"""The store for many gateways: Redis or Valkey, one server or a Cluster, with an append-only file.

All that belongs to a user changes by scripts, each of which is one step: so gateways never lose
each other's updates. Nothing is cached.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from heapq import merge
from typing import NamedTuple

from server.errors import EbbingError, StoreUnavailable, UserErased
from server.state import user_state
from server.state.alarms import Alarms
from server.state.records import Grown, Records
from server.state.redis_alarms import RedisAlarms
from server.state.redis_append import Append, Logged
from server.state.redis_forgetting import RedisForgetting
from server.state.redis_keys import Keys, Place
from server.state.redis_link import PATIENCE_S, Address, Command, RedisLink, Word
from server.state.redis_mending import logged
from server.state.redis_scripts import PUT, READ
from server.state.redis_server import facts_of, used_bytes
from server.state.store import (
    DAY_US,
    Interaction,
    RelationRecord,
    StoreSize,
    UserRecord,
    UserState,
    WriteOutcome,
)

__all__ = ["RedisStore"]

PARTITIONS = 32
LOG_PAGE = 512
"""Events of a user read from the log at once."""
FOR_EVER = 2**62
ANY_VERSION = "*"


class _Entry(NamedTuple):
    """An entry of the log: where an event was written."""

    id: bytes
    owner: str
    event_id: bytes


class RedisStore(RedisForgetting):
    """``server.state.store.Store`` in Redis or Valkey."""

    def __init__(
        self,
        url: str,
        records: Records,
        partitions: int = PARTITIONS,
        unreplicated: Callable[[int], None] = lambda events: None,
        patience_s: float = PATIENCE_S,
        volatile: bool = False,
    ) -> None:
        """Open or make the store.

        Args:
            url: where it is, see ``redis_link.Address``.
            records: encodes what is stored of users.
            partitions: into how many parts users are divided where the store is made; a Cluster
                spreads them over its servers.
            unreplicated: is told of events that no replica of a Cluster confirmed in time.
            patience_s: how long a write goes on trying, seconds.
            volatile: take servers too that forget all when they restart.

        Raises:
            StoreUnavailable: the servers do not answer, forget or evict what they were given, are
                too old, or hold a store of another version or one written with other keys.
            StorageFull: there is no room for it.
        """
        address = Address.parse(url)
        link = RedisLink(address, unreplicated, patience_s)
        try:
            facts = facts_of(link, address, records.vault.fingerprint, partitions, volatile)
        except BaseException:
            link.close()
            raise
        keys = Keys(address.name, int(facts["partitions"]))
        alarms = RedisAlarms(link, keys, records, facts["store_id"])
        super().__init__(link, keys, records, alarms)
        self.alarms: Alarms = alarms
        self._facts = Place(f"{{{address.name}}}")

    def append(self, interactions: Sequence[Interaction]) -> list[WriteOutcome]:
        """Log interactions and update the states of their users, durably and as one step a user."""
        return Append(self._link, self._keys, self._records, self._tombstone, interactions).run()

    def states(self, user_ids: Sequence[str]) -> list[UserState | None]:
        """The states of users; None for one without events."""
        owners = [self._records.owner_of(user_id) for user_id in user_ids]
        found = self._link.read([self._user_fields(owner, "state") for owner in owners])
        rows = [(owner, row[0]) for owner, row in zip(owners, found, strict=True) if row[0]]
        told = zip(rows, self._records.states(rows), strict=True)
        states = {owner: state for (owner, _), (_, state) in told}
        return [states.get(owner) for owner in owners]

    def interactions(
        self, user_id: str, until_us: int, newest: int | None = None
    ) -> Iterable[Interaction]:
        """A user's engagements up to a moment, or so many of the newest of them, oldest first."""
        owner = self._records.owner_of(user_id)
        return self._read(owner, "engagements", until_us, newest)

    def asides(self, user_id: str, since_us: int, until_us: int) -> Iterable[Interaction]:
        """A user's events that leave no trace between two moments, oldest first."""
        owner = self._records.owner_of(user_id)
        return self._read(owner, "asides", until_us, since_us=since_us)

    def events_of(self, user_id: str) -> Iterable[Interaction]:
        """All of a user's events, engagements or not, oldest first; read as they are asked for."""
        owner = self._records.owner_of(user_id)
        return merge(
            self._read(owner, "engagements"),
            self._read(owner, "asides"),
            key=lambda one: (one.time_us, one.event_id),
        )

    def _read(
        self,
        owner: str,
        kind: str,
        until_us: int = FOR_EVER,
        newest: int | None = None,
        since_us: int | None = None,
    ) -> Iterator[Interaction]:
        place = self._keys.of(owner)
        keys = (place(kind, owner), place("events", owner))
        most: Word = "" if newest is None else newest
        # No event is called NUL: what follows is found by the time alone.
        last: tuple[Word, Word] | None = ("", 0) if since_us is None else ("\0", since_us - 1)
        while last:
            words = (*last, until_us, most, LOG_PAGE)
            ((ids, values),) = self._link.read([Command.of(READ, place.slot, keys, *words)])
            last = None
            for event_id, value in zip(ids, values, strict=True):
                if value is None:
                    continue  # of a step that a killed server undid
                one = self._interaction(owner, event_id, Logged.of(value))
                yield one
                if len(ids) == LOG_PAGE:
                    last = (event_id, one.time_us)

    def _interaction(self, owner: str, event_id: bytes, stored: Logged) -> Interaction:
        return self._records.interaction(owner, event_id.decode(), stored.time_us, stored.sealed)

    def first_engagement_us(self, user_id: str) -> int | None:
        """Time of a user's first logged engagement; None for a user without any."""
        owner = self._records.owner_of(user_id)
        place = self._keys.of(owner)
        words = ("ZRANGE", place("engagements", owner), 0, 0, "WITHSCORES")
        (first,) = self._link.read([Command(place.slot, words)])
        return int(float(first[1])) if first else None

    def user(self, user_id: str) -> UserRecord | None:
        """All that is kept of a user but for events and relations; None where there is nothing."""
        found = self._records_of([self._records.owner_of(user_id)])
        return found[0] if found else None

    def users(self, after: str, limit: int) -> tuple[list[UserRecord], str]:
        """A page of all users, by partition and their names in storage, and where it ended."""
        page: list[UserRecord] = []
        while len(page) < limit:
            owners = self._own_alarms.owners_after(after, limit - len(page))
            if not owners:
                break
            after = "{}:{}".format(*owners[-1])
            page += self._records_of([owner for _, owner in owners])
        return page, after

    def _records_of(self, owners: Sequence[str]) -> list[UserRecord]:
        """What is kept of users, without those of whom there is nothing."""
        fields = ("state", "told", "due")
        found = self._link.read([self._user_fields(owner, *fields) for owner in owners])
        return [
            UserRecord(
                *self._records.state_bytes(owner, state),
                self._records.opened_told(owner, told or b""),
                int(due) if due else None,
            )
            for owner, (state, told, due) in zip(owners, found, strict=True)
            if state is not None
        ]

    def write_users(self, records: Sequence[UserRecord]) -> None:
        """Create or replace what is kept of users, each as one step; their events stay."""
        owners = [self._records.owner_of(one.user_id) for one in records]
        self._records.vault.prepare(owners)
        commands = []
        for owner, one in zip(owners, records, strict=True):
            newest_s = user_state.decode(one.state).traces.span[1]
            state = self._records.sealed_state(one.user_id, owner, one.state)
            told = self._records.told(owner, one.told)
            due = "" if one.due_us is None else one.due_us
            words = (state, told, due, 0, int(max(newest_s, 0.0) * 1e6) // DAY_US)
            commands.append(self._putting(owner, ANY_VERSION, *words))
        self._link.write(commands)

    def _putting(self, owner: str, version: str | bytes, *words: Word) -> Command:
        place = self._keys.of(owner)
        kinds = ("due", "line", "newest", "owners")
        keys = (place("user", owner), *(place(kind) for kind in kinds))
        return Command.of(PUT, place.slot, keys, owner, version, *words)

    def rebuild(self, user_ids: Sequence[str]) -> int:
        """Compute the states of users anew from the log, each as one step; how many differed.

        A state that counts events the log has lost to their age is left as it is.
        """
        return sum(self._rebuilt(user_id) for user_id in user_ids)

    def _rebuilt(self, user_id: str) -> bool:
        owner = self._records.owner_of(user_id)
        while True:
            logged(self._link, self._keys, {owner: ()})  # makes it whole
            ((version, sealed),) = self._link.read([self._user_fields(owner, "version", "state")])
            events = list(self.events_of(user_id))
            if not events:
                return False
            (state,) = self._records.advanced([Grown(user_id, owner, None, events)])
            if sealed is not None and not self._differs(owner, sealed, state):
                return False
            touched = any(one.weight for one in events)
            newest_day = max(one.time_us for one in events) // DAY_US
            words = (state, b"", "", int(touched), newest_day)
            (written,) = self._link.write([self._putting(owner, version or b"", *words)])
            if written:
                return True

    def _differs(self, owner: str, old_sealed: bytes, new_sealed: bytes) -> bool:
        """Whether a state tells what the log does not, nor has lost."""
        new = self._records.state_bytes(owner, new_sealed)[1]
        try:
            old = self._records.state_bytes(owner, old_sealed)[1]
            counted = user_state.decode(old).traces.event_count
            if counted > user_state.decode(new).traces.event_count:
                return False
            return not user_state.same(old, new)
        except (StoreUnavailable, ValueError):
            return True  # what is damaged is what a rebuild is for

    def log(self, after: str, limit: int) -> tuple[list[Interaction], str]:
        """A page of all events, as each partition wrote them, and where it ended in each."""
        reached = after.split(",") if after else [""] * len(self._keys.partitions)
        events: list[Interaction] = []
        while entries := self._logged_after(reached, limit - len(events)):
            ids = defaultdict[str, list[bytes]](list)
            for one in entries:
                ids[one.owner].append(one.event_id)
            values = logged(self._link, self._keys, ids)
            undone = []
            for one in entries:
                value = values[one.owner, one.event_id]
                stored = None if value is None else Logged.of(value)
                if stored is None or stored.log_id != one.id:
                    undone.append(one)  # by a killed server, or deleted a moment ago
                    continue
                try:
                    events.append(self._interaction(one.owner, one.event_id, stored))
                except UserErased:
                    if self._link.read([self._event(one.owner, one.event_id)]) != [None]:
                        raise
            self._forget_entries(undone)
        return events, ",".join(reached) if any(reached) else ""

    def _logged_after(self, reached: list[str], limit: int) -> list[_Entry]:
        """The next entries of the log; ``reached`` is moved on behind them."""
        places = self._keys.partitions
        entries: list[_Entry] = []
        left = list(range(len(places)))
        while left and len(entries) < limit:
            share = -(-(limit - len(entries)) // len(left))
            pages = self._link.read([_log_page(places[n], reached[n], share) for n in left])
            for n, page in zip(left, pages, strict=True):
                for entry_id, (_, owner, _, event_id) in page[: limit - len(entries)]:
                    entries.append(_Entry(entry_id, owner.decode(), event_id))
                    reached[n] = entry_id.decode()
            left = [n for n, page in zip(left, pages, strict=True) if len(page) == share]
        return entries

    def _forget_entries(self, entries: Iterable[_Entry]) -> None:
        """Forget entries of the log that are of no event any more."""
        commands = []
        for one in entries:
            place = self._keys.of(one.owner)
            commands.append(Command(place.slot, ("XDEL", place("log"), one.id)))
        if commands:
            with suppress(EbbingError):  # whoever reads the log next does it
                self._link.write(commands, patient=False)

    def logged_users(self, after: str, limit: int) -> tuple[list[str], str]:
        """A page of the ids of all users with events in the log, and where it ended."""
        owners = self._own_alarms.listed_after("owners", after, limit)
        found = (self._id_of(owner) for _, owner in owners)
        reached = "{}:{}".format(*owners[-1]) if owners else after
        return [one for one in found if one is not None], reached

    def _id_of(self, owner: str) -> str | None:
        """The id of a user, by an event that can be read."""
        place = self._keys.of(owner)
        cursor: Word = 0
        while True:
            words = ("HSCAN", place("events", owner), cursor, "COUNT", 10)
            ((cursor, flat),) = self._link.read([Command(place.slot, words)])
            for event_id, value in zip(flat[::2], flat[1::2], strict=True):
                with suppress(EbbingError):  # another one may be whole
                    return self._interaction(owner, event_id, Logged.of(value)).user_id
            if int(cursor) == 0:
                return None

    def all_relations(self, after: str, limit: int) -> tuple[list[RelationRecord], str]:
        """A page of all relations, by partition and names in storage, and where it ended."""
        found: list[RelationRecord] = []
        at, _, last = after.partition("\0")
        # Of the user at whom the last page ended there may be more.
        number, _, owner = at.partition(":")
        users = [(int(number), owner)] if after else []
        while users or (users := self._own_alarms.listed_after("relating", at, limit)):
            for n, owner in users:
                while len(found) < limit:
                    page, last = self._relations_after(owner, last, limit - len(found))
                    found += page
                    if not last:
                        break
                    after = f"{n}:{owner}\0{last}"
                else:
                    return found, after
                at = f"{n}:{owner}"
            users = []
        return found, after

    def _event(self, owner: str, event_id: bytes) -> Command:
        place = self._keys.of(owner)
        return Command(place.slot, ("HGET", place("events", owner), event_id))

    def adopt(self, store_id: str) -> None:
        """Take over the identity of another store, before anything else is written."""
        kinds = ("owners", "log", "relating", "deleted")
        place = self._keys.catalogue
        places = [*((one, kind) for one in self._keys.partitions for kind in kinds)]
        places += [(place, "items"), (place, "paths"), (self._keys.transitions, "taken")]
        if any(self._link.read([Command(one.slot, ("EXISTS", one(kind))) for one, kind in places])):
            raise StoreUnavailable("the store is not empty: name a new one")
        facts = self._facts
        self._link.write([Command(facts.slot, ("HSET", facts("facts"), "store_id", store_id))])
        self.alarms.store_id = store_id

    def size(self) -> StoreSize:
        """How much there is; bytes are all of the servers'.

        Steps that a killed server undid may count too, until the log is read.
        """
        logs = [Command(one.slot, ("XLEN", one("log"))) for one in self._keys.partitions]
        return StoreSize(
            sum(self._own_alarms.counts()), sum(self._link.read(logs)), used_bytes(self._link)
        )

    def close(self) -> None:
        """Give everything back; the store is not used again."""
        self._link.close()


def _log_page(place: Place, after: str, limit: int) -> Command:
    start = f"({after}" if after else "-"
    return Command(place.slot, ("XRANGE", place("log"), start, "+", "COUNT", limit))
