"""What the ranking model is told of each candidate: the user's interest in what it is about."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ebbing.interest.assessment import retention
from ebbing.interest.forgetting import ForgettingParameters
from ebbing.interest.profile import interest_vectors
from ebbing.interest.trace import TraceTable

__all__ = ["CANDIDATE_FEATURES", "candidate_features", "candidate_means"]

CANDIDATE_FEATURES = (
    "short_term_share",
    "long_term_share",
    "retention",
    "log_count",
    "log_recency_days",
    "known_share",
)
"""Weighted means over the candidate's interests: their shares of the user's short- and long-term
interest, retention, log(1 + events), log(1 + days since the newest), and whether known at all."""

NEVER_DAYS = 3650.0
"""Days of recency of an interest the user never engaged."""


def candidate_means(
    values: NDArray[np.float64],
    unknown: NDArray[np.float64],
    index: dict[str, int],
    item_interests: Sequence[Sequence[tuple[str, float]]],
) -> NDArray[np.float64]:
    """Share-weighted means of per-interest values over each candidate's interests.

    Args:
        values: (N, F) values of the user's interests.
        unknown: (F,) values of an interest the user never engaged, or of a candidate without any.
        index: row of each of the user's interests.
        item_interests: for each of C candidates its interests as (path, share > 0).

    Returns:
        (C, F).
    """
    nowhere = len(values)
    owners, rows, shares = [], [], []
    for c, interests in enumerate(item_interests):
        for name, share in interests or [("", 1.0)]:
            owners.append(c)
            rows.append(index.get(name, nowhere))
            shares.append(share)
    weights = np.zeros((len(item_interests), nowhere + 1))
    np.add.at(weights, (owners, rows), shares)
    weights /= weights.sum(axis=1, keepdims=True)
    means: NDArray[np.float64] = weights @ np.vstack([values, unknown])
    return means


def candidate_features(
    table: TraceTable,
    item_interests: Sequence[Sequence[tuple[str, float]]],
    at: float,
    parameters: ForgettingParameters,
    retained: NDArray[np.float64] | None = None,
) -> NDArray[np.float32]:
    """``CANDIDATE_FEATURES`` of C candidates for one user at ``at``, (C, 6).

    ``retained`` is the retention of the user's interests at ``at``, (N,), for callers who know it
    already.

    Raises:
        ValueError: ``at`` is before the user's newest event.
    """
    vectors = interest_vectors(table, at)
    rho = retention(table, at, parameters) if retained is None else retained
    tiny = np.finfo(np.float64).tiny
    values = np.column_stack(
        [
            vectors.short_term / max(vectors.short_term.sum(), tiny),
            vectors.long_term / max(vectors.long_term.sum(), tiny),
            rho,
            np.log1p(table.count),
            np.log1p((at - table.last) / 86400.0),
            np.ones(len(table.names)),
        ]
    )
    unknown = np.array([0.0, 0.0, 0.0, 0.0, np.log1p(NEVER_DAYS), 0.0])
    index = {name: i for i, name in enumerate(table.names)}
    return candidate_means(values, unknown, index, item_interests).astype(np.float32)
