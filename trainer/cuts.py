"""The cuts of a log that forgetting is fitted on: what was known at each, and what came after."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ebbing.interest.standing import DAY_S, features
from trainer.data.log import EventLog
from trainer.return_prediction import Engagements, ReturnCases, cases_at
from trainer.standing import Moments, StandingAtCut, popularity_at, standing_at

CUTS = 12
"""Cuts fitted on at most."""


class FittingError(Exception):
    """A log the parameters cannot be fitted on; the message says what it lacks."""


@dataclass(frozen=True)
class Cut:
    """A moment, its cases, and everything the fit reads of them."""

    cases: ReturnCases
    at_cut: StandingAtCut
    popularity: np.ndarray
    """(names, rates) log share of each interest in everybody's attention."""
    ahead: np.ndarray
    """(T, 2) user index of the log and interest engaged within the horizon, each once."""
    number: int
    """Horizons it lies before the newest cut."""

    @property
    def interests(self) -> np.ndarray:
        """(C,) interest index of each case."""
        return self.cases.interests

    def features(self, default_gap_s: float) -> np.ndarray:
        """(C, F) those of retention, then the popularity of the interest at each rate."""
        known = features(self.at_cut.standing, self.cases.at, default_gap_s)[self.at_cut.case]
        return np.column_stack([known, self.popularity[self.interests]])

    def weight(self, cuts_to_half: float) -> float:
        """What each of its cases counts, where they count half after so many cuts."""
        weight: float = 0.5 ** (self.number / cuts_to_half)
        return weight


def cuts_of(log: EventLog, rows: Engagements, asked: Engagements, horizon_s: float) -> list[Cut]:
    """The cuts at which some cases returned and others did not, newest first, one at least.

    The newest possible lies one horizon before the newest engagement, the others one horizon apart
    before it.

    Args:
        log: all of it is read.
        rows: its engagements.
        asked: those the protocol asks about.
        horizon_s: seconds, above 0.

    Raises:
        FittingError: there is no such cut.
    """
    if not len(asked):
        raise FittingError(
            "forgetting cannot be learned from this log: no event tells an interest that few "
            "enough users share; give items with interests, finer ones"
        )
    end, begin = float(rows.times.max()), float(rows.times.min())
    if end - horizon_s < begin:
        raise FittingError(
            f"forgetting cannot be learned from this log: its engagements span "
            f"{(end - begin) / DAY_S:.1f} days, less than the horizon of {horizon_s / DAY_S:g}; "
            "give a longer log, or a shorter horizon"
        )
    moments = Moments.of(log)
    cuts: list[Cut] = []
    outcomes = np.zeros(0, bool)
    for number in range(CUTS):
        at = end - (number + 1) * horizon_s
        if at < begin:
            break
        cases = cases_at(asked, at, horizon_s)
        outcomes = np.concatenate([outcomes, cases.returned])
        if cases.returned.any() and not cases.returned.all():
            cuts.append(_cut(moments, rows, cases, number))
    if not cuts:
        raise FittingError(_all_alike(outcomes, horizon_s))
    return cuts


def usual_gap_of(cut: Cut, horizon_s: float) -> float:
    """Median gap of the interests that came again, seconds, a day at least; the horizon if none."""
    s, case = cut.at_cut.standing, cut.at_cut.case
    again = s.count[case] > 1
    if not again.any():
        return horizon_s
    gaps = (s.last[case] - s.first[case])[again] / (s.count[case][again] - 1)
    return max(float(np.median(gaps)), DAY_S)


def _cut(moments: Moments, rows: Engagements, cases: ReturnCases, number: int) -> Cut:
    at, width = cases.at, len(rows.names)
    ahead = (rows.times > at) & (rows.times <= at + cases.horizon_s)
    taken = np.unique(rows.pairs[ahead & np.isin(rows.users, cases.users)])
    return Cut(
        cases=cases,
        at_cut=standing_at(moments, rows, cases),
        popularity=popularity_at(rows, at),
        ahead=np.column_stack([taken // width, taken % width]),
        number=number,
    )


def _all_alike(outcomes: np.ndarray, horizon_s: float) -> str:
    """Why cuts of one outcome each cannot be learned from; (N,) the outcomes of them all."""
    if not len(outcomes):
        what = f"no user comes back within {horizon_s / DAY_S:g} days of any cut"
    else:
        which = "all" if outcomes.all() else "at each cut all or none" if outcomes.any() else "none"
        what = (
            f"of {len(outcomes)} user-interests {which} came back within {horizon_s / DAY_S:g} days"
        )
    return (
        f"forgetting cannot be learned from this log: {what}, so that there is nothing to tell "
        "apart; give a longer log, or another horizon"
    )
