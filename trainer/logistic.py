"""Logistic regression with an effect for each group, shrunk, and signs that coefficients keep."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MOST_STEPS = 30
GAIN = 1e-9
"""Relative gain of a step below which the fit has settled."""


@dataclass(frozen=True)
class Logistic:
    """Log-odds = intercept + features · coefficients + effect of the group (+ offset)."""

    intercept: float
    coefficients: np.ndarray
    """(F,) per unit of each feature."""
    effects: np.ndarray
    """(G,)"""

    def log_odds(self, features: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """(N,) of features (N, F) and groups (N,)."""
        known: np.ndarray = self.intercept + features @ self.coefficients + self.effects[groups]
        return known


def fit_logistic(
    features: np.ndarray,
    groups: np.ndarray,
    outcome: np.ndarray,
    weight: np.ndarray,
    signs: np.ndarray,
    n_groups: int,
    ridge: float,
    group_ridge: float,
    offset: np.ndarray | float = 0.0,
    expected: np.ndarray | float = 0.0,
) -> Logistic:
    """The penalised maximum of likelihood, by Newton's method.

    A coefficient of a forbidden sign is set to zero and the others are fitted again, until none
    is left; the problem is convex, so that few rounds settle it. Effects of groups are eliminated
    from every step (Schur's complement), so that their number costs next to nothing.

    Args:
        features: (N, F).
        groups: (N,) integers in [0, n_groups).
        outcome: (N,) bool, with both values.
        weight: (N,) of each case, ≥ 0.
        signs: (F,) −1, 0 or 1: coefficients must not be of the opposite sign; 0 allows either.
        n_groups: number of groups.
        ridge: pull of coefficients to those expected, per squared unit of standardised features.
        group_ridge: pull of the groups' effects to 0.
        offset: log-odds known already, (N,).
        expected: coefficients that are pulled to, (F,).
    """
    middle, spread = features.mean(axis=0), features.std(axis=0)
    # A column that hardly varies says nothing: it is not blown up to say much.
    telling = spread > 1e-9 * np.maximum(np.abs(middle), 1.0)
    X = np.column_stack(
        [np.ones(len(features)), (features - middle) / np.where(telling, spread, 1)]
    )
    free = np.concatenate([[True], telling])
    pull = np.concatenate([[0.0], np.full(features.shape[1], ridge)])
    centre = np.concatenate([[0.0], expected * spread])
    bound = np.concatenate([[0], signs])
    while True:
        theta = np.zeros(X.shape[1])
        theta[free], effects = _newton(
            X[:, free],
            groups,
            outcome,
            weight,
            pull[free],
            centre[free],
            n_groups,
            group_ridge,
            offset,
        )
        wrong = free & (theta * bound < 0)
        if not wrong.any():
            break
        free &= ~wrong
    coefficients = theta[1:] / np.where(telling, spread, 1.0)
    return Logistic(float(theta[0] - coefficients @ middle), coefficients, effects)


def _newton(
    X: np.ndarray,
    groups: np.ndarray,
    outcome: np.ndarray,
    weight: np.ndarray,
    pull: np.ndarray,
    centre: np.ndarray,
    n_groups: int,
    group_pull: float,
    offset: np.ndarray | float,
) -> tuple[np.ndarray, np.ndarray]:
    y = outcome.astype(np.float64)
    theta, effects = np.zeros(X.shape[1]), np.zeros(n_groups)

    def loss(theta: np.ndarray, effects: np.ndarray) -> float:
        z = X @ theta + effects[groups] + offset
        fit = float((weight * (np.logaddexp(0.0, z) - y * z)).sum())
        pulled = float(pull @ (theta - centre) ** 2) + group_pull * float(effects @ effects)
        return fit + 0.5 * pulled

    value = loss(theta, effects)
    for _ in range(MOST_STEPS):
        p = 1.0 / (1.0 + np.exp(-(X @ theta + effects[groups] + offset)))
        residual, curve = weight * (p - y), weight * p * (1.0 - p)
        curved = X * curve[:, None]
        slope = X.T @ residual + pull * (theta - centre)
        group_slope = np.bincount(groups, residual, n_groups) + group_pull * effects
        group_curve = np.bincount(groups, curve, n_groups) + group_pull
        both = np.stack([np.bincount(groups, column, n_groups) for column in curved.T])
        schur = X.T @ curved + np.diag(pull) - (both / group_curve) @ both.T
        step = np.linalg.lstsq(schur, slope - (both / group_curve) @ group_slope, rcond=None)[0]
        group_step = (group_slope - both.T @ step) / group_curve
        scale = 1.0
        while (moved := loss(theta - scale * step, effects - scale * group_step)) > value:
            scale /= 2
            if scale < 1e-6:
                return theta, effects
        theta, effects = theta - scale * step, effects - scale * group_step
        gained, value = value - moved, moved
        if gained <= GAIN * (1.0 + abs(value)):
            break
    return theta, effects


def shift_to(log_odds: np.ndarray, weight: np.ndarray, expected: float) -> float:
    """What to add to log-odds so that their weighted probabilities sum to ``expected``.

    Bisection: the sum grows with the shift. ``expected`` is kept half a case from none and all.
    """
    total = float(weight.sum())
    aim = min(max(expected, 0.5 * total / (len(weight) + 1)), total * (1 - 0.5 / (len(weight) + 1)))
    low, high = -30.0, 30.0
    for _ in range(60):
        middle = (low + high) / 2
        if float((weight / (1.0 + np.exp(-(log_odds + middle)))).sum()) < aim:
            low = middle
        else:
            high = middle
    return (low + high) / 2
