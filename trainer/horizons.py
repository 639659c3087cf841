"""The family of horizons: what asking further ahead adds to the log-odds of a return."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ebbing.interest.standing import DAY_S
from trainer.cuts import Cut
from trainer.logistic import shift_to
from trainer.return_prediction import Engagements, ReturnCases

HORIZONS_DAYS = (3.5, 7.0, 14.0, 30.0, 60.0, 90.0, 180.0, 365.0)
"""Horizons of the family, beside the one fitted, where the log is long enough."""


def horizon_family(
    asked: Engagements,
    cuts: Sequence[Cut],
    log_odds: Sequence[np.ndarray],
    weights: Sequence[float],
    horizon_s: float,
    end: float,
) -> tuple[tuple[float, float], ...]:
    """Horizons and what each adds to the log-odds: the same users, counted up to other moments.

    Only cuts whose outcome the log holds whole count. By McCullagh's proportional odds one number
    a horizon is left open; it grows with the horizon, for so do the returns.

    Args:
        asked: engagements the protocol asks about.
        cuts: of the log.
        log_odds: of the cases of each cut, (C,) each.
        weights: of a case of each cut.
        horizon_s: the horizon fitted, seconds.
        end: of the log, seconds since the epoch.
    """
    shifts = {horizon_s: 0.0}
    for days in HORIZONS_DAYS:
        other = days * DAY_S
        whole = [i for i, cut in enumerate(cuts) if cut.cases.at + other <= end]
        if not whole or other == horizon_s:
            continue
        z = np.concatenate([log_odds[i] for i in whole])
        weight = np.concatenate([np.full(len(log_odds[i]), weights[i]) for i in whole])
        # Against what the same cases did within the horizon fitted, so that their mean error
        # there moves no other horizon.
        mine, theirs = (
            np.concatenate([_returned_within(asked, cuts[i].cases, seconds) for i in whole])
            for seconds in (horizon_s, other)
        )
        shifts[other] = shift_to(z, weight, float(weight @ theirs)) - shift_to(
            z, weight, float(weight @ mine)
        )
    seconds = np.array(sorted(shifts))
    added = np.array([shifts[s] for s in seconds.tolist()])
    longer = seconds >= horizon_s
    added[longer] = np.maximum.accumulate(added[longer])
    added[~longer] = np.minimum(np.maximum.accumulate(added[~longer]), 0.0)
    return tuple(zip(seconds.tolist(), added.tolist(), strict=True))


def _returned_within(asked: Engagements, cases: ReturnCases, horizon_s: float) -> np.ndarray:
    """(C,) bool: engaged again within another horizon than the cases'."""
    pairs = cases.users * max(len(asked.names), 1) + cases.interests
    ahead = (asked.times > cases.at) & (asked.times <= cases.at + horizon_s)
    returned: np.ndarray = np.isin(pairs, asked.pairs[ahead])
    return returned
