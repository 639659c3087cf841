"""A user's interests at one moment, as strategies and explanations need them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ebbing.features import candidate_means
from ebbing.interest.assessment import Assessment, assess
from ebbing.interest.forgetting import ForgettingParameters
from ebbing.interest.profile import interest_vectors
from ebbing.interest.states import InterestState
from ebbing.interest.trace import TraceTable
from server.state.store import Interests

__all__ = ["InterestContext"]

Floats = NDArray[np.float64]

TINY = float(np.finfo(np.float64).tiny)
RECOVERABLE_QUIET = 2.0
"""A forgotten interest may be won back until it has been quiet for so many times its limit."""


@dataclass(frozen=True, slots=True)
class InterestContext:
    """N interests of one user, arrays in the order of the names."""

    names: tuple[str, ...]
    index: dict[str, int]
    at_s: float
    """The moment, seconds since the epoch."""
    assessed: Assessment
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
            at_s=at_s,
            assessed=assess(traces, at_s, parameters),
            strength=interest_vectors(traces, at_s).blended,
        )

    @property
    def retention(self) -> Floats:
        """ρ, (N,)."""
        return self.assessed.retention

    @property
    def states(self) -> NDArray[np.int64]:
        """``InterestState`` numbers, (N,)."""
        return self.assessed.states

    @property
    def recoverable(self) -> Floats:
        """How much there is to win back in each interest, (N,); 0 where nothing is.

        An interest that fades, or has been forgotten not long ago, is worth its retention: the
        chance that it comes back at all. What is alive needs no winning back, what was abandoned
        long ago, by its own rhythm, is let go.
        """
        states, quiet = self.states, self.assessed.recency_s
        lately = quiet <= RECOVERABLE_QUIET * self.assessed.limits.forgotten_s
        fading = states == InterestState.FADING
        forgotten = (states == InterestState.FORGOTTEN) & lately
        # Of equal chance, the one that has only begun to fade.
        worth: Floats = self.retention * np.where(fading, 1.0, np.where(forgotten, 0.5, 0.0))
        return worth

    def order(self, worth: Floats) -> list[str]:
        """Interests, greatest worth (N,) first."""
        return [self.names[i] for i in np.argsort(-worth, kind="stable")]

    def means_of(self, values: Floats, unknown: float, interests: Sequence[Interests]) -> Floats:
        """Means of the interests' values (N,), weighed by what each of C candidates is about, (C,).

        An interest never engaged has the value ``unknown``; so has a candidate about nothing.
        """
        columns = values[:, None]
        means: Floats = candidate_means(columns, np.array([unknown]), self.index, interests)[:, 0]
        return means

    def forgetting_of(self, interests: Sequence[Interests]) -> tuple[Floats, Floats]:
        """F(u,i) of C candidates and their liveliness, each (C,) in [0, 1].

        F(u,i) is the weighted forgetting score of the candidate's interests. Liveliness is their
        weighted retention over that of the user's liveliest interest: what counts is which of
        the user's own interests is alive, not how often people return at all. An interest never
        engaged has F = 1 and liveliness 0.
        """
        rho = self.retention
        values = np.column_stack([1.0 - rho, rho / rho.max(initial=TINY)])
        means = candidate_means(values, np.array([1.0, 0.0]), self.index, interests)
        return means[:, 0], means[:, 1]
