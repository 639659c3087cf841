"""The states of users computed anew from the event log: all of them, or of some."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from server.errors import EbbingError
from server.state.listing import each
from server.state.store import Store

__all__ = ["Rebuilt", "logged_users", "rebuild"]

USERS_AT_ONCE = 500


@dataclass
class Rebuilt:
    """What became of the states of users."""

    users: int = 0
    """Looked at."""
    differed: int = 0
    """Were not what the log says, or damaged, or missing; they are now."""
    left: int = 0
    """Left as they are, as they count events that the log has lost to their age."""
    unreadable: int = 0
    """Left as they are, as an event of theirs cannot be read."""


def logged_users(store: Store) -> Iterator[str]:
    """The ids of all users of whom there are events."""
    return each(store.logged_users, USERS_AT_ONCE)


def rebuild(
    store: Store, user_ids: Iterable[str], told: Callable[[Rebuilt], None] = lambda _: None
) -> Rebuilt:
    """Compute states anew, each as one step, while others go on writing; ``told`` of each."""
    done = Rebuilt()
    for user_id in user_ids:
        done.users += 1
        try:
            differed = store.rebuild([user_id])
            done.differed += differed
            done.left += not differed and _has_lost(store, user_id)
        except EbbingError:
            done.unreadable += 1
        told(done)
    return done


def _has_lost(store: Store, user_id: str) -> bool:
    """Whether a state counts an event of before the first one in the log."""
    (state,) = store.states([user_id])
    first_us = store.first_engagement_us(user_id)
    if state is None or not state.traces.event_count:
        return False
    return first_us is None or round(state.traces.span[0] * 1e6) < first_us
