"""What is held on a user: read out whole, and deleted whole.

Nothing is kept between requests that belongs to one user, in no gateway; so what the store forgets
is forgotten. Deleting goes through the one thread that writes, behind the events that were taken
before; those that are still on their way are refused by the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeAlias

import structlog

from ebbing.interest.forgetting import ForgettingParameters
from ebbing.manifest import Manifest, ManifestError, releases
from server.catalog import Catalog
from server.metrics import Metrics
from server.profiles import Profile, profile_of
from server.state import user_state
from server.state.alarms import Transition
from server.state.store import Deletion, Interaction, RelationRecord, Store, UserState
from server.told import Told

__all__ = [
    "Piece",
    "Privacy",
    "Receipt",
    "RecentEngagement",
    "StandingInterest",
    "ToldInterests",
    "trained_releases",
]

STEP = 64
"""Events read before other calls have their turn."""
EDGE_US = 1_000_000
"""How far the edges of a training window may be off by rounding, microseconds."""

log = structlog.get_logger()


class StandingInterest(NamedTuple):
    """Interest ``number`` of a profile."""

    profile: Profile
    number: int
    at_s: float
    """Moment of the profile, seconds since the epoch."""


class RecentEngagement(NamedTuple):
    """An engagement with an item in a user's history."""

    item_id: str
    """Empty where the catalogue does not hold the item."""
    item_key: int
    event_type: int
    time_s: float
    """Seconds since the epoch."""


class ToldInterests(NamedTuple):
    """What was told last, and when to look again."""

    told: Told
    due_us: int | None


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof of a deletion."""

    deletion: Deletion
    trained_releases: tuple[int, ...]
    """Releases that may have been trained on what was deleted, ascending."""


Piece: TypeAlias = (
    Interaction
    | StandingInterest
    | RelationRecord
    | RecentEngagement
    | Transition
    | ToldInterests
    | Receipt
)
"""One thing that is held on a user."""


class Privacy:
    """Reads out and deletes."""

    def __init__(
        self, store: Store, writer: Executor, catalog: Catalog, metrics: Metrics, repository: Path
    ) -> None:
        """Set up.

        Args:
            store: where everything is kept.
            writer: the one thread that writes to the store.
            catalog: knows the ids of items.
            metrics: is told how long deletions take.
            repository: folder of the releases.
        """
        self._store = store
        self._writer = writer
        self._catalog = catalog
        self._metrics = metrics
        self._repository = repository

    async def pieces(
        self, user_id: str, now_us: int, parameters: ForgettingParameters, alpha: float
    ) -> AsyncIterator[Piece]:
        """Everything held on a user, a piece at a time, read as it is asked for.

        Interests stand as of ``now_us`` by ``parameters`` and the articles' ``alpha``.
        """
        for read, one in enumerate(self._store.events_of(user_id), 1):
            yield one
            if read % STEP == 0:
                await asyncio.sleep(0)
        record = self._store.user(user_id)
        state = user_state.decode(record.state) if record else None
        if state:
            for interest in _interests(state, now_us, parameters, alpha):
                yield interest
        for relation in self._store.relations_with(user_id):
            yield relation
        if state:
            for engagement in self._recent(state):
                yield engagement
        for transition in self._store.alarms.transitions_of(user_id):
            yield transition
        if record and (record.told or record.due_us is not None):
            yield ToldInterests(Told.decode(record.told), record.due_us)
        if deletion := self._store.deletion(user_id):
            yield await self._receipt(deletion)

    async def delete(self, user_id: str, receipt_id: str, now_us: int) -> Receipt:
        """Delete everything held on a user, durably; ``receipt_id`` names a new deletion.

        Raises:
            StorageFull, StoreUnavailable: the store refused; deleting again is safe, and needed.
        """
        work = partial(self._store.delete_user, user_id, receipt_id, now_us)
        with self._metrics.state_seconds.labels("delete").time():
            deletion = await asyncio.get_running_loop().run_in_executor(self._writer, work)
        receipt = await self._receipt(deletion)
        log.info(
            "user deleted",
            receipt_id=deletion.receipt_id,
            events=deletion.events,
            again=deletion.receipt_id != receipt_id,
            trained_releases=receipt.trained_releases,
        )
        return receipt

    def _recent(self, state: UserState) -> list[RecentEngagement]:
        keys = state.history.keys.tolist()
        items = self._catalog.lookup(set(keys))
        return [
            RecentEngagement(items[key].item_id if key in items else "", key, kind, time_s)
            for key, kind, time_s in zip(
                keys, state.history.types.tolist(), state.history.times.tolist(), strict=True
            )
        ]

    async def _receipt(self, deletion: Deletion) -> Receipt:
        found = await asyncio.to_thread(trained_releases, self._repository, deletion)
        return Receipt(deletion, tuple(found))


def _interests(
    state: UserState, now_us: int, parameters: ForgettingParameters, alpha: float
) -> list[StandingInterest]:
    # An event may lie slightly ahead of the clock.
    at_s = max(now_us / 1e6, state.traces.span[1])
    profile = profile_of(state.traces, at_s, parameters, alpha)
    return [StandingInterest(profile, number, at_s) for number in profile.strongest]


def trained_releases(repository: Path, deletion: Deletion) -> list[int]:
    """Releases of a repository that may have been trained on what was deleted, ascending.

    These were published before the deletion, from a log over a time in which the events lie. One
    that does not say when it was published or from what may have been.
    """
    if not deletion.last_us:
        return []
    return [number for number in releases(repository) if _may_know(repository, number, deletion)]


def _may_know(repository: Path, release: int, deletion: Deletion) -> bool:
    try:
        manifest = Manifest.read(repository, release)
        window = manifest.training["window"]
        created_us, first_us, last_us = map(
            _moment_us, (manifest.created, window["first"], window["last"])
        )
    except (ManifestError, KeyError, TypeError, ValueError):
        log.warning("a release does not say what it was trained on", release=release)
        return True
    return (
        created_us <= deletion.time_us
        and first_us - EDGE_US <= deletion.last_us
        and deletion.first_us <= last_us + EDGE_US
    )


def _moment_us(text: str) -> int:
    """ISO 8601 as microseconds since the epoch; without a zone it is UTC."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1e6)
