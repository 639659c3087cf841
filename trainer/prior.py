"""The coefficients to expect of a log, as learned from other logs.

A log that holds little cannot tell its coefficients well; those that several logs have in common
tell them better than none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ebbing.interest.standing import FALLS_BY_WAITING, FEATURES, GROWS_BY_WAITING, SHARE_RATES
from trainer.cuts import Cut, cuts_of, usual_gap_of
from trainer.data.log import EventLog
from trainer.logistic import fit_logistic
from trainer.return_prediction import HORIZON_S, exploded

COLUMNS = (*FEATURES, "long_popularity", "medium_popularity", "short_popularity")
"""What has a coefficient: the features of retention, then popularity at `SHARE_RATES`."""
SHARES = ("long_share", "medium_share", "short_share", "event_share")

PRIOR = {
    "frequency": -0.14,
    "once": -0.473,
    "recency": 0.0,
    "gap": -0.232,
    "overdue": -0.208,
    "long_share": 0.275,
    "medium_share": 0.0,
    "short_share": 0.105,
    "event_share": 0.563,
    "activity": 0.103,
    "recent_activity": 0.595,
    "breadth": 0.243,
    "repetition": 0.262,
    "steadiness": -0.0804,
    "absence": 0.0,
    "long_popularity": -0.159,
    "medium_popularity": 0.0667,
    "short_popularity": 0.4,
}
"""Log-odds a unit of each of `COLUMNS`, as `benchmarks/prior.py` learned them by `learn_prior` from
five public logs (reviews, groceries, ratings, and two of check-ins): of what lies before the cut
that evaluation measures, and of nothing after."""

CASES_A_LOG = 3000.0
"""What the cases of each log count together, however many there are."""
CUTS_TO_HALF = 6.0
"""Cuts after which a case counts half."""
RIDGE, INTEREST_RIDGE = 1.0, 10.0
"""Pull of the coefficients, and of each interest's own record of returns, to 0."""


def _signs() -> np.ndarray:
    signs = np.zeros(len(FEATURES) + len(SHARE_RATES))
    signs[list(GROWS_BY_WAITING)] = -1
    signs[list(FALLS_BY_WAITING)] = 1
    # The shares tell much the same. Left alone they would share it out among them with opposite
    # signs, which predicts no better, and explanations would hold it against an interest to be
    # attended to.
    signs[[FEATURES.index(name) for name in SHARES]] = 1
    return signs


SIGNS = _signs()
"""Sign each of `COLUMNS` must not be against: −1, 1, or 0 for either."""


def coefficients_of(named: Mapping[str, float]) -> np.ndarray:
    """(F,) in the order of `COLUMNS`."""
    return np.array([named[name] for name in COLUMNS])


def learn_prior(logs: Sequence[EventLog], horizon_s: float = HORIZON_S) -> dict[str, float]:
    """One logistic for several logs, each of which counts the same and has a level of its own.

    Args:
        logs: one at least; all of each is read.
        horizon_s: seconds, above 0.

    Raises:
        FittingError: a log holds no cut at which some cases returned and others did not.
    """
    features, interests, returned, weights = [], [], [], []
    known = 0
    for number, log in enumerate(logs):
        rows = exploded(log)
        cuts = cuts_of(log, rows, rows.asked(), horizon_s)
        gap_s = usual_gap_of(cuts[0], horizon_s)
        own = np.concatenate([cut.features(gap_s) for cut in cuts])
        level = np.zeros((len(own), len(logs) - 1))
        level[:, number : number + 1] = 1.0  # none of the last, whose level is the intercept
        features.append(np.column_stack([own, level]))
        interests.append(known + np.concatenate([cut.interests for cut in cuts]))
        returned.append(np.concatenate([cut.cases.returned for cut in cuts]))
        weight = case_weights(cuts, CUTS_TO_HALF)
        weights.append(weight * (CASES_A_LOG / weight.sum()))
        known += len(rows.names)
    fitted = fit_logistic(
        np.concatenate(features),
        np.concatenate(interests),
        np.concatenate(returned),
        np.concatenate(weights),
        np.concatenate([SIGNS, np.zeros(len(logs) - 1)]),
        known,
        RIDGE,
        INTEREST_RIDGE,
    )
    return dict(zip(COLUMNS, fitted.coefficients.tolist(), strict=False))


def case_weights(cuts: Sequence[Cut], cuts_to_half: float) -> np.ndarray:
    """What each case of some cuts counts, one cut after the other."""
    return np.concatenate([np.full(len(cut.cases), cut.weight(cuts_to_half)) for cut in cuts])
