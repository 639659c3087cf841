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
from ebbing.interest.states import InterestState, StateThresholds
from ebbing.interest.trace import TraceTable
from server.state.store import Interests

__all__ = ["InterestContext"]

Floats = NDArray[np.float64]

SHORTEST_GAP_S = StateThresholds().shortest_gap_s
TINY = float(np.finfo(np.float64).tiny)
RECOVERABLE_GAPS = 3.0
"""Usual gaps of quiet that two skipped occasions explain; what is quiet for longer is let go."""
RECOVERABLE_LIVELINESS = 0.5
"""Share of the retention of the user's liveliest interest that there must be left."""


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
    def liveliness(self) -> Floats:
        """ρ over that of the user's liveliest interest, (N,) in [0, 1].

        What counts is which of the user's own interests is alive, not how often people return at
        all.
        """
        liveliness: Floats = self.retention / self.retention.max(initial=TINY)
        return liveliness

    @property
    def states(self) -> NDArray[np.int64]:
        """``InterestState`` numbers, (N,)."""
        return self.assessed.states

    @property
    def recoverable(self) -> Floats:
        """How much there is to win back in each interest, (N,); 0 where nothing is.

        An interest that fades or was forgotten is worth its retention, the chance that it comes
        back, if its quiet is no longer than two skipped occasions explain, and that chance at least
        half as good as for the user's liveliest interest. What is alive needs no winning back, and
        what was abandoned, by its own rhythm, is let go.
        """
        quiet = np.isin(self.states, (InterestState.FADING, InterestState.FORGOTTEN))
        gap_s = np.maximum(self.assessed.rhythm.gap_s, SHORTEST_GAP_S)
        lately = self.assessed.recency_s <= RECOVERABLE_GAPS * gap_s
        worth: Floats = np.where(
            quiet & lately & (self.liveliness >= RECOVERABLE_LIVELINESS), self.retention, 0.0
        )
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
        weighted mean of theirs. An interest never engaged has F = 1 and liveliness 0.
        """
        values = np.column_stack([1.0 - self.retention, self.liveliness])
        means = candidate_means(values, np.array([1.0, 0.0]), self.index, interests)
        return means[:, 0], means[:, 1]
