"""What the forgetting engine is measured beside: known forgetting curves, each at its best.

A baseline turns what a cut knows of its cases into one score, or a few features, a case. Whatever
it leaves open is chosen by log loss at an earlier cut, where a logistic also turns scores into
probabilities.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ebbing.interest.article import softmax_probabilities
from trainer.logistic import fit_logistic
from trainer.metrics import log_loss
from trainer.return_prediction import DAY_S, Engagements, ReturnCases, cases_at

RIDGE = 1e-3
"""Pull of standardised coefficients to zero, in units of one case's likelihood."""
SHORTEST_GAP_DAYS = 1 / 24
ASSUMED_GAP_DAYS = 30.0
"""The typical gap of an interest engaged once."""
STICKINESS_CASES = 20.0
"""Cases at the common rate that an interest's own share of returns is shrunk with."""
HALF_LIVES_DAYS = (1, 2, 3.5, 7, 14, 30, 60, 90, 180, 270, 365, 540, 730, 1095)
POWERS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5)
ALPHAS = (0.1, 0.3, 1.0, 3.0, 10.0)
SMALLEST = 1e-9
"""Added to decayed counts before their logarithm: what is older than that is all the same."""


@dataclass(frozen=True)
class Past:
    """A cut: its cases, and the engagements up to it."""

    rows: Engagements
    """All that is asked about; what lies after the cut is only read for outcomes before it."""
    cases: ReturnCases

    @classmethod
    def of(cls, rows: Engagements, at: float, horizon_s: float) -> Past:
        """The cut at `at`, seconds; see `trainer.return_prediction.cases_at`."""
        return cls(rows, cases_at(rows, at, horizon_s))

    @cached_property
    def _own(self) -> tuple[np.ndarray, np.ndarray]:
        """Case and age in days of each engagement of the cases' own up to the cut."""
        pairs = self.cases.users * max(len(self.rows.names), 1) + self.cases.interests
        own = (self.rows.times <= self.cases.at) & np.isin(self.rows.pairs, pairs)
        case = np.searchsorted(pairs, self.rows.pairs[own])
        return case, (self.cases.at - self.rows.times[own]) / DAY_S

    def summed(self, worth: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """(N,) sum over each case's engagements of their worth by age in days."""
        case, age = self._own
        return np.bincount(case, worth(age), minlength=len(self.cases))

    @cached_property
    def count(self) -> np.ndarray:
        """(N,) engagements, at least 1."""
        return self.summed(np.ones_like)

    @cached_property
    def recency(self) -> np.ndarray:
        """(N,) days since the newest engagement."""
        case, age = self._own
        youngest = np.full(len(self.cases), np.inf)
        np.minimum.at(youngest, case, age)
        return youngest

    @cached_property
    def gap(self) -> np.ndarray:
        """(N,) mean days between engagements."""
        case, age = self._own
        oldest = np.zeros(len(self.cases))
        np.maximum.at(oldest, case, age)
        mean = (oldest - self.recency) / np.maximum(self.count - 1, 1)
        return np.maximum(np.where(self.count > 1, mean, ASSUMED_GAP_DAYS), SHORTEST_GAP_DAYS)

    @cached_property
    def activity(self) -> np.ndarray:
        """(N, 2) engagements of the user: all, and those of the last horizon."""
        users = self.rows.users
        of_user = [
            np.bincount(users[rows], minlength=self.rows.n_users)[self.cases.users]
            for rows in (self.rows.times <= self.cases.at, self._recent)
        ]
        return np.column_stack(of_user)

    @cached_property
    def popularity(self) -> np.ndarray:
        """(N,) engagements of the interest in the last horizon, anybody's."""
        of_interest = np.bincount(self.rows.interests[self._recent], minlength=len(self.rows.names))
        return of_interest[self.cases.interests]

    @cached_property
    def _recent(self) -> np.ndarray:
        at, times = self.cases.at, self.rows.times
        return (times <= at) & (times > at - self.cases.horizon_s)

    @cached_property
    def stickiness(self) -> np.ndarray:
        """(N,) log-odds of the interest's returns one horizon earlier, shrunk to the common one."""
        horizon_s, width = self.cases.horizon_s, len(self.rows.names)
        before = cases_at(self.rows, self.cases.at - horizon_s, horizon_s)
        rate = (before.returned.sum() + 0.5) / (len(before) + 1)
        asked = np.bincount(before.interests, minlength=width) + STICKINESS_CASES
        came = np.bincount(before.interests, before.returned, width) + STICKINESS_CASES * rate
        return np.log(came / (asked - came))[self.cases.interests]

    @cached_property
    def windows(self) -> tuple[np.ndarray, np.ndarray]:
        """Window of each own engagement, counted back from the cut in horizons, and its share.

        The shares of a user add up to 1 in every window that has engagements of the user's.
        """
        case, age = self._own
        window = np.floor(age * DAY_S / self.cases.horizon_s).astype(np.int64)
        key = self.cases.users[case] * (int(window.max(initial=0)) + 1) + window
        _, where, counts = np.unique(key, return_inverse=True, return_counts=True)
        return window, 1.0 / counts[where]

    def per_user(self, function: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
        """(N,) a function of each user's cases, put together again."""
        edges = np.flatnonzero(np.diff(self.cases.users)) + 1
        return np.concatenate([function(part) for part in np.split(x, edges)])

    def interest_vectors(self, decay: float) -> tuple[np.ndarray, np.ndarray]:
        """I(u,t) and I(u,t−1) at each case's interest, (N,): window shares, older ones decayed.

        Each window counts `decay` times as much as the one after it; 0 reads the newest alone.
        """
        case, _ = self._own
        window, share = self.windows
        n, older = len(self.cases), window >= 1
        now = np.bincount(case, share * np.power(decay, window), minlength=n)
        before = share[older] * np.power(decay, window[older] - 1)
        return now, np.bincount(case[older], before, minlength=n)


@dataclass(frozen=True)
class Baseline:
    """A score of cases with at most one number left open."""

    title: str
    """What people call it."""
    score: Callable[[Past, float], np.ndarray]
    """(cut, open number) → (N,) scores, higher for what is likelier, or (N, F) features."""
    unknown: str = ""
    """The open number as people write it, to be formatted; empty where there is none."""
    grid: tuple[float, ...] = (0.0,)
    """Values of the open number that are tried."""


@dataclass(frozen=True)
class Prediction:
    """What a fitted baseline says of the cases of a cut."""

    score: np.ndarray
    """(N,) what ranks them."""
    probability: np.ndarray
    """(N,) of return."""
    chosen: float | None
    """The value of the open number; None where there is none."""


def predict(baseline: Baseline, earlier: Past, now: Past) -> Prediction:
    """Fit a baseline at an earlier cut, which must have both outcomes, and predict a later one."""
    outcome = earlier.cases.returned
    best, loss = None, np.inf
    for value in baseline.grid:
        features = baseline.score(earlier, value)
        head = Logistic.fit(features, outcome)
        here = log_loss(head(features), outcome)
        if best is None or here < loss:
            best, loss = (value, head), here
    assert best is not None
    value, head = best
    features = baseline.score(now, value)
    probability = head(features)
    score = features if features.ndim == 1 else probability
    return Prediction(score, probability, value if baseline.unknown else None)


@dataclass(frozen=True)
class Logistic:
    """Probabilities from one score or several features."""

    intercept: float
    slopes: np.ndarray
    """(F,)"""

    @classmethod
    def fit(cls, features: np.ndarray, outcome: np.ndarray) -> Logistic:
        """Ridge logistic regression on standardised features.

        A single score keeps its direction: where it misleads, the base rate is all it tells.
        """
        X = features.reshape(len(features), -1).astype(np.float64)
        fitted = fit_logistic(
            features=X,
            groups=np.zeros(len(X), np.int64),
            outcome=outcome,
            weight=np.ones(len(X)),
            signs=np.full(X.shape[1], 1 if features.ndim == 1 else 0),
            n_groups=1,
            ridge=RIDGE,
            # One group alone: the intercept takes all of it.
            group_ridge=1.0,
        )
        return cls(fitted.intercept, fitted.coefficients)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """(N,) probabilities of (N,) scores or (N, F) features."""
        return _sigmoid(features.reshape(len(features), -1) @ self.slopes + self.intercept)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0.0, -logits))


