"""Retention, forgetting score, half-life and state of interests.

Retention ρ is the calibrated probability that the user engages an interest again within a
horizon: a logistic over how often, how lately and how regularly they did, and how active they
are. Its parameters are fitted by the trainer and published with a release.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ebbing.interest.trace import HALF_LIVES_S, TraceTable

__all__ = [
    "ACTIVITY_RATE",
    "FEATURES",
    "ForgettingParameters",
    "InterestState",
    "Retention",
    "StateThresholds",
    "assess",
    "half_life",
    "reason_text",
    "retention",
    "retention_features",
]

Floats = NDArray[np.float64]
DAY_S = 86400.0
MIN_GAP_S = 3600.0
LONGEST_HALF_LIFE_S = 10 * 365.25 * DAY_S

ACTIVITY_RATE = int(np.argmin(np.abs(HALF_LIVES_S - 30 * DAY_S)))
"""Bank index of the half-life nearest 30 days, which reads the user's recent activity."""

FEATURES = (
    "log_count",
    "log_recency",
    "log_gap",
    "log_overdue",
    "log_activity",
    "log_recent_activity",
)
"""Of each interest: log(1 + x) of its events, days since the newest, typical gap in days, recency
in gaps; of the user: all events, and the recent ones as the bank sums them."""

DECLINING = (False, True, False, True, False, False)
"""Features whose coefficient may not be positive, so that retention never grows by waiting."""
ACTIVITY_DECLINES = FEATURES.index("log_recent_activity")
"""Recent activity falls by waiting, so its coefficient may not be negative."""


@dataclass(frozen=True)
class ForgettingParameters:
    """The parameters of the retention model, as a release publishes them."""

    horizon_s: float
    """Horizon of the probability, seconds."""
    intercept: float
    """Log-odds where every feature is 0."""
    coefficients: tuple[float, ...]
    """Log-odds a unit of each of ``FEATURES``, in that order."""
    default_gap_s: float
    """Typical gap assumed of an interest engaged once, seconds."""
    version: str
    """Where the parameters come from, for people."""

    def __post_init__(self) -> None:
        if len(self.coefficients) != len(FEATURES):
            raise ValueError(f"{len(FEATURES)} coefficients are needed: {', '.join(FEATURES)}")
        numbers = (self.horizon_s, self.intercept, self.default_gap_s, *self.coefficients)
        if not all(np.isfinite(numbers)) or self.horizon_s <= 0 or self.default_gap_s <= 0:
            raise ValueError("parameters must be finite, horizon_s and default_gap_s above 0")
        grows = any(c > 0 for c, down in zip(self.coefficients, DECLINING, strict=True) if down)
        if grows or self.coefficients[ACTIVITY_DECLINES] < 0:
            raise ValueError("retention would grow by waiting: a coefficient has the wrong sign")

    @classmethod
    def builtin(cls) -> ForgettingParameters:
        """Rough parameters for when no release has fitted any."""
        return cls(30 * DAY_S, -1.5, (0.9, -0.5, 0.0, -0.4, 0.0, 0.1), 30 * DAY_S, "builtin")

    @classmethod
    def from_json(cls, text: str) -> ForgettingParameters:
        """Read back ``to_json``.

        Raises:
            ValueError: not such JSON, or parameters out of range.
        """
        try:
            fields = json.loads(text)
            if fields.pop("features") != list(FEATURES):
                raise ValueError("fitted on other features: publish a release fitted by this code")
            return cls(**{**fields, "coefficients": tuple(fields["coefficients"])})
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"not forgetting parameters: {error}") from error

    def to_json(self) -> str:
        """JSON that a release carries."""
        return json.dumps({"features": FEATURES, **asdict(self)}, indent=2) + "\n"


def _gaps(count: Floats, first: Floats, last: Floats, default_s: float) -> Floats:
    gaps = np.where(count > 1, (last - first) / np.maximum(count - 1, 1), default_s)
    floored: Floats = np.maximum(gaps, MIN_GAP_S)
    return floored


