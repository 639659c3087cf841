"""The state port: exactly what the gateway needs of a store, and the records it holds."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ebbing.interest.trace import TraceTable
from server.state.alarms import Alarms

__all__ = [
    "DAY_US",
    "Deletion",
    "History",
    "Interaction",
    "InterestRecord",
    "ItemRecord",
    "RelationRecord",
    "Rollout",
    "Store",
    "StoreSize",
    "Tombstone",
    "UserRecord",
    "UserState",
    "WriteOutcome",
    "item_heat",
    "tombstone_digest",
]

Interests = tuple[tuple[str, float], ...]

DAY_US = 86_400_000_000
"""A day in microseconds."""


@dataclass(frozen=True, slots=True)
class Interaction:
    """A validated event, with what it says about interest resolved when it was taken in."""

    event_id: str
    user_id: str
    item_key: int
    """``ebbing.history.item_key`` of the item; 0 without one."""
    event_type: int
    """``ebbing.events.EventType`` number."""
    time_us: int
    """Event time, microseconds since the epoch."""
    weight: float
    """Interest it shows; 0 leaves no trace."""
    interests: Interests
    """(path, share) of what it is about."""
    body: bytes
    """The event as it was sent, serialised deterministically."""

    @property
    def time_s(self) -> float:
        """Event time, seconds since the epoch."""
        return self.time_us / 1e6


class WriteOutcome(enum.Enum):
    """What became of an interaction."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    ID_REUSED = "id_reused"
    USER_DELETED = "user_deleted"
    """The event is not newer than the deletion of its user."""


@dataclass(frozen=True, slots=True)
class ItemRecord:
    """An item of the catalogue."""

    item_id: str
    item_key: int
    interests: Interests
    available_us: int
    """From when on it may be recommended, microseconds since the epoch; 0 is always."""
    expire_us: int
    """Until when it may be recommended, microseconds since the epoch; 0 is for ever."""
    body: bytes
    """The item as it was sent."""


class InterestRecord(NamedTuple):
    """A described interest."""

    path: str
    body: bytes


class RelationRecord(NamedTuple):
    """A directed relation between two users."""

    user_id: str
    other_user_id: str
    body: bytes


class History(NamedTuple):
    """A user's newest engagements with items, oldest first by (event_time, event_id), each (n,)."""

    keys: NDArray[np.int64]
    times: NDArray[np.float64]
    """Seconds since the epoch."""
    types: NDArray[np.int32]


class UserState(NamedTuple):
    """What is kept of a user to answer quickly: a function of the set of the user's engagements."""

    traces: TraceTable
    history: History
    """The newest ``HISTORY_LENGTH`` engagements with items."""


class Deletion(NamedTuple):
    """What a deletion reached; kept so that deleting again tells the same."""

    receipt_id: str
    time_us: int
    """When it happened, microseconds since the epoch."""
    events: int
    """Events deleted."""
    first_us: int
    """Time of the oldest of them; 0 without any."""
    last_us: int
    """Time of the newest of them; 0 without any."""


class Tombstone(NamedTuple):
    """What is remembered of a deletion, as it moves between stores."""

    digest: bytes
    """``tombstone_digest`` of the user's id: enough to know it again, no more; 16 bytes."""
    until_us: int
    """Events up to then are refused, microseconds since the epoch."""
    deletion: Deletion


class UserRecord(NamedTuple):
    """All that is kept of a user but for events and relations: what moves between stores."""

    user_id: str
    state: bytes
    """As ``server.state.user_state`` writes it."""
    told: bytes
    """What was told of the interests last, see ``server.told``."""
    due_us: int | None
    """When it is to be looked at next."""


class Rollout(NamedTuple):
    """Which releases serve whom, as all gateways of the store see it."""

    version: int
    """Grows with every change; 0 before the first."""
    body: bytes


class StoreSize(NamedTuple):
    """How much there is."""

    users: int
    events: int
    stored_bytes: int
    """Bytes that the engine holds for all of it."""