def _softmax(past: Past, drift: np.ndarray, alpha: float) -> np.ndarray:
    return past.per_user(lambda own: softmax_probabilities(own, alpha), drift)


def _article_softmax(past: Past, alpha: float) -> np.ndarray:
    """F(u,i): the drift formula on each interest alone, of shares averaged over all windows."""
    now, before = past.interest_vectors(0.5)
    drift = np.abs(now - before) / np.maximum(now, np.finfo(np.float64).tiny)
    return _softmax(past, drift, alpha)


def _article_softmax_windows(past: Past, alpha: float) -> np.ndarray:
    """F(u,i): each interest's part of the drift between the last two windows."""
    now, before = past.interest_vectors(0.0)
    norm = past.per_user(lambda own: np.full(len(own), np.linalg.norm(own)), now)
    drift = np.where(norm > 0, np.abs(now - before) / np.where(norm > 0, norm, 1.0), 0.0)
    return _softmax(past, drift, alpha)


def _recency_frequency_gap(past: Past, _: float) -> np.ndarray:
    recency, gap = past.recency, past.gap
    own = (np.log(past.count), np.log1p(recency), np.log1p(gap), np.log1p(recency / gap))
    return np.column_stack([*own, np.log1p(past.activity)])


def _with_popularity(past: Past, _: float) -> np.ndarray:
    return np.column_stack([_recency_frequency_gap(past, _), np.log1p(past.popularity)])


