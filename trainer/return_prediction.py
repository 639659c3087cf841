"""Return prediction: what forgetting is fitted and measured on.

At a cut t0, a user takes part who engaged an interest up to t0 and again within (t0, t0 + H].
Every (user, interest) such a user engaged up to t0 is a case, and it returned if the user engages
that interest again within the horizon H. Where a log has more than `MANY_INTERESTS` interests,
those engaged by over `COMMON_SHARE` of its users are left out first: they say little of anyone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ebbing.events import DEFAULT_EVENT_WEIGHTS, EventType
from trainer.data.log import EventLog

DAY_S = 86_400.0
HORIZON_S = 30 * DAY_S
CUT_QUANTILE = 0.8
"""The share of engagements up to the cut that evaluation makes."""
MANY_INTERESTS = 40
COMMON_SHARE = 0.3


@dataclass(frozen=True)
class Engagements:
    """The events of a log that leave a trace, one row for each interest of each.

    Rows are in the order of the log: by user, then by time.
    """

    users: np.ndarray
    """(E,) int64 user indexes of the log, ascending."""
    interests: np.ndarray
    """(E,) int64 indexes into `names`."""
    times: np.ndarray
    """(E,) float64 seconds since the epoch, ascending within a user."""
    weights: np.ndarray
    """(E,) float64 weight of the event times the interest's share in it, above 0."""
    events: np.ndarray
    """(E,) int64 event numbers of the log, ascending."""
    names: tuple[str, ...]
    """Interest index → path, sorted; those of the whole catalogue."""
    n_users: int
    """User indexes of the log, with events or without."""
    n_present: int
    """Users of the log with events: a log that ends earlier knows fewer."""

    def __len__(self) -> int:
        return len(self.times)

    @property
    def pairs(self) -> np.ndarray:
        """(E,) int64: one number for each (user, interest), ordered by user, then interest."""
        return self.users * max(len(self.names), 1) + self.interests

    def where(self, keep: np.ndarray) -> Engagements:
        """The rows of a mask (E,); users and interests keep their indexes."""
        return replace(
            self,
            users=self.users[keep],
            interests=self.interests[keep],
            times=self.times[keep],
            weights=self.weights[keep],
            events=self.events[keep],
        )

    def common(self) -> np.ndarray:
        """(names,) bool: interests the protocol leaves out of this log."""
        if len(self.names) <= MANY_INTERESTS:
            return np.zeros(len(self.names), bool)
        engaged = np.unique(self.pairs) % len(self.names)
        reach = np.bincount(engaged, minlength=len(self.names))
        return reach / max(self.n_present, 1) > COMMON_SHARE

    def asked(self) -> Engagements:
        """The rows the protocol asks about: without the common interests."""
        return self.where(~self.common()[self.interests])


@dataclass(frozen=True)
class ReturnCases:
    """The cases of one cut, ordered by user, then by interest index."""

    users: np.ndarray
    """(N,) int64 user indexes of the log, ascending."""
    interests: np.ndarray
    """(N,) int64 interest indexes of the engagements."""
    returned: np.ndarray
    """(N,) bool: engaged again within the horizon."""
    at: float
    """The cut, seconds since the epoch."""
    horizon_s: float

    def __len__(self) -> int:
        return len(self.users)


def event_weights(log: EventLog) -> np.ndarray:
    """(E,) weight of each event; 0 for those that leave no trace."""
    table = np.zeros(max(EventType) + 1)
    for kind, weight in DEFAULT_EVENT_WEIGHTS.items():
        table[kind] = weight
    return table[log.types]


def exploded(log: EventLog) -> Engagements:
    """Every engagement of a log, those of common interests too; see `Engagements.asked`."""
    weight = event_weights(log)
    traced = np.flatnonzero(weight > 0)
    names = tuple(sorted({name for pairs in log.interests for name, _ in pairs}))
    index = {name: number for number, name in enumerate(names)}
    columns = np.array([index[name] for pairs in log.interests for name, _ in pairs], np.int64)
    shares = np.array([share for pairs in log.interests for _, share in pairs], np.float64)
    widths = np.array([len(pairs) for pairs in log.interests], np.int64)
    starts = np.cumsum(widths) - widths

    width = widths[log.items[traced]]
    event = np.repeat(traced, width)
    within = np.arange(len(event)) - np.repeat(np.cumsum(width) - width, width)
    place = starts[log.items[event]] + within
    return Engagements(
        users=log.users[event],
        interests=columns[place],
        times=log.times[event],
        weights=weight[event] * shares[place],
        events=event,
        names=names,
        n_users=len(log.user_ids),
        n_present=int((np.diff(log.offsets) > 0).sum()),
    )


def cut_of(rows: Engagements) -> float:
    """t0 of rows that are asked about: `CUT_QUANTILE` of their times, seconds; there must be one.

    Linear between the two nearest times, as `numpy.quantile` does by default.
    """
    return float(np.quantile(rows.times, CUT_QUANTILE))


def cases_at(rows: Engagements, at: float, horizon_s: float) -> ReturnCases:
    """The cases of a cut: every (user, interest) of `rows` whose user takes part.

    Args:
        rows: what is asked about; all of it counts, so leave out common interests before.
        at: the cut, seconds since the epoch; a row at it is past.
        horizon_s: the horizon, seconds.
    """
    past = rows.times <= at
    ahead = (rows.times > at) & (rows.times <= at + horizon_s)
    back = np.zeros(rows.n_users, bool)
    back[rows.users[ahead]] = True
    pairs = rows.pairs
    cases = np.unique(pairs[past & back[rows.users]])
    width = max(len(rows.names), 1)
    return ReturnCases(cases // width, cases % width, np.isin(cases, pairs[ahead]), at, horizon_s)
