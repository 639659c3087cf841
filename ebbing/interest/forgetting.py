"""Retention, forgetting and half-life of interests.

Retention ρ is the calibrated probability that the user, being around at all, engages an interest
again within a horizon. Its log-odds are a sum: of how often, how lately and how steadily the
interest was engaged, what share of the user's attention it has, how active the user is, what
everybody's behaviour says of the interest, and what the user's other interests say of it. The
forgetting score is φ = 1 − ρ. The trainer fits the parameters by return prediction, and a release
publishes them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ebbing.interest.bank import HALF_LIVES_S
from ebbing.interest.population import MOST_LOG_ODDS, Population
from ebbing.interest.standing import (
    DAY_S,
    FALLS_BY_WAITING,
    FEATURES,
    GROWS_BY_WAITING,
    RECENT_RATE,
    Standing,
    features,
    usual_gap_s,
)

__all__ = [
    "PARTS",
    "ForgettingParameters",
    "HorizonOutOfFamily",
    "freshness",
    "half_life_s",
    "log_odds_parts",
    "quiet_until",
    "retention",
]

Floats = NDArray[np.float64]

LONGEST_HALF_LIFE_S = 10 * 365.25 * DAY_S
LONGEST_QUIET_S = 100 * 365.25 * DAY_S
MOST_LOG = 600.0
"""Its exponential is still a number."""
NOTHING = 1e-100
"""A coefficient as good as 0, by which can still be divided."""
NEWTON_STEPS = 5
"""Enough for 1e-9 whatever the gap, the coefficients and the level: the test tries them all."""

PARTS = ("base", *FEATURES, "popularity", "returns", "company", "horizon")
"""What the log-odds of retention are the sum of: the typical case, how each feature differs from
it, what is known of the interest from everybody, what the user's other interests say, and how the
horizon asked for differs from the one fitted."""

RECENCY, OVERDUE, ABSENCE, RECENT = (
    FEATURES.index(name) for name in ("recency", "overdue", "absence", "recent_activity")
)


class HorizonOutOfFamily(ValueError):
    """A horizon the parameters say nothing of."""

    def __init__(self, shortest_s: float, longest_s: float) -> None:
        """Set up with the shortest and longest horizon there is, seconds."""
        super().__init__(
            f"the horizon must be from {shortest_s / DAY_S:g} to {longest_s / DAY_S:g} days"
        )
        self.shortest_s = shortest_s
        self.longest_s = longest_s


@dataclass(frozen=True, eq=False)
class ForgettingParameters:
    """The parameters of the retention model, as a release publishes them."""

    horizon_s: float
    """The horizon fitted, seconds."""
    base: float
    """Log-odds of the typical case."""
    typical: tuple[float, ...]
    """Its ``FEATURES``, in that order."""
    coefficients: tuple[float, ...]
    """Log-odds a unit of each of ``FEATURES``."""
    default_gap_s: float
    """Usual gap assumed of an interest engaged once, seconds."""
    horizons: tuple[tuple[float, float], ...]
    """Horizons of the family, ascending seconds, and what each adds to the log-odds, ascending; in
    between, what lies between by the log of the horizon. (Proportional odds: McCullagh, *Regression
    models for ordinal data*, 1980.)"""
    population: Population
    """What everybody's behaviour says of interests."""
    version: str
    """Where the parameters come from, for people."""

    def __post_init__(self) -> None:
        if not len(self.coefficients) == len(self.typical) == len(FEATURES):
            raise ValueError(f"{len(FEATURES)} features are needed: {', '.join(FEATURES)}")
        added = (log_odds for _, log_odds in self.horizons)
        flat = np.array((self.base, *self.typical, *self.coefficients, *added))
        if not (np.abs(flat) <= MOST_LOG_ODDS).all():
            raise ValueError(f"parameters must be finite, and none beyond ±{MOST_LOG_ODDS:g}")
        if not 0 < self.default_gap_s <= LONGEST_QUIET_S:
            raise ValueError("default_gap_s must be above 0, and a hundred years at most")
        if any(self.coefficients[i] > 0 for i in GROWS_BY_WAITING) or any(
            self.coefficients[i] < 0 for i in FALLS_BY_WAITING
        ):
            raise ValueError("retention would grow by waiting: a coefficient has the wrong sign")
        family = np.array(self.horizons).reshape(-1, 2)
        ascending = np.diff(family[:, 0], prepend=0.0) > 0
        if not len(family) or not ascending.all() or not np.isfinite(family).all():
            raise ValueError("a family of horizons is needed, in ascending seconds above 0")
        if (np.diff(family[:, 1]) < 0).any():
            raise ValueError("retention would fall with the horizon: the family must ascend")
        if (self.horizon_s, 0.0) not in self.horizons:
            raise ValueError("the horizon fitted, horizon_s, must be in the family and add nothing")

    @property
    def horizons_s(self) -> tuple[float, float]:
        """The shortest and the longest horizon that can be asked for, seconds."""
        return self.horizons[0][0], self.horizons[-1][0]

    def horizon_log_odds(self, horizon_s: float | None) -> float:
        """What a horizon adds to the log-odds of the one fitted; None is the one fitted.

        Raises:
            HorizonOutOfFamily: it is shorter or longer than any fitted.
        """
        if horizon_s is None or horizon_s == self.horizon_s:
            return 0.0
        shortest, longest = self.horizons_s
        if not shortest <= horizon_s <= longest:
            raise HorizonOutOfFamily(shortest, longest)
        seconds, added = zip(*self.horizons, strict=True)
        return float(np.interp(np.log(horizon_s), np.log(seconds), added))

    @classmethod
    def builtin(cls) -> ForgettingParameters:
        """Rough parameters for when no release has fitted any."""
        rough = {"frequency": 0.9, "recency": -0.5, "overdue": -0.4, "recent_activity": 0.1}
        return cls(
            horizon_s=30 * DAY_S,
            base=-1.5,
            typical=(0.0,) * len(FEATURES),
            coefficients=tuple(rough.get(name, 0.0) for name in FEATURES),
            default_gap_s=30 * DAY_S,
            horizons=((7 * DAY_S, -1.0), (30 * DAY_S, 0.0), (90 * DAY_S, 0.8)),
            population=Population.of_nobody(),
            version="builtin",
        )

    @classmethod
    def from_json(cls, text: str) -> ForgettingParameters:
        """Read back ``to_json``.

        Raises:
            ValueError: not such JSON, or parameters out of range.
        """
        try:
            fields: dict[str, Any] = json.loads(text)
            named = _own_features(fields.pop("features"))
            population = Population.from_json(fields.pop("population"))
            return cls(
                typical=tuple(one["typical"] for one in named.values()),
                coefficients=tuple(one["coefficient"] for one in named.values()),
                horizons=tuple((s, added) for s, added in fields.pop("horizons")),
                population=population,
                **fields,
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"not forgetting parameters: {error}") from error

    def to_json(self) -> str:
        """JSON that a release carries."""
        rows = zip(FEATURES, self.typical, self.coefficients, strict=True)
        fields = {
            "version": self.version,
            "horizon_s": self.horizon_s,
            "default_gap_s": self.default_gap_s,
            "base": self.base,
            "features": {name: {"typical": t, "coefficient": c} for name, t, c in rows},
            "horizons": self.horizons,
            "population": self.population.to_json(),
        }
        return json.dumps(fields) + "\n"


