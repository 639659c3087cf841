"""From validated events to durable state: what they show is resolved, then committed in groups.

An acknowledgement means that the event is on disk and counted exactly once. While one group is
being synced the next one gathers, so throughput grows with load and a lone event waits for
nothing but its own commit.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import NamedTuple

from ebbing.events import EventType
from ebbing.history import item_key
from ebbing.v1 import user_event_pb2
from server.catalog import Catalog
from server.errors import Overloaded
from server.failpoints import reach
from server.metrics import Metrics
from server.state.store import Interaction, Interests, Store, WriteOutcome

__all__ = ["EventResult", "Ingest", "resolve"]


class EventResult(NamedTuple):
    """What became of one event."""

    outcome: WriteOutcome
    unknown_item: bool


class _Group(NamedTuple):
    interactions: Sequence[Interaction]
    unknown_items: Sequence[bool]
    done: asyncio.Future[list[EventResult]]


class Ingest:
    """Takes validated events in. One task commits; ``run`` is that task."""

    def __init__(
        self,
        store: Store,
        writer: Executor,
        catalog: Catalog,
        weights: Mapping[EventType, float],
        metrics: Metrics,
        max_pending: int,
        group_size: int,
        committed: Callable[[], None] = lambda: None,
    ) -> None:
        """Set up.

        Args:
            store: where events and state live.
            writer: the one thread that writes to the store.
            catalog: knows what items are about.
            weights: interest that one event of each type shows.
            metrics: counts outcomes and group sizes.
            max_pending: events that may wait for their commit.
            group_size: events committed together, unless one call brings more.
            committed: is told after each commit.
        """
        self._store = store
        self._writer = writer
        self._catalog = catalog
        self._weights = weights
        self._metrics = metrics
        self._max_pending = max_pending
        self._group_size = group_size
        self._committed = committed
        self._waiting: deque[_Group] = deque()
        self._pending = 0
        self._arrived = asyncio.Event()

    @property
    def busy(self) -> bool:
        """Whether events wait to be committed."""
        return self._pending > 0

    async def write(self, events: Sequence[user_event_pb2.UserEvent]) -> list[EventResult]:
        """Make events durable; returns when they are.

        Raises:
            Overloaded: too many events wait already; nothing was written.
            StorageFull, StoreUnavailable: the store refused; nothing was written.
        """
        if not events:
            return []
        if self._pending + len(events) > self._max_pending:
            raise Overloaded("too many events wait to be written: send again in a moment")
        known = self._catalog.lookup({item_key(e.item_id) for e in events if e.item_id})
        interactions, unknown = [], []
        for event in events:
            key = item_key(event.item_id) if event.item_id else 0
            item = known.get(key)
            unknown.append(bool(key) and item is None)
            weight = self._weights[EventType(event.event_type)]
            interactions.append(resolve(event, key, item.interests if item else (), weight))
        done: asyncio.Future[list[EventResult]] = asyncio.get_running_loop().create_future()
        self._pending += len(events)
        self._waiting.append(_Group(interactions, unknown, done))
        self._arrived.set()
        return await done

    async def run(self) -> None:
        """Commit groups until cancelled; what was taken before is committed first."""
        committing: asyncio.Task[None] | None = None
        try:
            while True:
                await self._arrived.wait()
                committing = asyncio.create_task(self._commit_waiting())
                # Cut off, a commit would still happen, but its callers would never hear of it.
                await asyncio.shield(committing)
        finally:
            if committing:
                await committing
            await self._commit_waiting()

    async def _commit_waiting(self) -> None:
        while self._waiting:
            groups = [self._waiting.popleft()]
            size = len(groups[0].interactions)
            while self._waiting and size + len(self._waiting[0].interactions) <= self._group_size:
                groups.append(self._waiting.popleft())
                size += len(groups[-1].interactions)
            await self._commit(groups, size)
        self._arrived.clear()

    async def _commit(self, groups: list[_Group], size: int) -> None:
        interactions = [i for group in groups for i in group.interactions]
        loop = asyncio.get_running_loop()
        reach("ingest.taken")
        try:
            with self._metrics.state_seconds.labels("append").time():
                outcomes = await loop.run_in_executor(
                    self._writer, self._store.append, interactions
                )
        except Exception as error:
            for group in groups:
                if not group.done.cancelled():  # its caller may be gone
                    group.done.set_exception(error)
            return
        finally:
            self._pending -= size
        reach("ingest.acknowledged")
        self._committed()
        self._metrics.commit_events.observe(size)
        following = iter(outcomes)
        for group in groups:
            # Counted here: the event is taken even where its caller is gone meanwhile.
            results = [EventResult(next(following), unknown) for unknown in group.unknown_items]
            self._count(group.interactions, results)
            if not group.done.cancelled():
                group.done.set_result(results)

    def _count(self, interactions: Sequence[Interaction], results: Sequence[EventResult]) -> None:
        for one, result in zip(interactions, results, strict=True):
            kind = EventType(one.event_type).name.lower()
            self._metrics.user_events.labels(kind, result.outcome.value).inc()
            if result.unknown_item and result.outcome is WriteOutcome.ACCEPTED:
                self._metrics.unknown_items.inc()


def resolve(
    event: user_event_pb2.UserEvent, key: int, item_interests: Interests, weight: float
) -> Interaction:
    """What a valid event says about interest: its own interests, or else its item's.

    Args:
        event: the event.
        key: of its item; 0 without one.
        item_interests: of its item; none without one.
        weight: interest that an event of its type shows.
    """
    own = {i.interest: i.share or 1.0 for i in event.interests}
    return Interaction(
        event_id=event.event_id,
        user_id=event.user_id,
        item_key=key,
        event_type=event.event_type,
        time_us=event.event_time.ToMicroseconds(),
        weight=weight,
        interests=tuple(own.items()) or item_interests,
        body=event.SerializeToString(deterministic=True),
    )
