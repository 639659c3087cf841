"""A user as of a moment: what the profile and the serving path start from."""

from __future__ import annotations

from dataclasses import dataclass

from ebbing.history import HISTORY_LENGTH, EncodedHistory, encode_history
from ebbing.interest.trace import TraceTable
from server.errors import AtBeforeFirstEvent
from server.state.store import Store, advance

__all__ = ["UserView", "Users"]


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

    def view(self, user_id: str, at_us: int | None, now_us: int) -> UserView | None:
        """A user as of ``at_us``, or now; None for a user without events.

        At a moment before the newest event the state is computed anew from the event log.

        Raises:
            AtBeforeFirstEvent: ``at_us`` is before the user's first engagement.
        """
        traces = self._store.traces(user_id)
        if traces is None:
            return None
        newest_us = round(max(traces.span[1], 0.0) * 1e6)
        moment_us = max(now_us, newest_us) if at_us is None else at_us
        if moment_us < newest_us:
            first_us = self._store.first_engagement_us(user_id)
            if first_us is not None and moment_us < first_us:
                raise AtBeforeFirstEvent(
                    "at: before the user's first event; ask for its time or a later one",
                    {"earliest_us": str(first_us)},
                )
            known = self._store.interactions(user_id, moment_us)
            traces = advance(TraceTable.empty(), known, self._max_interests)
        at_s = moment_us / 1e6
        history = self._store.history(user_id, moment_us, HISTORY_LENGTH)
        return UserView(user_id, at_s, traces, encode_history(*history, at_s))
