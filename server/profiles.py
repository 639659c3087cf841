"""A user's interest profile as of a moment, with everything that is said about each interest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ebbing.interest.article import drift
from ebbing.interest.forgetting import ForgettingParameters, Retention, assess, half_life
from ebbing.interest.profile import InterestVectors, interest_vectors, previous_interest_vector
from ebbing.interest.trace import TraceTable
from server.users import UserView

__all__ = ["Profile", "profile_of"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Profile:
    """The N interests of a user at one moment; arrays are (N,), in the order of the traces."""

    traces: TraceTable
    assessed: Retention
    vectors: InterestVectors
    previous: Floats
    """I(u,t−1), events' worth."""
    half_life_s: Floats
    """Seconds until retention has halved; infinite where it does not."""
    drift: float | None
    """The articles' F(u,t); None where I(u,t) = 0."""

    @property
    def strongest(self) -> list[int]:
        """Interest numbers by blended strength, strongest first."""
        order: list[int] = np.argsort(-self.vectors.blended, kind="stable").tolist()
        return order


def profile_of(user: UserView, roll_up: bool, parameters: ForgettingParameters) -> Profile:
    """The profile of a user; ``roll_up`` sums interests by the first component of their paths."""
    traces = user.traces.roll_up() if roll_up else user.traces
    vectors = interest_vectors(traces, user.at_s)
    previous = previous_interest_vector(traces, user.at_s)
    return Profile(
        traces=traces,
        assessed=assess(traces, user.at_s, parameters),
        vectors=vectors,
        previous=previous,
        half_life_s=half_life(traces, user.at_s, parameters),
        drift=drift(vectors.blended, previous),
    )
