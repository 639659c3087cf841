"""The articles' formulas, exactly as they define them.

* drift ``F(u,t) = ‖I(u,t) − I(u,t−1)‖ / ‖I(u,t)‖``
* probability ``p(i|u,t) = softmax_i(−α F(u,i))``
* recommendation ``R(u,t) = Σ_i w_i p(i|u,t)``

Drift is symmetric: it tells *that* interest moved, not which way. What is forgotten is decided
by retention (``ebbing.interest.forgetting``); for an item, F(u,i) is the weighted forgetting
score of its interests.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["drift", "recommendation_score", "softmax_probabilities"]

Floats = NDArray[np.float64]


def drift(current: ArrayLike, previous: ArrayLike) -> float | None:
    """F(u,t) of two interest vectors over the same interests, each (N,).

    Returns:
        F ≥ 0, or None where I(u,t) = 0 leaves it undefined. I(t) = (1,1,0) after
        I(t−1) = (1,0,1) gives √2/√2 = 1.
    """
    now, before = np.asarray(current, np.float64), np.asarray(previous, np.float64)
    norm = float(np.linalg.norm(now))
    if norm == 0.0:
        return None
    return float(np.linalg.norm(now - before)) / norm


def softmax_probabilities(forgetting: ArrayLike, alpha: float) -> Floats:
    """p(i|u,t) of candidates with forgetting F(u,i), (C,), summing to 1.

    Args:
        forgetting: F(u,i), (C,), finite.
        alpha: how strongly forgetting counts, ≥ 0; 0 makes all candidates alike.
    """
    logits = -alpha * np.asarray(forgetting, np.float64)
    if logits.size == 0:
        return logits
    powers = np.exp(logits - logits.max())
    probabilities: Floats = powers / powers.sum()
    return probabilities


def recommendation_score(weights: ArrayLike, probabilities: ArrayLike) -> float:
    """R(u,t) of candidates with weights w_i and probabilities p(i|u,t), each (C,)."""
    return float(np.dot(np.asarray(weights, np.float64), np.asarray(probabilities, np.float64)))