def retention_features(
    count: ArrayLike,
    first: ArrayLike,
    last: ArrayLike,
    activity_total: ArrayLike,
    activity_recent: ArrayLike,
    at: ArrayLike,
    default_gap_s: float,
) -> Floats:
    """Features of the retention model; arguments broadcast together to some shape (...).

    Args:
        count: events of the interest, ≥ 1.
        first: its first event, seconds since the epoch.
        last: its newest event, seconds.
        activity_total: events of the user.
        activity_recent: the user's bank sum of index ``ACTIVITY_RATE`` at ``at``.
        at: the moment asked for, seconds, not before ``last``.
        default_gap_s: the gap assumed of an interest engaged once, seconds.

    Returns:
        (..., len(FEATURES)).
    """
    n, begun, newest = (np.asarray(a, np.float64) for a in (count, first, last))
    recency = np.maximum(np.asarray(at, np.float64) - newest, 0.0)
    gap = _gaps(n, begun, newest, default_gap_s)
    columns = (n, recency / DAY_S, gap / DAY_S, recency / gap, activity_total, activity_recent)
    features = np.empty((*np.broadcast(*columns).shape, len(FEATURES)))
    for i, column in enumerate(columns):
        features[..., i] = column
    return np.log1p(features, out=features)


def retention(features: ArrayLike, parameters: ForgettingParameters) -> Floats:
    """ρ of feature rows (..., F): the probability of a return within the horizon, (...)."""
    logits = np.asarray(features, np.float64) @ np.array(parameters.coefficients)
    odds: Floats = np.exp(-np.logaddexp(0.0, -(logits + parameters.intercept)))
    return odds


class InterestState(IntEnum):
    """Where an interest stands; numbers are those of ``ebbing.v1.InterestState``."""

    UNSPECIFIED = 0
    NEW = 1
    ACTIVE = 2
    FADING = 3
    RESTING = 4
    FORGOTTEN = 5
    REVIVED = 6


@dataclass(frozen=True)
class StateThresholds:
    """Where one state ends and the next begins.

    ``freshness`` is retention over what it would be, were the interest engaged this moment.
    """

    fading: float = 0.5
    """Below this freshness an interest fades."""
    fading_gaps: float = 4.0
    """Quiet for more than this many of its own usual gaps, an established interest fades too."""
    forgotten: float = 0.25
    """Below this freshness an interest is forgotten."""
    resting_gaps: float = 1.5
    """Quiet for at most this many of its own usual gaps, an interest rests."""
    established: int = 3
    """Events from which on an interest is no longer new and has a rhythm of its own."""


@dataclass(frozen=True, slots=True)
class Retention:
    """The assessment of the N interests of a table, in its order."""

    retention: Floats
    """ρ in [0, 1]: probability of a return within the horizon."""
    freshness: Floats
    """ρ over what it would be just after an event, in [0, 1]."""
    recency_s: Floats
    """Seconds since the newest event."""
    gap_s: Floats
    """Typical seconds between events; the default where there was only one."""
    states: NDArray[np.int64]
    """``InterestState`` numbers."""


def _share(part: Floats, whole: Floats) -> Floats:
    """Part over whole, 0 where parameters leave the whole no probability a float can hold."""
    shares: Floats = part / np.maximum(whole, np.finfo(np.float64).tiny)
    return shares


