"""How the state of interest changes the order that relevance gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ebbing.features import candidate_means
from ebbing.interest.article import recommendation_score, softmax_probabilities
from ebbing.interest.assessment import retention, states_at
from ebbing.interest.forgetting import ForgettingParameters
from ebbing.interest.profile import interest_vectors
from ebbing.interest.trace import TraceTable
from server.recommend.candidates import Candidate
from server.state.store import Interests

__all__ = ["InterestContext", "Scored", "article_fields", "follow"]

Floats = NDArray[np.float64]

LEAST_DOUBT = 1e-6
"""Relevance is taken for no surer than this, either way: its odds must stay finite."""


@dataclass(frozen=True, slots=True)
class InterestContext:
    """A user's interests at one moment, as re-ranking and explanations need them."""

    names: tuple[str, ...]
    index: dict[str, int]
    retention: Floats
    """ρ, (N,)."""
    states: NDArray[np.int64]
    """``InterestState`` numbers, (N,)."""
    strength: Floats
    """Blended I(u,t), (N,), events' worth."""

    @classmethod
    def of(
        cls, traces: TraceTable, at_s: float, parameters: ForgettingParameters
    ) -> InterestContext:
        """Assess a user's interests at ``at_s``, seconds, not before the newest event."""
        return cls(
            names=traces.names,
            index={name: i for i, name in enumerate(traces.names)},
            retention=retention(traces, at_s, parameters),
            states=states_at(traces, at_s, parameters),
            strength=interest_vectors(traces, at_s).blended,
        )

    @property
    def priority(self) -> list[str]:
        """Interests by retention, most likely to return first."""
        order = np.argsort(-self.retention, kind="stable")
        return [self.names[i] for i in order]

    def forgetting_of(self, interests: Sequence[Interests]) -> tuple[Floats, Floats]:
        """F(u,i) of C candidates and their liveliness, each (C,) in [0, 1].

        F(u,i) is the weighted forgetting score of the candidate's interests. Liveliness is their
        weighted retention over that of the user's liveliest interest: what counts is which of
        the user's own interests is alive, not how often people return at all. An interest never
        engaged has F = 1 and liveliness 0.
        """
        rho = self.retention
        liveliest = rho.max(initial=float(np.finfo(np.float64).tiny))
        values = np.column_stack([1.0 - rho, rho / liveliest])
        means = candidate_means(values, np.array([1.0, 0.0]), self.index, interests)
        return means[:, 0], means[:, 1]


class Scored(NamedTuple):
    """A candidate with its place in the slate."""

    candidate: Candidate
    score: float
    """What the slate is ordered by."""
    relevance: float | None
    """The ranking model's relevance; None where it was not asked or did not answer."""
    forgetting: float
    """The articles' F(u,i)."""


def follow(
    candidates: Sequence[Candidate],
    relevance: NDArray[np.float32] | None,
    context: InterestContext,
    share: float,
) -> list[Scored]:
    """Weigh what the models believe by liveliness, best first.

    A candidate's score is belief · (1 − share + share · liveliness).
    """
    forgetting, liveliness = context.forgetting_of([c.item.interests for c in candidates])
    base = _belief(candidates, relevance)
    scores = base * (1.0 - share + share * liveliness)
    return [
        Scored(
            candidates[i],
            float(scores[i]),
            None if relevance is None else float(relevance[i]),
            float(forgetting[i]),
        )
        for i in np.argsort(-scores, kind="stable")
    ]


def _belief(candidates: Sequence[Candidate], relevance: NDArray[np.float32] | None) -> Floats:
    """How much the models think of each candidate, (C,), above 0.

    Where both were asked: the retrieval model's probability times the odds of relevance, over the
    best candidate's. Either knows what the other does not: retrieval the order of the history,
    ranking the state of interest. Without retrieval scores it is relevance; without relevance
    the candidates' own order stands in.
    """
    if relevance is None:
        return 1.0 / np.arange(2.0, len(candidates) + 2.0)
    scores = [c.retrieval_score for c in candidates if c.retrieval_score is not None]
    if len(scores) < len(candidates) or not candidates:
        return relevance.astype(np.float64)
    likely = np.clip(relevance.astype(np.float64), LEAST_DOUBT, 1.0 - LEAST_DOUBT)
    log_belief = np.array(scores) + np.log(likely) - np.log1p(-likely)
    belief: Floats = np.exp(log_belief - log_belief.max())
    return belief


def article_fields(slate: Sequence[Scored], alpha: float) -> tuple[Floats, float]:
    """The articles' p(i|u,t) over a slate, (C,), and R(u,t) with relevance as weights."""
    probabilities = softmax_probabilities([s.forgetting for s in slate], alpha)
    weights = [s.score if s.relevance is None else s.relevance for s in slate]
    return probabilities, recommendation_score(weights, probabilities)
