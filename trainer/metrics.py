"""How good predicted probabilities are: ranking, likelihood and calibration."""

from __future__ import annotations

import numpy as np

CALIBRATION_BINS = 15
CERTAIN = 1e-12
"""Probabilities are kept this far from 0 and 1 in logarithms."""


def auc(score: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve, ties counted half; by the rank sum of the positives (Mann-Whitney).

    Args:
        score: (N,) higher for what is likelier.
        positive: (N,) bool, with both values.
    """
    _, where, counts = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[where]
    n = int(positive.sum())
    return float((rank[positive].sum() - n * (n + 1) / 2) / (n * (len(score) - n)))


def user_auc(score: np.ndarray, positive: np.ndarray, users: np.ndarray) -> float | None:
    """Mean over users of each one's own AUC; every user with both outcomes counts the same.

    Args:
        score: (N,) higher for what is likelier.
        positive: (N,) bool.
        users: (N,) integers, the cases of a user next to each other.

    Returns:
        None where no user has both outcomes.
    """
    edges = np.flatnonzero(np.diff(users)) + 1
    parts = zip(np.split(score, edges), np.split(positive, edges), strict=True)
    areas = [auc(own, truth) for own, truth in parts if truth.any() and not truth.all()]
    return float(np.mean(areas)) if areas else None


def log_loss(probability: np.ndarray, outcome: np.ndarray) -> float:
    """Mean negative log-likelihood in nats."""
    p = np.clip(probability, CERTAIN, 1 - CERTAIN)
    return float(-np.mean(np.where(outcome, np.log(p), np.log1p(-p))))


def brier(probability: np.ndarray, outcome: np.ndarray) -> float:
    """Mean squared error of the probability."""
    return float(np.mean((probability - outcome) ** 2))


def equal_width_bins(probability: np.ndarray) -> np.ndarray:
    """(N,) bin of each probability: `CALIBRATION_BINS` of equal width over [0, 1]."""
    return np.minimum((probability * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)


def equal_mass_bins(probability: np.ndarray) -> np.ndarray:
    """(N,) bin of each probability: `CALIBRATION_BINS` of as many cases, but ties stay together."""
    below = np.searchsorted(np.sort(probability), probability)
    return below * CALIBRATION_BINS // max(len(probability), 1)


def calibration_error(probability: np.ndarray, outcome: np.ndarray, bins: np.ndarray) -> float:
    """Expected calibration error: Σ over bins of share of cases × |mean p − share positive|."""
    difference = np.bincount(bins, probability - outcome)
    return float(np.abs(difference).sum() / len(probability))


def figures(
    score: np.ndarray, probability: np.ndarray, outcome: np.ndarray, users: np.ndarray
) -> dict[str, float | None]:
    """Everything reported of a prediction.

    Args:
        score: (N,) what ranks the cases; the probability itself, or what it was calibrated from.
        probability: (N,) in [0, 1].
        outcome: (N,) bool, with both values.
        users: (N,) integers, the cases of a user next to each other.
    """
    return {
        "auc": auc(score, outcome),
        "user_auc": user_auc(score, outcome, users),
        "log_loss": log_loss(probability, outcome),
        "brier": brier(probability, outcome),
        "ece": calibration_error(probability, outcome, equal_width_bins(probability)),
        "ece_equal_mass": calibration_error(probability, outcome, equal_mass_bins(probability)),
        "cases": len(outcome),
    }


def classification(probability: np.ndarray, positive: np.ndarray) -> dict[str, float | None]:
    """Everything reported of a probability that says yes from 0.5 on.

    Precision is None where nothing is said yes to, recall where nothing is positive, F1 where
    neither is; AUC needs both outcomes.

    Args:
        probability: (N,) in [0, 1].
        positive: (N,) bool.
    """
    n, yes = len(positive), probability >= 0.5
    right, said, there = int((yes & positive).sum()), int(yes.sum()), int(positive.sum())
    return {
        "pairs": n,
        "positive": there,
        "accuracy": float((yes == positive).mean()) if n else None,
        "precision": right / said if said else None,
        "recall": right / there if there else None,
        "f1": 2 * right / (said + there) if said + there else None,
        "auc": auc(probability, positive) if 0 < there < n else None,
        "log_loss": log_loss(probability, positive) if n else None,
        "brier": brier(probability, positive) if n else None,
        "ece": calibration_error(probability, positive, equal_width_bins(probability))
        if n
        else None,
    }
