"""A user's interests as of a moment, with everything that is said about each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ebbing.interest.article import drift, recommendation_score, softmax_probabilities
from ebbing.interest.assessment import Assessment, assess, half_life
from ebbing.interest.forgetting import ForgettingParameters
from ebbing.interest.profile import InterestVectors, interest_vectors, previous_interest_vector
from ebbing.interest.trace import TraceTable

__all__ = ["Profile", "profile_of"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Profile:
    """The N interests of a user at one moment; arrays are (N,), in the order of the traces."""

    traces: TraceTable
    assessed: Assessment
    vectors: InterestVectors
    previous: Floats
    """I(u,t−1), events' worth."""
    half_life_s: Floats
    """Seconds until retention has halved; infinite where it does not."""
    probabilities: Floats
    """The articles' p(i|u,t) with F an interest's forgetting score; summing to 1."""
    drift: float | None
    """The articles' F(u,t); None where I(u,t) = 0."""
    article_score: float | None
    """The articles' R(u,t), weighed by shares of strength; None where I(u,t) = 0."""

    @property
    def strongest(self) -> list[int]:
        """Interest numbers by blended strength, strongest first."""
        order: list[int] = np.argsort(-self.vectors.blended, kind="stable").tolist()
        return order


def profile_of(
    traces: TraceTable,
    at_s: float,
    parameters: ForgettingParameters,
    alpha: float,
    horizon_s: float | None = None,
) -> Profile:
    """The profile at ``at_s`` (seconds since the epoch, not before the newest event).

    Args:
        traces: the user's, up to then.
        at_s: the moment.
        parameters: of the release.
        alpha: the articles' α.
        horizon_s: horizon of retention, seconds; None is the one the parameters were fitted for.

    Raises:
        HorizonOutOfFamily: the horizon is none the parameters hold for.
    """
    assessed = assess(traces, at_s, parameters, horizon_s=horizon_s)
    vectors = interest_vectors(traces, at_s)
    previous = previous_interest_vector(traces, at_s)
    probabilities = softmax_probabilities(1.0 - assessed.retention, alpha)
    moved = drift(vectors.blended, previous)
    score = None
    if moved is not None:
        score = recommendation_score(vectors.blended / vectors.blended.sum(), probabilities)
    return Profile(
        traces=traces,
        assessed=assessed,
        vectors=vectors,
        previous=previous,
        half_life_s=half_life(traces, at_s, parameters, horizon_s=horizon_s),
        probabilities=probabilities,
        drift=moved,
        article_score=score,
    )
