"""The forgetting model of a release, as the watch asks it: of many users at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from ebbing.interest.assessment import Assessment, Outlook, retention
from ebbing.interest.forgetting import ForgettingParameters
from ebbing.interest.states import StateThresholds
from ebbing.interest.trace import TraceTable
from server.solving import Account

__all__ = ["ReleaseAssess"]

Floats = NDArray[np.float64]
Reason = Callable[[Assessment, int], bytes]
"""Serialises why an interest, by number, is in its state."""


class ReleaseAssess:
    """``server.solving.Assess`` with the parameters of a release."""

    def __init__(self, parameters: ForgettingParameters, reason: Reason) -> None:
        """Set up."""
        self._parameters = parameters
        self._reason = reason
        self._thresholds = StateThresholds()

    @cached_property
    def parameters(self) -> str:
        """A name that changes with the parameters."""
        text = f"{self._parameters.to_json()} {self._thresholds}"
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def outlook(self, tables: Sequence[TraceTable]) -> _Outlook:
        """How users' interests, one user after another, will stand if nothing more comes."""
        return _Outlook(tables, self._parameters, self._thresholds, self._reason)


class _Outlook:
    """``server.solving.UsersOutlook``: of some users' interests, one user after another."""

    def __init__(
        self,
        tables: Sequence[TraceTable],
        parameters: ForgettingParameters,
        thresholds: StateThresholds,
        reason: Reason,
    ) -> None:
        self._tables = tables
        self._starts = [0, *accumulate(len(table.names) for table in tables)]
        self._parameters = parameters
        self._reason = reason
        # Reading the interests of many users at once costs little more than reading one's.
        self._outlook = Outlook.of(_stacked(tables), parameters, thresholds)
        self._retention: dict[tuple[int, float], Floats] = {}

    @property
    def last(self) -> Floats:
        """Newest event of each interest."""
        return self._outlook.last

    def states(self, quiet_s: Floats) -> NDArray[np.int64]:
        """States after so much quiet."""
        return self._outlook.states(quiet_s)

    def next_change_s(self, quiet_s: Floats) -> Floats:
        """The quiet after which each changes next."""
        return self._outlook.next_change_s(quiet_s)

    def account(self, user: int, interest: int, state: int, at: float) -> Account:
        """What is told of an interest that came into a state."""
        table = self._tables[user]
        # How active the user was is known as of the newest event, not before.
        moment = max(at, table.span[1])
        known = self._retention.get((user, moment))
        if known is None:
            known = retention(table, moment, self._parameters)
            self._retention[user, moment] = known
        outlook = self._outlook.only(self._starts[user] + interest)
        assessed = outlook.assessed(at, known[interest : interest + 1])
        # A moment rounded down would still read the state before.
        assessed = replace(assessed, states=np.array([state], np.int64))
        return Account(float(known[interest]), self._reason(assessed, 0))


def _stacked(tables: Sequence[TraceTable]) -> TraceTable:
    """The interests of all tables in one, in order, below a row of one of the users."""
    first = tables[0]
    return TraceTable.of(
        ("", *(f"{n} {name}" for n, table in enumerate(tables) for name in table.names)),
        np.concatenate([first.open_sums[:1], *(table.open_sums[1:] for table in tables)]),
        np.concatenate([first.closed_sums[:1], *(table.closed_sums[1:] for table in tables)]),
        np.concatenate([first.times[:1], *(table.times[1:] for table in tables)]),
        np.concatenate([first.occasion_maps[:1], *(t.occasion_maps[1:] for t in tables)]),
    )
