"""A user as of a moment: what the profile and the serving path start from."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ebbing.history import HISTORY_LENGTH, EncodedHistory, encode_history
from ebbing.interest.course import Course
from ebbing.interest.profile import weakest_first
from ebbing.interest.trace import Event, TraceTable
from server.errors import AtBeforeFirstEvent
from server.state.store import History, Interaction, Store

__all__ = ["UserView", "Users"]

STEP = 64
"""Events of a log taken in before other calls have their turn: a millisecond or two."""


@dataclass(frozen=True, slots=True)
class UserView:
    """What is known of a user as of ``at_s``, from the events up to then."""

    user_id: str
    at_s: float
    """The moment, seconds since the epoch, not before the newest event in the traces."""
    traces: TraceTable
    history: EncodedHistory


class Users:
    """Reads users as of any moment since their first event."""

    def __init__(self, store: Store, max_interests: int) -> None:
        """Set up on a store; ``max_interests`` as the store keeps them per user."""
        self._store = store
        self._max_interests = max_interests

    async def view(self, user_id: str, at_us: int | None, now_us: int) -> UserView | None:
        """A user as of ``at_us``, or now; None for a user without events.

        At a moment before the newest event the state is computed anew from the event log.

        Raises:
            AtBeforeFirstEvent: ``at_us`` is before the user's first engagement.
        """
        (state,) = self._store.states([user_id])
        if state is None:
            return None
        traces, history = state
        newest_us = _newest_us(traces)
        moment_us = max(now_us, newest_us) if at_us is None else at_us
        if moment_us < newest_us:
            self.require_known("at", user_id, moment_us)
            past = _Past()
            log = past.watched(self._store.interactions(user_id, moment_us))
            _, traces = await anext(self._replayed(log, [moment_us]))
            history = past.history
        at_s = moment_us / 1e6
        return UserView(user_id, at_s, traces, encode_history(*history, at_s))

    def latest_us(self, user_id: str, now_us: int) -> int:
        """What counts as now for a user: not before an event that lies slightly ahead."""
        (state,) = self._store.states([user_id])
        return max(now_us, _newest_us(state.traces)) if state else now_us

    async def course(
        self, user_id: str, until_us: int, moments_us: Sequence[int]
    ) -> AsyncIterator[tuple[int, TraceTable]]:
        """Each of ascending moments, and the traces then of a user with events.

        Events after ``until_us`` count for none: from there on it is a forecast.
        """
        (state,) = self._store.states([user_id])
        traces = state.traces if state else TraceTable.empty()
        newest_us = _newest_us(traces)
        past = [m for m in moments_us if min(m, until_us) < newest_us]
        log = self._store.interactions(user_id, until_us)
        async for moment in self._replayed(log, past):
            yield moment
        for moment_us in moments_us[len(past) :]:
            yield moment_us, traces

    async def newest(self, user_id: str, until_us: int, most: int) -> list[Event]:
        """The newest engagements of a user up to a moment, at most so many, oldest first."""
        events: list[Event] = []
        for one in self._store.interactions(user_id, until_us, most):
            events.append((one.time_s, one.weight, one.interests))
            if len(events) % STEP == 0:
                await asyncio.sleep(0)
        return events

    def first_us(self, user_id: str) -> int | None:
        """Time of a user's first engagement, microseconds; None for a user without any."""
        return self._store.first_engagement_us(user_id)

    def require_known(self, field: str, user_id: str, moment_us: int) -> None:
        """Raise if a moment, asked for in ``field``, is before a user's first engagement.

        Raises:
            AtBeforeFirstEvent: it is; the metadata says since when it is not.
        """
        first_us = self.first_us(user_id)
        if first_us is not None and moment_us < first_us:
            raise AtBeforeFirstEvent(
                f"{field}: before the user's first event; ask for its time or a later one",
                {"earliest_us": str(first_us)},
            )

    async def _replayed(
        self, log: Iterable[Interaction], moments_us: Sequence[int]
    ) -> AsyncIterator[tuple[int, TraceTable]]:
        """As ``course``, computed anew from the event log."""
        course = Course((i.time_s, i.weight, i.interests) for i in log)
        for moment_us in moments_us:
            while course.advance(moment_us / 1e6, STEP):
                await asyncio.sleep(0)
            yield moment_us, _strongest(course.table, self._max_interests)


class _Past:
    """Keeps the newest engagements with items of a log that is read."""

    def __init__(self) -> None:
        self._newest: deque[Interaction] = deque(maxlen=HISTORY_LENGTH)

    def watched(self, log: Iterable[Interaction]) -> Iterator[Interaction]:
        """The log."""
        for one in log:
            if one.item_key:
                self._newest.append(one)
            yield one

    @property
    def history(self) -> History:
        """The newest of what was read."""
        return History(
            np.array([one.item_key for one in self._newest], np.int64),
            np.array([one.time_s for one in self._newest], np.float64),
            np.array([one.event_type for one in self._newest], np.int32),
        )


def _strongest(traces: TraceTable, most: int) -> TraceTable:
    """The traces without the weakest long-term interests over a number."""
    surplus = len(traces.names) - most
    if surplus <= 0:
        return traces
    return traces.without(traces.names[i] for i in weakest_first(traces)[:surplus])


def _newest_us(traces: TraceTable) -> int:
    return round(max(traces.span[1], 0.0) * 1e6)
