"""What retention reads of interests: where each one stands in its user's life.

The same reading serves one user's traces in the gateway and the cases of many users at once in
training; a property test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ebbing.interest.bank import HALF_LIVES_S
from ebbing.interest.occasions import OCCASION_SLOTS_S
from ebbing.interest.trace import TraceTable

__all__ = [
    "DAY_S",
    "FALLS_BY_WAITING",
    "FEATURES",
    "GROWS_BY_WAITING",
    "RECENT_RATE",
    "SHARE_RATES",
    "STEADINESS_LEVEL",
    "Standing",
    "features",
    "occupied",
    "standing_of",
    "usual_gap_s",
]

Floats = NDArray[np.float64]
DAY_S = 86400.0
MIN_GAP_S = 3600.0


def _rate(days: float) -> int:
    return int(np.abs(np.log(HALF_LIVES_S / (days * DAY_S))).argmin())


SHARE_RATES = tuple(_rate(days) for days in (730.0, 180.0, 14.0))
"""Bank indexes of the half-lives nearest two years, half a year and two weeks."""
RECENT_RATE = SHARE_RATES[-1]
STEADINESS_LEVEL = OCCASION_SLOTS_S.index(4 * DAY_S)
"""Level of the occasions that tells on how many days of the last months a user was there."""

# Added to sums before their quotient: how little is as good as nothing.
_LITTLE, _LITTLE_OF_ALL = 0.02, 0.1

FEATURES = (
    "frequency",
    "once",
    "recency",
    "gap",
    "overdue",
    "long_share",
    "medium_share",
    "short_share",
    "event_share",
    "activity",
    "recent_activity",
    "breadth",
    "repetition",
    "steadiness",
    "absence",
)
"""Of the interest: log(1 + x) of its events, of whether it came but once (1 or 0), so that its gap
is one assumed, of the days since the newest, of its usual gap in days, and of the wait in such
gaps; the log of its share in the user's attention of two years, half a year and two weeks, and in
her events. Of the user: log(1 + x) of her events and of the latest as
the bank sums them; of her interests; the log of events a new interest brought beyond its first; of
the four-day slots of the last months she was there in; and log(1 + days) since her newest event.

Attention is shared out as of the user's newest event, so that waiting moves no share.
"""

GROWS_BY_WAITING = tuple(FEATURES.index(name) for name in ("recency", "overdue", "absence"))
FALLS_BY_WAITING = (FEATURES.index("recent_activity"),)
"""Features that waiting moves, and which way; no other moves unless something happens."""


@dataclass(frozen=True, slots=True)
class Standing:
    """N interests of U users."""

    owner: NDArray[np.intp]
    """User of each interest, (N,), ascending."""
    count: Floats
    """Events of each interest, (N,)."""
    first: Floats
    """Its first event, (N,), seconds since the epoch."""
    last: Floats
    """Its newest event, (N,), seconds."""
    attention: Floats
    """Its bank sums at ``SHARE_RATES`` as of its user's newest event, (N, 3)."""
    events: Floats
    """Events of each user, (U,)."""
    newest: Floats
    """Newest event of each user, (U,), seconds."""
    total: Floats
    """Bank sums over all of each user's events at ``SHARE_RATES``, as of the newest, (U, 3)."""
    occasions: Floats
    """Slots of ``STEADINESS_LEVEL`` each user was there in, (U,)."""


def occupied(ladders: NDArray[np.uint64]) -> Floats:
    """Slots of ``STEADINESS_LEVEL`` that are set in ladders (U, LEVELS), (U,)."""
    level = np.ascontiguousarray(ladders[:, STEADINESS_LEVEL])
    bits = np.unpackbits(level.view(np.uint8).reshape(-1, 8), axis=1)
    slots: Floats = bits.sum(axis=1, dtype=np.float64)
    return slots


def standing_of(table: TraceTable) -> Standing:
    """The interests of one user, in the order of ``table.names``."""
    newest = table.span[1]
    sums, last = table.own_sums[:, SHARE_RATES], table.times[:, 2]
    sums = sums * np.exp2((last - newest)[:, None] / HALF_LIVES_S[list(SHARE_RATES)])
    return Standing(
        owner=np.zeros(len(table.names), np.intp),
        count=table.count,
        first=table.first,
        last=table.last,
        attention=sums[1:],
        events=table.times[:1, 0],
        newest=table.times[:1, 2],
        total=sums[:1],
        occasions=occupied(table.occasion_maps[:1]),
    )


def usual_gap_s(count: Floats, first: Floats, last: Floats, default_s: float) -> Floats:
    """Mean seconds between events, (N,); the default where there was only one, an hour at least."""
    gaps = np.where(count > 1, (last - first) / np.maximum(count - 1, 1), default_s)
    floored: Floats = np.maximum(gaps, MIN_GAP_S)
    return floored


def features(standing: Standing, at: ArrayLike, default_gap_s: float) -> Floats:
    """``FEATURES`` of N interests at a moment.

    Args:
        standing: the interests.
        at: seconds since the epoch, not before the newest event; one, or one per user (U,).
        default_gap_s: the gap assumed of an interest engaged once, seconds.

    Returns:
        (N, len(FEATURES)).
    """
    s, owner = standing, standing.owner
    users = len(s.events)
    moment = np.broadcast_to(np.asarray(at, np.float64), (users,))
    absence = np.maximum(moment - s.newest, 0.0)
    recent = s.total[:, -1] * np.exp2(-absence / HALF_LIVES_S[RECENT_RATE])
    breadth = np.bincount(owner, minlength=users)
    again = np.bincount(owner, s.count, users) - breadth
    gap = usual_gap_s(s.count, s.first, s.last, default_gap_s)
    recency = np.maximum(moment[owner] - s.last, 0.0)

    of_user = np.empty((users, 6))
    of_user[:, 0] = s.events
    of_user[:, 1] = recent
    of_user[:, 2] = breadth
    np.log1p(of_user[:, :3], out=of_user[:, :3])
    of_user[:, 3] = np.log((again + 1.0) / (breadth + 2.0))
    of_user[:, 4] = np.log(s.occasions)
    of_user[:, 5] = np.log1p(absence / DAY_S)

    out = np.empty((len(owner), len(FEATURES)))
    out[:, 0] = s.count
    out[:, 1] = s.count == 1
    out[:, 2] = recency / DAY_S
    out[:, 3] = gap / DAY_S
    out[:, 4] = recency / gap
    np.log1p(out[:, :5], out=out[:, :5])
    out[:, 5:8] = (s.attention + _LITTLE) / (s.total[owner] + _LITTLE_OF_ALL)
    out[:, 8] = s.count / s.events[owner]
    np.log(out[:, 5:9], out=out[:, 5:9])
    out[:, 9:] = of_user[owner]
    return out
