"""The event log in memory, and its reader."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from types import MappingProxyType

import numpy as np
import polars as pl

from ebbing.events import DEFAULT_EVENT_WEIGHTS
from trainer.data.formats import read_raw
from trainer.data.memory import available_memory
from trainer.data.raw import Interests, LogError, RawLog, parse_interests

__all__ = ["EventLog", "Interests", "LogError", "log_of", "parse_interests", "read_log"]


@dataclass(frozen=True)
class EventLog:
    """Events as columns, grouped by user and ordered by time within a user.

    Events of equal time keep the order they were given in.
    """

    user_ids: tuple[str, ...]
    """User index → id."""
    item_ids: tuple[str, ...]
    """Item index → id: the whole catalogue, whether an item has events or not."""
    interests: tuple[Interests, ...]
    """Item index → its (path, share) pairs; shares add up to 1, none for an item without any."""
    users: np.ndarray
    """(E,) int64 user indexes, ascending."""
    items: np.ndarray
    """(E,) int64 item indexes."""
    types: np.ndarray
    """(E,) int32 `EventType` numbers."""
    times: np.ndarray
    """(E,) float64 seconds since the epoch, ascending within a user."""
    offsets: np.ndarray
    """(U + 1,) int64: the events of user u are `offsets[u]:offsets[u + 1]`."""
    relations: np.ndarray
    """(R, 2) int64 pairs of user indexes; (0, 2) where the log has none."""
    strengths: np.ndarray
    """(R,) float64 above 0: how strong each relation is; 1 where nothing says."""
    contents: Mapping[str, np.ndarray]
    """Modality → (I, D) float32 content vectors, as they were given and not scaled; an item
    without any has a row of NaN."""
    profiles: np.ndarray
    """(U, D) float32 numbers about users, not scaled; (U, 0) where the log has none."""

    @classmethod
    def of(
        cls,
        user_ids: Sequence[str],
        item_ids: Sequence[str],
        interests: Iterable[Interests],
        users: np.ndarray,
        items: np.ndarray,
        types: np.ndarray,
        times: np.ndarray,
        relations: np.ndarray | None = None,
        contents: Mapping[str, np.ndarray] = MappingProxyType({}),
        profiles: np.ndarray | None = None,
        strengths: np.ndarray | None = None,
    ) -> EventLog:
        """Group and order columns of any order; see the fields for shapes."""
        order = np.lexsort((times, users))
        related = np.zeros((0, 2), np.int64) if relations is None else relations
        counts = np.bincount(users, minlength=len(user_ids))
        return cls(
            user_ids=tuple(user_ids),
            item_ids=tuple(item_ids),
            interests=tuple(interests),
            users=users[order].astype(np.int64),
            items=items[order].astype(np.int64),
            types=types[order].astype(np.int32),
            times=times[order].astype(np.float64),
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            relations=related,
            strengths=np.ones(len(related)) if strengths is None else strengths,
            contents=MappingProxyType(dict(contents)),
            profiles=np.zeros((len(user_ids), 0), np.float32) if profiles is None else profiles,
        )

    def __len__(self) -> int:
        return len(self.times)

    def last_events(self) -> np.ndarray:
        """Event number of the last event of each user who has more than one."""
        return self.offsets[1:][np.diff(self.offsets) > 1] - 1

    def without(self, events: np.ndarray) -> EventLog:
        """The log without the events of these numbers; users and items keep their indexes."""
        keep = np.ones(len(self), bool)
        keep[events] = False
        return self.where(keep)

    def engagements(self) -> EventLog:
        """The log without what shows no interest: dislikes, and impressions that led to nothing."""
        idle = [kind for kind, weight in DEFAULT_EVENT_WEIGHTS.items() if not weight]
        return self.where(~np.isin(self.types, idle))

    def until(self, time: float) -> EventLog:
        """The log's events up to and at `time`; users and items keep their indexes."""
        return self.where(self.times <= time)

    def where(self, keep: np.ndarray) -> EventLog:
        """The log's events that (E,) bool `keep` marks; users and items keep their indexes."""
        return EventLog.of(
            self.user_ids,
            self.item_ids,
            self.interests,
            self.users[keep],
            self.items[keep],
            self.types[keep],
            self.times[keep],
            self.relations,
            self.contents,
            self.profiles,
            self.strengths,
        )

    def of_those(self, users: np.ndarray, items: np.ndarray) -> EventLog:
        """The log of the users and items that (U,) and (I,) bool mark, and of nobody else; both
        are numbered anew."""
        user, item = np.cumsum(users) - 1, np.cumsum(items) - 1
        events = users[self.users] & items[self.items]
        related = users[self.relations].all(axis=1)
        return EventLog.of(
            list(compress(self.user_ids, users)),
            list(compress(self.item_ids, items)),
            compress(self.interests, items),
            user[self.users[events]],
            item[self.items[events]],
            self.types[events],
            self.times[events],
            user[self.relations[related]],
            {name: vectors[items] for name, vectors in self.contents.items()},
            self.profiles[users],
            self.strengths[related],
        )


def read_log(folder: Path, max_bad: float = 0.0) -> EventLog:
    """Read the log in `folder`, of any format that `trainer.data.formats` knows.

    Args:
        max_bad: share of the rows of a file that may not read; they are left out.

    Raises:
        LogError: a file or column is missing, a row is malformed, there is no event, or too
            little memory.
    """
    return log_of(read_raw(folder, max_bad, available_memory()))


def log_of(raw: RawLog) -> EventLog:
    """The log that a folder's content makes: items of the catalogue first, then what else had
    events, both in the order in which they were met."""
    events = raw.events
    item_ids = [*raw.catalogue, *(item for item in events.item_ids if item not in raw.catalogue)]
    place = {item: index for index, item in enumerate(item_ids)}
    relations, strengths = _relations(raw.relations, events.user_ids)
    return EventLog.of(
        events.user_ids,
        item_ids,
        [raw.catalogue.get(item, ()) for item in item_ids],
        events.users,
        np.array([place[item] for item in events.item_ids], np.int64)[events.items],
        events.types,
        events.times,
        relations,
        {name: vectors.of(item_ids) for name, vectors in raw.contents.items()},
        raw.profiles.of(events.user_ids) if raw.profiles else None,
        strengths,
    )


def _relations(
    table: pl.DataFrame | None, user_ids: Sequence[str]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Pairs of users who both have events, and strengths if they are given."""
    if table is None:
        return np.zeros((0, 2), np.int64), None
    place = {user: index for index, user in enumerate(user_ids)}
    pairs = np.array(
        [
            [place.get(one, -1), place.get(other, -1)]
            for one, other in table.select("user_id", "other_user_id").iter_rows()
        ],
        np.int64,
    ).reshape(-1, 2)
    known = (pairs >= 0).all(axis=1)
    strengths = table["strength"].to_numpy()[known] if "strength" in table.columns else None
    return pairs[known], strengths