def assess(
    table: TraceTable,
    at: float,
    parameters: ForgettingParameters,
    thresholds: StateThresholds | None = None,
) -> Retention:
    """Retention and state of every interest at ``at``, not before the user's newest event.

    Raises:
        ValueError: ``at`` is before the user's newest event.
    """
    limits = thresholds or StateThresholds()
    recent = float(table.total_bank(at)[ACTIVITY_RATE])
    count, first, last = table.count, table.first, table.last
    default = parameters.default_gap_s
    # Before its newest event an interest had one event fewer, and had waited since the previous.
    earlier = np.isfinite(table.previous)
    previous = np.where(earlier, table.previous, last)
    n_before = np.maximum(count - 1, 1)
    # All four readings at once: now, just after the newest event, just before it, and just after
    # the previous one.
    features = retention_features(
        np.stack([count, count, n_before, n_before]),
        first,
        np.stack([last, last, previous, previous]),
        table.event_count,
        recent,
        np.stack([np.full_like(last, at), last, last, previous]),
        default,
    )
    now, fresh, waited, fresh_before = retention(features, parameters)
    freshness = _share(now, fresh)
    before = _share(waited, fresh_before)
    gap_before = _gaps(n_before, first, previous, default)
    rested = (count > limits.established) & (last - previous <= limits.resting_gaps * gap_before)
    was_forgotten = earlier & (before < limits.forgotten) & ~rested

    gap = _gaps(count, first, last, default)
    established = count >= limits.established
    overdue = established & (at - last > limits.fading_gaps * gap)
    quiet = (freshness < limits.fading) | overdue
    resting = established & (at - last <= limits.resting_gaps * gap)
    states = np.select(
        [quiet & resting, freshness < limits.forgotten, quiet, was_forgotten, ~established],
        [
            InterestState.RESTING,
            InterestState.FORGOTTEN,
            InterestState.FADING,
            InterestState.REVIVED,
            InterestState.NEW,
        ],
        InterestState.ACTIVE,
    )
    return Retention(now, freshness, at - last, gap, states)


def reason_text(assessed: Retention, i: int, thresholds: StateThresholds) -> str:
    """Why interest ``i`` is in its state, in one line of English."""
    words = [
        f"last {_days(assessed.recency_s[i])} ago",
        f"usual gap {_days(assessed.gap_s[i])}",
        f"freshness {assessed.freshness[i]:.0%} (fades below {thresholds.fading:.0%},"
        f" forgotten below {thresholds.forgotten:.0%})",
    ]
    state = InterestState(int(assessed.states[i]))
    if state is InterestState.RESTING:
        words.append(f"within {thresholds.resting_gaps:g} of its own gaps")
    elif state is InterestState.FADING and assessed.freshness[i] >= thresholds.fading:
        words.append(f"quiet for more than {thresholds.fading_gaps:g} of its own gaps")
    elif state is InterestState.REVIVED:
        words.append("came back after having been forgotten")
    elif state is InterestState.NEW:
        words.append(f"fewer than {thresholds.established} events")
    return "; ".join(words)


def _days(seconds: float) -> str:
    return f"{seconds / DAY_S:.0f} d" if seconds >= 1.5 * DAY_S else f"{seconds / 3600:.0f} h"


def half_life(table: TraceTable, at: float, parameters: ForgettingParameters) -> Floats:
    """Seconds from ``at`` until each interest's retention has halved with no new event, (N,).

    Infinite where ten years do not halve it. Solved by bisection to a relative 1e-6; retention
    never grows by waiting, so the crossing is the only one.
    """
    recent = float(table.total_bank(at)[ACTIVITY_RATE])

    def rho(wait: Floats) -> Floats:
        decayed = recent * np.exp2(-wait / HALF_LIVES_S[ACTIVITY_RATE])
        features = retention_features(
            table.count,
            table.first,
            table.last,
            table.event_count,
            decayed,
            at + wait,
            parameters.default_gap_s,
        )
        return retention(features, parameters)

    n = len(table.names)
    target = rho(np.zeros(n)) / 2
    low, high = np.full(n, 1.0), np.full(n, LONGEST_HALF_LIFE_S)
    never = rho(high) > target
    for _ in range(45):
        middle = np.sqrt(low * high)
        above = rho(middle) > target
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    halved: Floats = np.where(never, np.inf, high)
    return halved