class Store(Protocol):
    """Where events and state live.

    An engagement is an event that leaves a trace. Calls block; all may raise ``StoreUnavailable``,
    those that write also ``StorageFull``, and then nothing is written. Lists are read page by
    page: ``after`` is where the last page ended, empty for the first, and no page is shorter than
    asked for but the last.
    """

    alarms: Alarms
    """When users' interests change next, and the changes told."""

    def append(self, interactions: Sequence[Interaction]) -> list[WriteOutcome]:
        """Log interactions and update the states of their users, durably and as one step a user."""
        ...

    def states(self, user_ids: Sequence[str]) -> list[UserState | None]:
        """The states of users; None for one without events."""
        ...

    def interactions(
        self, user_id: str, until_us: int, newest: int | None = None
    ) -> Iterable[Interaction]:
        """A user's engagements up to a moment, or so many of the newest of them, oldest first.

        Read as they are asked for: whoever pauses in between holds up nobody else.
        """
        ...

    def asides(self, user_id: str, since_us: int, until_us: int) -> Iterable[Interaction]:
        """A user's events that leave no trace, such as impressions, between two moments.

        Both moments belong to it; oldest first, read as they are asked for.
        """
        ...

    def first_engagement_us(self, user_id: str) -> int | None:
        """Time of a user's first logged engagement; None for a user without any."""
        ...

    def popular(self, limit: int) -> list[int]:
        """Keys of the items with most recent engagement, best first."""
        ...

    def catalogue_version(self) -> int:
        """A number that changes whenever an item does."""
        ...

    def write_items(self, items: Sequence[ItemRecord]) -> None:
        """Create or replace items, all or none."""
        ...

    def delete_item(self, item_id: str) -> None:
        """Delete an item; nothing happens where there is none."""
        ...

    def items(self, keys: Sequence[int]) -> list[ItemRecord]:
        """The items among keys that the catalogue holds, in any order."""
        ...

    def list_items(self, after: str, limit: int) -> list[ItemRecord]:
        """Items by id, after a given one."""
        ...

    def write_interests(self, interests: Sequence[InterestRecord]) -> None:
        """Create or replace descriptions of interests, all or none."""
        ...

    def list_interests(self, after: str, limit: int) -> list[InterestRecord]:
        """Described interests by path, after a given one."""
        ...

    def write_relations(self, relations: Sequence[RelationRecord]) -> None:
        """Create or replace relations, all or none."""
        ...

    def list_relations(self, user_id: str, after: str, limit: int) -> list[RelationRecord]:
        """A user's relations, by other user as it is named in storage, after a given one."""
        ...

    def rollout(self) -> Rollout:
        """Which releases serve whom."""
        ...

    def write_rollout(self, rollout: Rollout) -> bool:
        """Replace it, if its version is the next one; whether it was."""
        ...

    def delete_user(self, user_id: str, receipt_id: str, now_us: int) -> Deletion:
        """Delete all that is held on a user, for good; events up to then are refused from now on.

        Deleting again, with nothing come since, tells the first deletion.
        """
        ...

    def events_of(self, user_id: str) -> Iterable[Interaction]:
        """All of a user's events, engagements or not, oldest first; read as they are asked for."""
        ...

    def relations_with(self, user_id: str) -> list[RelationRecord]:
        """All relations from and to a user."""
        ...

    def user(self, user_id: str) -> UserRecord | None:
        """All that is kept of a user but for events and relations; None where there is nothing."""
        ...

    def deletion(self, user_id: str) -> Deletion | None:
        """What is remembered of the deletion of a user; None of a user that was not deleted."""
        ...

    def log(self, after: str, limit: int) -> tuple[list[Interaction], str]:
        """A page of all events, in an order of the engine's, and where it ended.

        What is written while pages are read is in one of them, or comes after the last.
        """
        ...

    def users(self, after: str, limit: int) -> tuple[list[UserRecord], str]:
        """A page of all users, in an order of the engine's, and where it ended."""
        ...

    def logged_users(self, after: str, limit: int) -> tuple[list[str], str]:
        """A page of the ids of all users with events in the log, and where it ended.

        States are not looked at. Those without any event that can be read are left out; only a
        page that ends where it began is the last.
        """
        ...

    def all_relations(self, after: str, limit: int) -> tuple[list[RelationRecord], str]:
        """A page of all relations, in an order of the engine's, and where it ended."""
        ...

    def deletions(self, after: str, limit: int) -> tuple[list[Tombstone], str]:
        """A page of all deletions that are remembered, and where it ended."""
        ...

    def write_deletions(self, tombstones: Sequence[Tombstone]) -> None:
        """Create or replace what is remembered of deletions; nothing of their users is deleted.

        Digests are those of a store of the same id, see ``adopt``.
        """
        ...

    def adopt(self, store_id: str) -> None:
        """Take over the identity of another store, before anything else is written.

        Deletions and numbers of transitions may be moved here then: they are known by it.
        """
        ...

    def write_users(self, records: Sequence[UserRecord]) -> None:
        """Create or replace what is kept of users, each as one step; their events stay."""
        ...

    def rebuild(self, user_ids: Sequence[str]) -> int:
        """Compute the states of users anew from the log, each as one step; how many differed.

        A state that counts events the log has lost to their age is left as it is.
        """
        ...

    def prune_events(self, before_us: int, limit: int) -> int:
        """Forget logged events of before a moment, so many at most; how many went.

        States go on counting them; ids are free again, so older events must be refused.
        """
        ...

    def prune_users(self, before_us: int, limit: int) -> int:
        """Forget users whose newest event is of before a moment, so many at most; how many went."""
        ...

    def prune_deletions(self, before_us: int, limit: int) -> int:
        """Forget deletions of before a moment, so many at most; how many went."""
        ...

    def size(self) -> StoreSize:
        """How much there is; may be an estimate."""
        ...

    def close(self) -> None:
        """Give everything back; the store is not used again."""
        ...


def tombstone_digest(user_id: str, store_id: str) -> bytes:
    """By what a store knows again a user that was deleted."""
    return blake2b(user_id.encode(), digest_size=16, key=store_id.encode()).digest()


HEAT_HALF_LIFE_S = 30 * 86400.0


def item_heat(time_s: float, weight: float) -> float:
    """What one event adds to its item's popularity, as log2 of a forward-decayed sum.

    Decaying forward from a landmark keeps the order of items right without ever rewriting them
    (Cormode, Shkapenyuk, Srivastava and Xu, *Forward Decay*, ICDE 2009).
    """
    return math.log2(weight) + time_s / HEAT_HALF_LIFE_S
