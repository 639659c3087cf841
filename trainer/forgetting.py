"""Fits the forgetting parameters by return prediction.

At a cut t0, every (user, interest) engaged so far is a case of the users active before t0 and
within (t0, t0 + H]; it is positive if the user engages the interest again within the horizon H.
The parameters are fitted at the cut two horizons before the end of the log and tested at the cut
one horizon before it, so that the test's outcomes lie after everything fitting saw.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ebbing.events import DEFAULT_EVENT_WEIGHTS, EventType
from ebbing.interest.forgetting import (
    ACTIVITY_DECLINES,
    ACTIVITY_RATE,
    DECLINING,
    ForgettingParameters,
    retention,
    retention_features,
)
from ebbing.interest.trace import bank_sums
from trainer.data.log import EventLog

DAY_S = 86_400.0
HORIZON_S = 30 * DAY_S
RIDGE = 1e-3
"""Pull of the coefficients to zero: enough that a feature without spread stays solvable."""


class FittingError(Exception):
    """A log the parameters cannot be fitted on; the message says what it lacks."""


@dataclass(frozen=True)
class Cases:
    """The cases of one cut."""

    count: np.ndarray
    """(N,) events of the interest up to the cut."""
    first: np.ndarray
    """(N,) time of its first event, seconds."""
    last: np.ndarray
    """(N,) time of its newest event, seconds."""
    activity_total: np.ndarray
    """(N,) events of the user up to the cut."""
    activity_recent: np.ndarray
    """(N,) the user's bank sum of index `ACTIVITY_RATE` at the cut."""
    returned: np.ndarray
    """(N,) bool: engaged again within the horizon."""
    at: float
    """The cut, seconds since the epoch."""

    def features(self, default_gap_s: float) -> np.ndarray:
        """(N, F) features of `ebbing.interest.forgetting`."""
        return retention_features(
            self.count,
            self.first,
            self.last,
            self.activity_total,
            self.activity_recent,
            self.at,
            default_gap_s,
        )


@dataclass(frozen=True)
class FittedForgetting:
    """The parameters and how well they predict."""

    parameters: ForgettingParameters
    metrics: dict[str, dict[str, float]]
    """in_sample and held_out: cases, base_rate, auc, log_loss, base_log_loss."""


def fit_forgetting(log: EventLog, version: str, horizon_s: float = HORIZON_S) -> FittedForgetting:
    """Fit on a log; deterministic.

    Raises:
        FittingError: at one of the two cuts no case returned, or every one did.
    """
    end = float(log.times.max())
    fitting, held_out = (
        return_cases(log, end - horizons * horizon_s, horizon_s) for horizons in (2, 1)
    )
    repeated = fitting.count > 1
    gaps = (fitting.last - fitting.first)[repeated] / (fitting.count[repeated] - 1)
    default_gap_s = max(float(np.median(gaps)), DAY_S) if repeated.any() else horizon_s
    intercept, coefficients = fit_logistic(fitting.features(default_gap_s), fitting.returned)
    parameters = ForgettingParameters(
        horizon_s=horizon_s,
        intercept=intercept,
        coefficients=coefficients,
        default_gap_s=default_gap_s,
        version=version,
    )
    return FittedForgetting(
        parameters,
        {
            "in_sample": _metrics(fitting, parameters),
            "held_out": _metrics(held_out, parameters),
        },
    )


