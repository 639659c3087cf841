"""Intervals of mean figures by the bootstrap: users are drawn again, with all their tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
"""Share of resamples an interval holds."""

CHUNK = 50
"""Resamples that are summed at once."""


@dataclass(frozen=True)
class Interval:
    """A mean, or a difference of two, and where it lies (percentile bootstrap, Efron 1979)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Means:
    """Means of C figures over tests."""

    values: np.ndarray
    """(C,) over the tests there are; NaN for a figure that no test has."""
    drawn: np.ndarray
    """(R, C) over each resample of users; NaN where a resample has no such test."""

    def interval(self, column: int) -> Interval:
        """Of one figure."""
        return _interval(float(self.values[column]), self.drawn[:, column])

    def difference(self, column: int, other: int) -> Interval:
        """Of one figure less another, over the same users in each resample."""
        return _interval(
            float(self.values[column] - self.values[other]),
            self.drawn[:, column] - self.drawn[:, other],
        )


@dataclass(frozen=True)
class Bootstrap:
    """How users are drawn again; the same seed draws the same ones for every figure."""

    resamples: int = 1000
    """How often."""
    seed: int = 7
    """Where chance starts."""

    def means(self, figures: np.ndarray, users: np.ndarray) -> Means:
        """Means of figures over tests, and over the tests of users drawn with replacement.

        Args:
            figures: (T, C), NaN where a test does not count for a figure.
            users: (T,) ascending user numbers.
        """
        there = ~np.isnan(figures)
        starts = np.flatnonzero(np.diff(users, prepend=-1))
        n = len(starts)
        if not n:
            nothing = np.full((self.resamples, figures.shape[1]), np.nan)
            return Means(nothing[0], nothing)
        sums = np.add.reduceat(np.where(there, figures, 0.0), starts, axis=0)
        counts = np.add.reduceat(there, starts, axis=0, dtype=np.float64)
        random = np.random.default_rng(self.seed)
        drawn = []
        for first in range(0, self.resamples, CHUNK):
            size = min(CHUNK, self.resamples - first)
            chosen = random.integers(n, size=(size, n))
            times = np.stack([np.bincount(one, minlength=n) for one in chosen]).astype(np.float64)
            drawn.append(_ratio(times @ sums, times @ counts))
        return Means(_ratio(sums.sum(axis=0), counts.sum(axis=0)), np.concatenate(drawn))


def _ratio(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return sums / np.where(counts > 0, counts, np.nan)


def _interval(value: float, drawn: np.ndarray) -> Interval:
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        return Interval(value, float("nan"), float("nan"))
    tail = (1.0 - LEVEL) / 2
    low, high = np.quantile(drawn, (tail, 1.0 - tail))
    return Interval(value, float(low), float(high))
