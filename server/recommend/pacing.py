"""Pacing: how often and when to show a subject, from its own rhythm and state.

For courses and advertisements: a subject is due when it has rested, since it was last engaged or
shown, for as long as the user usually lets it rest. What has been forgotten is shown more seldom
each time it is shown in vain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ebbing.interest.states import InterestState
from server.recommend.interests import InterestContext

__all__ = ["Pace", "paces_of"]

DAY_S = 86400.0
SHORTEST_S = DAY_S / 4
LONGEST_S = 365 * DAY_S
BEFORE_DUE = 0.15
"""Share of the interval by which a subject may be shown early: a week is six to eight days."""
MOST_DOUBLINGS = 5


class Pace(NamedTuple):
    """When a subject should be shown."""

    interest: str
    due: bool
    """Whether it should be shown now."""
    next_s: float
    """When it should be shown next, seconds since the epoch; not after the moment asked about
    where it is due."""
    interval_s: float
    """How long it should rest between, seconds."""
    in_vain: int
    """Times it was shown since it was last engaged."""


def paces_of(context: InterestContext, shown: Mapping[str, Sequence[float]]) -> list[Pace]:
    """The pace of every interest, soonest first.

    Args:
        context: the user's interests at the moment asked about.
        shown: when each interest was shown of late, seconds since the epoch.
    """
    assessed = context.assessed
    paces = []
    for i, name in enumerate(context.names):
        last_s = context.at_s - float(assessed.recency_s[i])
        since = [moment for moment in shown.get(name, ()) if last_s < moment <= context.at_s]
        usual_s = float(assessed.rhythm.gap_s[i])
        forgotten = assessed.states[i] == InterestState.FORGOTTEN
        in_vain = len(since)
        doublings = min(in_vain, MOST_DOUBLINGS) if forgotten else max(in_vain - 2, 0)
        interval_s = usual_s * 2.0 ** min(doublings, MOST_DOUBLINGS)
        interval_s = min(max(interval_s, SHORTEST_S), LONGEST_S)
        next_s = max([last_s, *since]) + interval_s
        due = context.at_s >= next_s - BEFORE_DUE * interval_s
        paces.append(
            Pace(name, due, min(next_s, context.at_s) if due else next_s, interval_s, in_vain)
        )
    return sorted(paces, key=lambda pace: pace.next_s)