def _with_stickiness(past: Past, _: float) -> np.ndarray:
    return np.column_stack([_with_popularity(past, _), past.stickiness])


BASELINES: dict[str, Baseline] = {
    "base_rate": Baseline("base rate", lambda past, _: np.zeros(len(past.cases))),
    "article_softmax_windows": Baseline(
        "article's softmax(−αF), windows", _article_softmax_windows, "α = {:g}", ALPHAS
    ),
    "article_softmax": Baseline(
        "article's softmax(−αF), averages", _article_softmax, "α = {:g}", ALPHAS
    ),
    "frequency": Baseline("frequency", lambda past, _: np.log(past.count)),
    "exponential_last_event": Baseline(
        "exponential, last event",
        lambda past, days: np.exp2(-past.recency / days),
        "half-life {:g} days",
        HALF_LIVES_DAYS,
    ),
    "power_law_last_event": Baseline(
        "power law, last event", lambda past, _: -np.log1p(past.recency)
    ),
    "exponential": Baseline(
        "exponential, all events",
        lambda past, days: np.log(past.summed(lambda age: np.exp2(-age / days)) + SMALLEST),
        "half-life {:g} days",
        HALF_LIVES_DAYS,
    ),
    "act_r": Baseline(
        "ACT-R base level",
        lambda past, d: np.log(past.summed(lambda age: (1 + age) ** -d)),
        "d = {:g}",
        POWERS,
    ),
    "recency_frequency_gap": Baseline("recency, frequency, gap, activity", _recency_frequency_gap),
    "recency_frequency_gap_popularity": Baseline("the same + popularity", _with_popularity),
    "recency_frequency_gap_stickiness": Baseline("the same + stickiness", _with_stickiness),
}
"""The built-in baselines: base rate, the article's formula in two readings, forgetting curves over
the newest event and over all (ACT-R: Σ (1 + age in days)^−d), and logistics on hand-made
features."""
