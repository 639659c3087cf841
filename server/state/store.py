"""The state port: exactly what the gateway needs of a store, and the records it holds."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ebbing.interest.profile import interest_vectors
from ebbing.interest.trace import TraceTable
from server.state.alarms import Alarms

__all__ = [
    "History",
    "Interaction",
    "InterestRecord",
    "ItemRecord",
    "RelationRecord",
    "Store",
    "WriteOutcome",
    "advance",
    "item_heat",
]

Interests = tuple[tuple[str, float], ...]


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


class Store(Protocol):
    """Where events and state live.

    An engagement is an event that leaves a trace. Calls block; all may raise ``StoreUnavailable``,
    those that write also ``StorageFull``, and then nothing is written.
    """

    alarms: Alarms
    """When users' interests change next, and the changes told."""

    def append(self, interactions: Sequence[Interaction]) -> list[WriteOutcome]:
        """Log interactions and update the states of their users, durably and as one step."""
        ...

    def traces(self, user_id: str) -> TraceTable | None:
        """A user's traces; None for a user without events."""
        ...

    def history(self, user_id: str, until_us: int, limit: int) -> History:
        """A user's newest engagements with items up to a moment."""
        ...

    def interactions(
        self, user_id: str, until_us: int, newest: int | None = None
    ) -> Iterable[Interaction]:
        """A user's engagements up to a moment, or so many of the newest of them, oldest first.

        Read as they are asked for: whoever pauses in between holds up nobody else.
        """
        ...

    def first_engagement_us(self, user_id: str) -> int | None:
        """Time of a user's first engagement; None for a user without any."""
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
        """A user's relations by other user, after a given one."""
        ...

    def close(self) -> None:
        """Give everything back; the store is not used again."""
        ...


def advance(
    traces: TraceTable, interactions: Iterable[Interaction], max_interests: int
) -> TraceTable:
    """A user's traces after more interactions; the weakest long-term interests go over the cap."""
    advanced = traces.add_all((i.time_s, i.weight, i.interests) for i in interactions if i.weight)
    surplus = len(advanced.names) - max_interests
    if surplus <= 0:
        return advanced
    strength = interest_vectors(advanced, advanced.span[1]).long_term
    return advanced.without(
        advanced.names[i] for i in np.argsort(strength, kind="stable")[:surplus]
    )


HEAT_HALF_LIFE_S = 30 * 86400.0


def item_heat(time_s: float, weight: float) -> float:
    """What one event adds to its item's popularity, as log2 of a forward-decayed sum.

    Decaying forward from a landmark keeps the order of items right without ever rewriting them
    (Cormode, Shkapenyuk, Srivastava and Xu, *Forward Decay*, ICDE 2009).
    """
    return float(np.log2(weight) + time_s / HEAT_HALF_LIFE_S)
