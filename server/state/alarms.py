"""The port of alarms: when each user's interests change next, and the changes that were told.

Forgetting happens when nothing happens. So every user with interests has an alarm, the next moment
at which the state of one of them changes if nothing more comes, and a user whose traces changed is
*touched*: in line to be solved anew. What has changed is told once, in a log of transitions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ebbing.interest.trace import TraceTable

__all__ = ["Alarm", "Alarms", "Settlement", "Span", "Transition"]


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of the state of one interest; states by their numbers in the contract."""

    user_id: str
    interest: str
    from_state: int
    """0 where it was not known before."""
    to_state: int
    time_us: int
    """When the new state began, microseconds since the epoch."""
    retention: float
    """Retention at that moment, 0 to 1."""
    reason: bytes
    """Why, as the one who tells serialised it."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """A user that is to be solved: due, or touched by events."""

    owner: str
    """How the user is named in storage."""
    user_id: str
    """Empty where what is kept of the user cannot be read."""
    due_us: int | None
    """When a state changes next, as solved last; None: never, or not solved yet."""
    touched: bool
    """Whether events have come since."""
    version: int
    """Changes with whatever happens to the alarm or the traces of this user."""
    told: bytes
    """What was told last, as written by ``Settlement``; empty before the first time."""
    traces: TraceTable | None
    """The user's traces as of ``version``; None where there are none that can be read."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of an alarm."""

    owner: str
    """As the alarm has it."""
    version: int
    """Of the alarm that was solved."""
    told: bytes | None
    """What is told now; None: what was told before, as it could not be solved."""
    due_us: int | None
    """When to solve it again, microseconds since the epoch; None: when events come."""
    transitions: Sequence[Transition] = ()


class Span(NamedTuple):
    """Which transitions are kept: numbers from ``oldest`` to ``newest``, none where it is above."""

    oldest: int
    newest: int


class Alarms(Protocol):
    """Where alarms and transitions live; part of ``server.state.store.Store``.

    ``Store.append`` touches the users whose traces it changes, in the step that logs the events.
    Transitions are numbered from 1 in the order they were written; those of deleted users are
    missing. ``transitions`` and ``span`` may be called from where the store is read, all else from
    where it is written. Errors are those of ``Store``.
    """

    store_id: str
    """Which store this is: random, made with it."""

    def due(self, now_us: int, limit: int, touched: int) -> list[Alarm]:
        """Up to ``limit`` users that are due, earliest first, and up to ``touched`` in line."""
        ...

    def next_due_us(self) -> int | None:
        """When the earliest alarm is due, whoever is in line; None if there is none."""
        ...

    def settle(self, settlements: Sequence[Settlement], now_us: int) -> list[bool]:
        """Write what became of alarms, durably and as one step, each only if it is unchanged.

        Whether it was written says the answer: not if events, or another gateway, came between.
        """
        ...

    def waiting(self, now_us: int, most: int) -> int:
        """How many users are to be solved, counted up to about ``most``."""
        ...

    def renew(self, parameters: str, share: float) -> bool:
        """Touch a share of the users last solved with other parameters; whether any are left."""
        ...

    def transitions(self, after: int, limit: int) -> list[tuple[int, Transition]]:
        """Transitions with their numbers, in order, after a number."""
        ...

    def transitions_of(self, user_id: str) -> list[Transition]:
        """The transitions of a user that are kept, in the order they were written."""
        ...

    def span(self) -> Span:
        """Which transitions are kept."""
        ...

    def write_transitions(
        self, transitions: Sequence[tuple[int, Transition]], newest: int, now_us: int
    ) -> None:
        """Take over transitions of another store under their numbers; those there are stay.

        Numbers go on after ``newest``; how long they are kept counts from ``now_us``.
        """
        ...

    def prune(self, before_us: int, limit: int) -> int:
        """Forget transitions written before a moment, oldest first; how many went."""
        ...