def _own_features(named: Any) -> Any:
    """What was fitted of each feature by name, if of these very features."""
    if list(named) != list(FEATURES):
        raise ValueError("fitted on other features: publish a release fitted by this code")
    return named


def log_odds_parts(
    standing: Standing,
    names: Sequence[str],
    at: float,
    parameters: ForgettingParameters,
    horizon_s: float | None = None,
) -> Floats:
    """The ``PARTS`` of the log-odds of retention of one user's interests, (N, len(PARTS)).

    Args:
        standing: the interests of one user.
        names: their paths.
        at: the moment, seconds since the epoch, not before the user's newest event.
        parameters: of a release.
        horizon_s: seconds; None is the horizon fitted.

    Raises:
        HorizonOutOfFamily: as for ``ForgettingParameters.horizon_log_odds``.
    """
    parts = np.empty((len(names), len(PARTS)))
    parts[:, 0] = parameters.base
    known = features(standing, at, parameters.default_gap_s)
    parts[:, 1:-4] = (known - parameters.typical) * parameters.coefficients
    parts[:, -4:-1] = parameters.population.effects(names, standing.attention[:, 0])
    parts[:, -1] = parameters.horizon_log_odds(horizon_s)
    return parts


def retention(parts: ArrayLike) -> Floats:
    """ρ of parts of log-odds (..., P), the probability of a return within the horizon, (...)."""
    log_odds = np.asarray(parts, np.float64).sum(axis=-1)
    chance: Floats = np.exp(-np.logaddexp(0.0, -log_odds))
    return chance


def freshness(recency_s: Floats, gap_s: Floats, parameters: ForgettingParameters) -> Floats:
    """Odds of a return after some quiet over those just after an event, in [0, 1], same shape.

    Of the interest alone: what else the user did meanwhile has no say.
    """
    c = parameters.coefficients
    lost = (c[RECENCY] + c[ABSENCE]) * np.log1p(recency_s / DAY_S)
    left: Floats = np.exp(lost + c[OVERDUE] * np.log1p(recency_s / gap_s))
    return left


