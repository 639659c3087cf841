"""Alarms solved: what has changed, what is told now, and when to look again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from ebbing.interest.states import InterestState
from ebbing.interest.trace import TraceTable
from ebbing.v1.interest_pb2 import StateReason
from server.state.alarms import Alarm, Settlement, Transition
from server.told import Change, Course, Outlook, Subject, Told, changes

__all__ = ["Account", "Assess", "UsersOutlook", "solved_alarms"]


class Account(NamedTuple):
    """What is told of an interest besides its state."""

    retention: float
    reason: bytes


DISPLACED = Account(
    0.0, StateReason(text="made room for stronger interests of the user").SerializeToString()
)
"""What is told of an interest that is not kept any more."""


class UsersOutlook(Outlook, Protocol):
    """How the interests of some users, one user after another, will stand if nothing more comes."""

    def account(self, user: int, interest: int, state: int, at: float) -> Account:
        """What is told of an interest that came into a state.

        Args:
            user: number of the user.
            interest: number of the interest among the user's.
            state: the state.
            at: when it began, seconds since the epoch.
        """
        ...


class Assess(Protocol):
    """The forgetting model of a release."""

    @property
    def parameters(self) -> str:
        """A name that changes with the parameters."""
        ...

    def outlook(self, tables: Sequence[TraceTable]) -> UsersOutlook:
        """The outlook of users by their traces, at least one."""
        ...


def solved_alarms(alarms: Sequence[Alarm], assess: Assess, now_us: int) -> list[Settlement]:
    """What becomes of alarms at a moment, microseconds since the epoch.

    Raises:
        ValueError: the traces of a user cannot be read.
    """
    tables = [alarm.traces for alarm in alarms if alarm.traces is not None]
    if len(tables) < len(alarms):
        raise ValueError("no traces that can be read")
    subjects = [
        Subject(table.names, table.span[1], Told.decode(alarm.told))
        for alarm, table in zip(alarms, tables, strict=True)
    ]
    # Where the clock was set back, what was told stays told.
    until = [max(now_us / 1e6, one.told.at) for one in subjects]
    counts = [len(one.names) for one in subjects]
    outlook = assess.outlook(tables)
    course = Course.of(outlook, np.repeat(until, counts))
    news = changes(subjects, course, InterestState.FORGOTTEN)
    present, following = course.present.tolist(), course.next_change
    settlements = []
    start = 0
    for user, (alarm, one, at) in enumerate(zip(alarms, subjects, until, strict=True)):
        mine = slice(start, start := start + len(one.names))
        due = following[mine].min(initial=math.inf)
        settlements.append(
            Settlement(
                alarm.owner,
                alarm.version,
                Told(at, dict(zip(one.names, present[mine], strict=True))).encode(),
                round(due * 1e6) if math.isfinite(due) else None,
                [_transition(alarm, user, change, outlook) for change in news[user]],
            )
        )
    return settlements


def _transition(alarm: Alarm, user: int, change: Change, outlook: UsersOutlook) -> Transition:
    account = DISPLACED
    if change.number is not None:
        account = outlook.account(user, change.number, change.to_state, change.time)
    return Transition(
        alarm.user_id,
        change.interest,
        change.from_state,
        change.to_state,
        round(change.time * 1e6),
        *account,
    )