def return_cases(log: EventLog, at: float, horizon_s: float) -> Cases:
    """The cases of one cut.

    Where there are more than 40 interests, those engaged by over 30 % of the users are left out:
    they say little of anyone.

    Raises:
        FittingError: no case returned, or every one did.
    """
    weight = event_weights(log)
    traced = weight > 0
    users, times, items = log.users[traced], log.times[traced], log.items[traced]
    weight = weight[traced]
    past, ahead = times <= at, (times > at) & (times <= at + horizon_s)
    n_users = len(log.user_ids)
    total = np.bincount(users[past], minlength=n_users)
    active = (total > 0) & (np.bincount(users[ahead], minlength=n_users) > 0)
    recent = bank_sums(users[past], n_users, times[past], weight[past], at)[:, ACTIVITY_RATE]

    names = sorted({name for pairs in log.interests for name, _ in pairs})
    index = {name: number for number, name in enumerate(names)}
    widths = np.array([len(pairs) for pairs in log.interests])
    columns = np.array([index[name] for pairs in log.interests for name, _ in pairs], np.int64)
    starts = np.concatenate([[0], np.cumsum(widths)[:-1]]).astype(np.int64)
    event = np.repeat(np.arange(len(items)), widths[items])
    within = np.arange(len(event)) - np.repeat(
        np.cumsum(widths[items]) - widths[items], widths[items]
    )
    interest = columns[starts[items[event]] + within]

    pair = users[event] * len(names) + interest
    of_active = active[users[event]]
    before = of_active & past[event]
    cases, where = np.unique(pair[before], return_inverse=True)
    moments = times[event][before]
    first, last = np.full(len(cases), np.inf), np.full(len(cases), -np.inf)
    np.minimum.at(first, where, moments)
    np.maximum.at(last, where, moments)
    returned = np.isin(cases, pair[of_active & ahead[event]])
    owner = cases // max(len(names), 1)

    keep = np.ones(len(cases), bool)
    if len(names) > 40:
        spread = np.bincount(cases % len(names), minlength=len(names)) / max(active.sum(), 1)
        keep = spread[cases % len(names)] <= 0.3
    if not returned[keep].any() or returned[keep].all():
        raise FittingError(
            f"forgetting cannot be learned from this log: of {keep.sum()} user-interests before "
            f"its last {round((log.times.max() - at) / DAY_S)} days "
            f"{'all' if keep.any() and returned[keep].any() else 'none'} came back within "
            f"{round(horizon_s / DAY_S)} days; give a longer log, whose items carry interests"
        )
    return Cases(
        np.bincount(where, minlength=len(cases))[keep],
        first[keep],
        last[keep],
        total[owner][keep],
        recent[owner][keep],
        returned[keep],
        at,
    )


def fit_logistic(features: np.ndarray, outcome: np.ndarray) -> tuple[float, tuple[float, ...]]:
    """Logistic regression by Newton's method under the sign rules of the retention model.

    A coefficient of a forbidden sign is set to zero and the others are fitted again, until none
    is left; the problem is convex, so that few rounds settle it.

    Args:
        features: (N, F), of `ebbing.interest.forgetting.FEATURES`.
        outcome: (N,) bool, with both values.

    Returns:
        The intercept and the F coefficients.
    """
    X = np.column_stack([np.ones(len(features)), features]).astype(np.float64)
    sign = np.array([0, *(-1 if down else 0 for down in DECLINING)])
    sign[1 + ACTIVITY_DECLINES] = 1
    free = np.ones(X.shape[1], bool)
    while True:
        theta = np.zeros(X.shape[1])
        theta[free] = _newton(X[:, free], outcome.astype(np.float64))
        wrong = free & (theta * sign < 0)
        if not wrong.any():
            return float(theta[0]), tuple(theta[1:].tolist())
        free &= ~wrong


def auc(score: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve, ties counted half; by the rank sum of the positives."""
    _, where, counts = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[where]
    n = int(positive.sum())
    return float((rank[positive].sum() - n * (n + 1) / 2) / (n * (len(score) - n)))


def log_loss(probability: np.ndarray, outcome: np.ndarray) -> float:
    """Mean negative log-likelihood in nats."""
    p = np.clip(probability, 1e-12, 1 - 1e-12)
    return float(-np.mean(np.where(outcome, np.log(p), np.log1p(-p))))


def _newton(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    theta = np.zeros(X.shape[1])

    def objective(at: np.ndarray) -> float:
        logits = X @ at
        return float(np.sum(np.logaddexp(0.0, logits) - y * logits) + RIDGE / 2 * at @ at)

    value = objective(theta)
    for _ in range(50):
        p = 1.0 / (1.0 + np.exp(-(X @ theta)))
        gradient = X.T @ (p - y) + RIDGE * theta
        hessian = (X * (p * (1 - p))[:, None]).T @ X + RIDGE * np.eye(len(theta))
        step = np.linalg.solve(hessian, gradient)
        scale = 1.0
        while (moved := objective(theta - scale * step)) > value and scale > 1e-6:
            scale /= 2
        theta, gained, value = theta - scale * step, value - moved, moved
        if gained < 1e-10 * (1.0 + abs(value)):
            break
    return theta


def _metrics(cases: Cases, parameters: ForgettingParameters) -> dict[str, float]:
    predicted = retention(cases.features(parameters.default_gap_s), parameters)
    base = float(cases.returned.mean())
    return {
        "cases": len(cases.returned),
        "base_rate": base,
        "auc": auc(predicted, cases.returned),
        "log_loss": log_loss(predicted, cases.returned),
        "base_log_loss": log_loss(np.full(len(predicted), base), cases.returned),
    }


def event_weights(log: EventLog) -> np.ndarray:
    """(E,) weight of each event; 0 for those that leave no trace."""
    table = np.zeros(max(EventType) + 1)
    for kind, weight in DEFAULT_EVENT_WEIGHTS.items():
        table[kind] = weight
    return table[log.types]
