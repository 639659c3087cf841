"""Where the interests of many users stood at a cut: the batch form of what the gateway reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ebbing.interest.bank import HALF_LIVES_S
from ebbing.interest.occasions import occasion_maps
from ebbing.interest.standing import SHARE_RATES, Standing, occupied
from trainer.data.log import EventLog
from trainer.return_prediction import Engagements, ReturnCases, event_weights

_HALF_LIVES = HALF_LIVES_S[list(SHARE_RATES)]


@dataclass(frozen=True)
class Moments:
    """The events of a log that leave a trace, one row each, ordered by user, then time."""

    users: np.ndarray
    """(E,) int64."""
    times: np.ndarray
    """(E,) seconds."""
    weights: np.ndarray
    """(E,)"""

    @classmethod
    def of(cls, log: EventLog) -> Moments:
        """Those of a log."""
        weight = event_weights(log)
        traced = weight > 0
        return cls(log.users[traced], log.times[traced], weight[traced])


@dataclass(frozen=True)
class StandingAtCut:
    """All interests of the users that take part in a cut, and which of them are its cases."""

    standing: Standing
    interests: np.ndarray
    """(N,) int64 interest index of each."""
    case: np.ndarray
    """(C,) int64 place of each case among the N."""


def standing_at(moments: Moments, engagements: Engagements, cases: ReturnCases) -> StandingAtCut:
    """Read the standing at a cut, of nothing that lies after it.

    Args:
        moments: events of the log.
        engagements: every engagement of the log, those of common interests too.
        cases: of the cut.
    """
    present, at = np.unique(cases.users), cases.at
    mine = np.zeros(engagements.n_users, bool)
    mine[present] = True

    now = (moments.times <= at) & mine[moments.users]
    owner = np.searchsorted(present, moments.users[now])
    times = moments.times[now]
    newest = np.full(len(present), -np.inf)
    np.maximum.at(newest, owner, times)
    ladders = occasion_maps(owner, len(present), times)

    own = (engagements.times <= at) & mine[engagements.users]
    pairs, where, count = np.unique(engagements.pairs[own], return_inverse=True, return_counts=True)
    width = max(len(engagements.names), 1)
    engaged = engagements.times[own]
    first, last = np.full(len(pairs), np.inf), np.full(len(pairs), -np.inf)
    np.minimum.at(first, where, engaged)
    np.maximum.at(last, where, engaged)
    user = np.searchsorted(present, pairs // width)
    ages = newest[user][where] - engaged
    standing = Standing(
        owner=user,
        count=count.astype(np.float64),
        first=first,
        last=last,
        attention=_sums(where, len(pairs), ages, engagements.weights[own]),
        events=np.bincount(owner, minlength=len(present)).astype(np.float64),
        newest=newest,
        total=_sums(owner, len(present), newest[owner] - times, moments.weights[now]),
        occasions=occupied(ladders),
    )
    case = np.searchsorted(pairs, cases.users * width + cases.interests)
    return StandingAtCut(standing, pairs % width, case)


def popularity_at(engagements: Engagements, at: float) -> np.ndarray:
    """(names, rates) log share of each interest in everybody's attention at a moment."""
    past = engagements.times <= at
    ages = at - engagements.times[past]
    n = len(engagements.names)
    sums = _sums(engagements.interests[past], n, ages, engagements.weights[past])
    return np.log(sums + 1.0) - np.log(sums.sum(axis=0) + 1.0)


def _sums(which: np.ndarray, n: int, ages: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(n, rates) decayed sums at `SHARE_RATES`."""
    return np.column_stack(
        [np.bincount(which, weights * np.exp2(-ages / half), n) for half in _HALF_LIVES]
    )
