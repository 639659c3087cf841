"""What the models believe of each candidate, and the articles' fields over a slate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ebbing.interest.article import recommendation_score, softmax_probabilities
from server.recommend.candidates import Candidate

__all__ = ["Scored", "article_fields", "belief"]

Floats = NDArray[np.float64]

LEAST_DOUBT = 1e-6
"""Relevance is taken for no surer than this, either way: its odds must stay finite."""


class Scored(NamedTuple):
    """A candidate with its place in the slate."""

    candidate: Candidate
    score: float
    """What the slate is ordered by before it is made diverse."""
    relevance: float | None
    """The ranking model's relevance; None where it was not asked or did not answer."""
    forgetting: float
    """The articles' F(u,i)."""


def belief(candidates: Sequence[Candidate], relevance: NDArray[np.float32] | None) -> Floats:
    """How much the models think of each candidate, (C,), above 0.

    Where both were asked: the retrieval model's probability times the odds of relevance, over the
    best candidate's. Either knows what the other does not: retrieval the order of the history,
    ranking the state of interest. A candidate that retrieval did not bring is taken for as likely
    as the least of those it did. Without any retrieval scores it is relevance; without relevance
    the candidates' own order stands in.
    """
    if relevance is None:
        return 1.0 / np.arange(2.0, len(candidates) + 2.0)
    scores = np.array(
        [np.nan if c.retrieval_score is None else c.retrieval_score for c in candidates], float
    )
    if not len(candidates) or np.isnan(scores).all():
        return relevance.astype(np.float64)
    scores = np.where(np.isnan(scores), np.nanmin(scores), scores)
    likely = np.clip(relevance.astype(np.float64), LEAST_DOUBT, 1.0 - LEAST_DOUBT)
    log_belief = scores + np.log(likely) - np.log1p(-likely)
    believed: Floats = np.exp(log_belief - log_belief.max())
    return believed


def article_fields(slate: Sequence[Scored], alpha: float) -> tuple[Floats, float]:
    """The articles' p(i|u,t) over a slate, (C,), and R(u,t) with relevance as weights."""
    probabilities = softmax_probabilities([s.forgetting for s in slate], alpha)
    weights = [s.score if s.relevance is None else s.relevance for s in slate]
    return probabilities, recommendation_score(weights, probabilities)