def quiet_until(
    levels: Sequence[float], gap_s: Floats, parameters: ForgettingParameters
) -> tuple[Floats, ...]:
    """Seconds of quiet after which freshness has fallen to each of some levels, each (N,).

    Infinite where a hundred years do not bring it there.

    Newton's method on u = log(1 + t / s), s being the shorter of a day and the gap: there the loss
    is convex, so that from any u past the root each step comes nearer and none goes beyond.

    Args:
        levels: freshness, each in (0, 1].
        gap_s: mean time between the events of N interests, seconds.
        parameters: of a release.
    """
    c = parameters.coefficients
    slope, overdue = -(c[RECENCY] + c[ABSENCE]), -c[OVERDUE]
    loss = -np.log(np.maximum(levels, np.finfo(np.float64).tiny))[:, None]
    if slope + overdue < NOTHING:
        return tuple(np.where(loss > 0, np.inf, np.zeros_like(gap_s)))
    unit = np.minimum(gap_s, DAY_S)
    ratio = unit / np.maximum(gap_s, DAY_S)
    often = gap_s < DAY_S
    near, far = np.where(often, overdue, slope), np.where(often, slope, overdue)
    # Where each term alone, and where both told by their asymptotes, would have lost as much.
    of_near = loss / np.maximum(near, NOTHING)
    of_far = np.log1p(np.expm1(np.minimum(loss / np.maximum(far, NOTHING), MOST_LOG)) / ratio)
    of_both = (loss - far * np.log(ratio)) / (slope + overdue)
    most = np.log1p(LONGEST_QUIET_S / unit)
    u = np.minimum(np.minimum(np.minimum(of_near, of_far), of_both), most)
    for _ in range(NEWTON_STEPS):
        units = np.expm1(u)
        behind = units * ratio
        lost = near * u + far * np.log1p(behind) - loss
        u = u - lost / (near + far * (units + 1.0) * ratio / (1.0 + behind))
        u = np.minimum(np.maximum(u, 0.0), most)
    return tuple(np.where(u < most, np.expm1(u) * unit, np.inf))


def half_life_s(
    parts: Floats, standing: Standing, at: float, parameters: ForgettingParameters
) -> Floats:
    """Seconds from ``at`` until each retention has halved with no new event, (N,).

    A second at least, infinite where ten years do not halve it; solved to a relative 1e-6.
    Retention never grows by waiting, so the crossing is the only one.

    Args:
        parts: ``log_odds_parts`` of one user's interests at ``at``, (N, P).
        standing: the interests.
        at: the moment, seconds since the epoch.
        parameters: of a release.
    """
    s, c = standing, parameters.coefficients
    gap = usual_gap_s(s.count, s.first, s.last, parameters.default_gap_s)
    recency, absence = at - s.last, float(at - s.newest[0]) if len(s.newest) else 0.0
    recent = float(s.total[0, -1]) if len(s.total) else 0.0

    def moved(wait: Floats) -> Floats:
        """What waiting takes off the log-odds, but for what it has taken already."""
        ago, away = recency + wait, absence + wait
        left = recent * np.exp2(-away / HALF_LIVES_S[RECENT_RATE])
        own = c[RECENCY] * np.log1p(ago / DAY_S) + c[OVERDUE] * np.log1p(ago / gap)
        lost: Floats = own + c[ABSENCE] * np.log1p(away / DAY_S) + c[RECENT] * np.log1p(left)
        return lost

    log_odds = parts.sum(axis=-1)
    # Of half the retention, by way of logarithms: retention itself may be too small for a number.
    log_half = -np.logaddexp(0.0, -log_odds) - np.log(2.0)
    target = log_half - np.log1p(-np.exp(log_half))
    now = log_odds - moved(np.zeros_like(log_odds))
    return _first_below(lambda wait: now + moved(wait), target)


def _first_below(falling: Callable[[Floats], Floats], target: Floats) -> Floats:
    """Seconds, from one to ten years, at which a falling function of them meets its target, (N,).

    ``falling`` takes (..., N) seconds. Each pass narrows the bracket thirtyfold.
    """
    n = len(target)
    low, high = np.full(n, 0.0), np.full(n, np.log(LONGEST_HALF_LIFE_S))
    never = falling(np.exp(high)) > target
    steps = np.linspace(0.0, 1.0, 32)[:, None]
    column = np.arange(n)
    for _ in range(5):
        grid = low + (high - low) * steps
        above = falling(np.exp(grid)) > target
        k = np.clip(above.sum(axis=0), 1, len(steps) - 1)
        low, high = grid[k - 1, column], grid[k, column]
    met: Floats = np.where(never, np.inf, np.exp(high))
    return met
