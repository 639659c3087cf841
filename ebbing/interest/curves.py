"""Forgetting curves, read off the bank after the fact.

A forgetting curve says what an event of some age is still worth. The usual ones are completely
monotone, so by Bernstein's theorem each is a mixture of exponentials with weights ≥ 0; on the
bank's fixed rates it becomes R weights, and the strength of an interest under the curve is one
product with sums that are already stored: no event is read again.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ebbing.interest.bank import BANK_SIZE, HALF_LIVES_S

__all__ = [
    "EXPONENTIAL_ERROR",
    "EXPONENTIAL_SPAN",
    "POWER_LAW_AGES_S",
    "POWER_LAW_ERROR",
    "POWER_LAW_EXPONENTS",
    "exponential",
    "power_law",
    "value",
]

Floats = NDArray[np.float64]

POWER_LAW_EXPONENTS = (0.2, 1.0)
"""Smallest and largest exponent of the family of power laws."""
POWER_LAW_UNIT_S = 3600.0
"""Age at which an event is worth 1 under a power law, seconds."""
POWER_LAW_AGES_S = (POWER_LAW_UNIT_S, 2 * 365.25 * 86400.0)
"""Ages between which a power law holds, seconds; younger events are worth little more than 1."""
POWER_LAW_ERROR = 0.008
"""Largest relative error of any power law between those ages; at the exponent .5 it is .003."""

EXPONENTIAL_SPAN = 2.0
"""Half-lives of age up to which an exponential holds."""
EXPONENTIAL_ERROR = 0.06
"""Largest relative error of any exponential up to that age; 0 where the bank has its rate."""


def value(bank: Floats, weights: Floats) -> Floats:
    """Strength of interests under a curve, (...): what their events together are worth.

    Args:
        bank: decayed sums (..., R), as ``TraceTable.bank`` and ``bank_sums`` give them.
        weights: the curve, (R,).
    """
    strengths: Floats = bank @ weights
    return strengths


def exponential(half_life_s: float) -> Floats:
    """The curve 2^(−age / half_life_s) as weights on the bank, (R,).

    Exact at the half-lives of the bank. Between two of them, the mixture of both whose relative
    error over ages of 0 to ``EXPONENTIAL_SPAN`` half-lives is least; over that span it is never
    above ``EXPONENTIAL_ERROR``.

    Raises:
        ValueError: the half-life is outside the bank's.
    """
    shortest, longest = HALF_LIVES_S[0], HALF_LIVES_S[-1]
    if not shortest <= half_life_s <= longest:
        raise ValueError(
            f"half-life {half_life_s} s is outside the bank's, {shortest:g} s to {longest:g} s"
        )
    weights = np.zeros(BANK_SIZE)
    i = int(np.searchsorted(HALF_LIVES_S, half_life_s))
    if HALF_LIVES_S[i] == half_life_s:
        weights[i] = 1.0
        return weights
    # Relative to the curve asked for, and with u the age in half-lives, the mixture of both
    # neighbours is a·2^(−pu) + b·2^(qu): convex, so its error is least where it is as far above 1
    # at both ends of the span as it is below 1 at its minimum.
    p = half_life_s / HALF_LIVES_S[i - 1] - 1
    q = 1 - half_life_s / HALF_LIVES_S[i]
    a = math.expm1(EXPONENTIAL_SPAN * q * math.log(2))
    b = -math.expm1(-EXPONENTIAL_SPAN * p * math.log(2))
    lowest_at = math.log2(a * p / (b * q)) / (p + q)
    lowest = a * 2 ** (-p * lowest_at) + b * 2 ** (q * lowest_at)
    scale = 2 / (a + b + lowest)
    weights[i - 1 : i + 1] = a * scale, b * scale
    return weights


def power_law(d: float) -> Floats:
    """The curve (age / 1 h)^−d as weights on the bank, (R,).

    The sum over events of t^−d is the base-level activation of ACT-R (Anderson and Schooler,
    1991). Least relative squares over the logarithm of the age, at Chebyshev's points, where it
    comes within a fifth of the least possible largest error; that is never above
    ``POWER_LAW_ERROR`` over ``POWER_LAW_AGES_S``.

    Raises:
        ValueError: the exponent is outside ``POWER_LAW_EXPONENTS``.
    """
    smallest, largest = POWER_LAW_EXPONENTS
    if not smallest <= d <= largest:
        raise ValueError(f"exponent {d} is outside {smallest:g} to {largest:g}")
    low, high = np.log(POWER_LAW_AGES_S)
    points = np.cos(np.pi * (np.arange(64) + 0.5) / 64)
    ages = np.exp((low + high) / 2 + points * (high - low) / 2)
    curves = np.exp2(-ages[:, None] / HALF_LIVES_S) * (ages[:, None] / POWER_LAW_UNIT_S) ** d
    kept = np.arange(BANK_SIZE)
    while True:
        fitted = np.linalg.lstsq(curves[:, kept], np.ones(len(ages)), rcond=None)[0]
        if (fitted >= 0).all():
            break
        # A curve with a negative weight could rise with age.
        kept = np.delete(kept, fitted.argmin())
    weights = np.zeros(BANK_SIZE)
    weights[kept] = fitted
    return weights
