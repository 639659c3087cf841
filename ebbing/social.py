"""Who is near to whom, from relations: trust, friendship, following.

A `SocialMatrix` S has a row for each person: how much each other person counts for them, adding up
to 1. A person without relations has a row of nothing. Only relations are stored, row by row, so N
people with R relations take O(N + R) memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["SocialMatrix"]

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class SocialMatrix:
    """Strengths of relations by person, each person's adding up to 1."""

    offsets: Numbers
    """(N + 1,) int64: the relations of person p are `offsets[p]:offsets[p + 1]`."""
    others: Numbers
    """(R,) int64 the other person of each, ascending within a person, none twice."""
    strengths: Floats
    """(R,) float64 above 0."""

    @classmethod
    def of(
        cls,
        people: int,
        pairs: Numbers,
        strengths: Floats | None = None,
        mutual: bool = False,
    ) -> SocialMatrix:
        """The matrix of relations in any order.

        Strengths of a pair that stands several times add up; relations to oneself are left out.

        Args:
            people: N.
            pairs: (R, 2) numbers of people: the second counts for the first.
            strengths: (R,) above 0; None: all alike.
            mutual: whether the first counts for the second as well, as friends do.

        Raises:
            ValueError: a number is none of a person, or a strength is not above 0.
        """
        pairs = np.asarray(pairs, np.int64).reshape(-1, 2)
        weights = np.ones(len(pairs)) if strengths is None else np.asarray(strengths, np.float64)
        if len(pairs) and not (pairs.min() >= 0 and pairs.max() < people):
            raise ValueError(f"a relation names a person outside 0 to {people - 1}")
        if len(weights) != len(pairs) or not (np.isfinite(weights) & (weights > 0)).all():
            raise ValueError("each relation needs a finite strength above 0")
        if mutual:
            pairs, weights = np.vstack([pairs, pairs[:, ::-1]]), np.tile(weights, 2)
        return _normalised(people, pairs[:, 0], pairs[:, 1], weights)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def neighbours(self, person: int) -> tuple[Numbers, Floats]:
        """Who counts for a person, and how much: (n,) numbers ascending and (n,) strengths."""
        own = slice(int(self.offsets[person]), int(self.offsets[person + 1]))
        return self.others[own], self.strengths[own]

    def spread(self, values: Floats) -> Floats:
        """S · values: what those who count for each person have on average.

        Args:
            values: (N, D).

        Returns:
            (N, D) float64; 0 for people without relations.
        """
        values = np.asarray(values, np.float64)
        found = np.zeros(values.shape)
        friendly = np.diff(self.offsets) > 0
        if friendly.any():
            parts = self.strengths[:, None] * values[self.others]
            found[friendly] = np.add.reduceat(parts, self.offsets[:-1][friendly])
        return found

    def with_friends_of_friends(self, damping: float = 0.5) -> SocialMatrix:
        """S + damping · S², without the diagonal, each row adding up to 1 again.

        A friend of a friend is as near as the way there is strong; whom many ways lead to is
        nearer, and a direct relation counts most.

        Args:
            damping: how much a second step counts, 0 or more.
        """
        if not damping >= 0:
            raise ValueError(f"a damping of {damping:g}: give 0 or more")
        first, second, weights = self._people(), self.others, self.strengths
        # Each relation p → q is followed by all of q's.
        widths = np.diff(self.offsets)[second]
        step = np.repeat(np.arange(len(second)), widths)
        within = np.arange(len(step)) - np.repeat(np.cumsum(widths) - widths, widths)
        onward = self.offsets[second][step] + within
        far = damping * weights[step] * weights[onward]
        return _normalised(
            len(self),
            np.concatenate([first, first[step]]),
            np.concatenate([second, second[onward]]),
            np.concatenate([weights, far]),
        )

    def _people(self) -> Numbers:
        """(R,) whose relation each is."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))


def _normalised(people: int, first: Numbers, second: Numbers, weights: Floats) -> SocialMatrix:
    """Relations in any order, several of a pair added up, rows adding up to 1."""
    apart = (first != second) & (weights > 0)
    pair, place = np.unique(first[apart] * people + second[apart], return_inverse=True)
    summed = np.bincount(place, weights[apart], minlength=len(pair))
    person, other = np.divmod(pair, max(people, 1))
    totals = np.bincount(person, summed, minlength=people)
    counts = np.bincount(person, minlength=people)
    return SocialMatrix(
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), other, summed / totals[person]
    )
