"""Fits the forgetting parameters by return prediction, on cuts one horizon apart.

The newest cut lies one horizon before the end of the log. The parameters are first fitted without
it and measured on it, which also tells whether company helps on this log; then they are fitted on
all cuts, older ones counting less.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ebbing.interest.forgetting import ForgettingParameters
from ebbing.interest.population import Population
from ebbing.interest.standing import (
    DAY_S,
    FALLS_BY_WAITING,
    FEATURES,
    GROWS_BY_WAITING,
    SHARE_RATES,
    features,
)
from trainer.company import Company, Users, learn_company
from trainer.data.log import EventLog
from trainer.logistic import Logistic, fit_logistic, shift_to
from trainer.metrics import auc, log_loss
from trainer.return_prediction import (
    HORIZON_S,
    Engagements,
    ReturnCases,
    cases_at,
    exploded,
)
from trainer.standing import Moments, StandingAtCut, popularity_at, standing_at

CUTS = 12
"""Cuts fitted on at most."""
LEVEL_PERSISTS = 0.5
"""How much of what the newest cut's returns differ by from the fit is taken to last."""
ROUNDS = 2
"""Times company is learned on what the logistic leaves, and the logistic fitted beside it."""
HORIZONS_DAYS = (3.5, 7.0, 14.0, 30.0, 60.0, 90.0, 180.0, 365.0)
"""Horizons of the family, beside the one fitted, where the log is long enough."""
DIGITS = 6
"""Significant digits published."""

_SIGNS = np.zeros(len(FEATURES) + len(SHARE_RATES))
_SIGNS[list(GROWS_BY_WAITING)] = -1
_SIGNS[list(FALLS_BY_WAITING)] = 1


@dataclass(frozen=True)
class Restraint:
    """How little the fit believes."""

    ridge: float
    """Pull of the coefficients to 0, per squared standard deviation of their features."""
    interest_ridge: float
    """Pull of each interest's own record of returns to 0, per squared log-odds."""
    cuts_to_half: float
    """Cuts after which a case counts half."""


RESTRAINTS = (Restraint(1.0, 3.0, 6.0), Restraint(20.0, 10.0, 3.0))
"""What is tried on the newest cut: for logs that tell much, and for logs that tell little."""


class FittingError(Exception):
    """A log the parameters cannot be fitted on; the message says what it lacks."""


@dataclass(frozen=True)
class FittedForgetting:
    """The parameters and how well they predict."""

    parameters: ForgettingParameters
    metrics: dict[str, dict[str, float]]
    """in_sample: of the newest cut. held_out: the same cut, of parameters fitted without it; absent
    where the log holds no second cut. Each: cases, base_rate, auc, log_loss, base_log_loss."""


@dataclass(frozen=True)
class _Cut:
    """The cases of a cut as the fit reads them."""

    cases: ReturnCases
    at_cut: StandingAtCut
    popularity: np.ndarray
    """(names, rates)"""
    ahead: np.ndarray
    """(T, 2) user index of the log and interest engaged within the horizon, each once."""
    number: int
    """Horizons it lies before the newest cut."""

    @property
    def interests(self) -> np.ndarray:
        """(C,) interest index of each case."""
        return self.cases.interests

    def features(self, default_gap_s: float) -> np.ndarray:
        """(C, F) those of retention, then the popularity of the interest."""
        known = features(self.at_cut.standing, self.cases.at, default_gap_s)[self.at_cut.case]
        return np.column_stack([known, self.popularity[self.interests]])


@dataclass(frozen=True)
class _Model:
    """What is fitted: log-odds of the cases of any cut."""

    logistic: Logistic
    company: Company
    default_gap_s: float

    def log_odds(self, cut: _Cut) -> np.ndarray:
        """(C,)"""
        known = self.logistic.log_odds(cut.features(self.default_gap_s), cut.interests)
        if not self.company.says.shape[1]:
            return known
        return known + self.company.log_odds(_users([cut], [known], [1.0]))


def fit_forgetting(
    log: EventLog,
    version: str,
    horizon_s: float = HORIZON_S,
    advance: Callable[[int], None] = lambda _: None,
) -> FittedForgetting:
    """Fit on a log; deterministic on CPU.

    Args:
        log: all of it is read.
        version: what the parameters are to be called.
        horizon_s: seconds, above 0.
        advance: told of steps done, of `STEPS`.

    Raises:
        FittingError: at no cut did any case return, or every one did.
    """
    rows = exploded(log)
    asked = rows.asked()
    cuts = _cuts(log, rows, asked, horizon_s)
    advance(1)
    default_gap_s = _default_gap_s(cuts[0], horizon_s)
    metrics = {}
    n = len(rows.names)
    restraint, together = RESTRAINTS[-1], False
    if len(cuts) > 1:
        earlier, newest = cuts[1:], cuts[0]
        plain = [_plain(earlier, n, default_gap_s, each) for each in RESTRAINTS]
        losses = [_metrics(one.log_odds(newest), newest.cases.returned) for one in plain]
        best = int(np.argmin([figures["log_loss"] for figures in losses]))
        restraint = RESTRAINTS[best]
        advance(1)
        said = plain[best].log_odds(newest)
        heard = _with_company(plain[best], earlier, n, restraint).log_odds(newest)
        together = _helps(newest.cases, said, heard)
        metrics["held_out"] = _metrics(heard if together else said, newest.cases.returned)
        advance(1)
    model = _plain(cuts, n, default_gap_s, restraint)
    if together:
        model = _with_company(model, cuts, n, restraint)
    model = _at_newest_level(model, cuts[0])
    advance(1)
    log_odds = [model.log_odds(cut) for cut in cuts]
    metrics["in_sample"] = _metrics(log_odds[0], cuts[0].cases.returned)
    parameters = _published(
        model,
        cuts,
        rows,
        _family(asked, cuts, log_odds, restraint, horizon_s, float(rows.times.max())),
        float(rows.times.max()),
        horizon_s,
        version,
    )
    advance(1)
    return FittedForgetting(parameters, metrics)


STEPS = 5
"""Steps `fit_forgetting` tells of at most."""


def _cuts(log: EventLog, rows: Engagements, asked: Engagements, horizon_s: float) -> list[_Cut]:
    """Cuts with both outcomes, newest first."""
    if not len(asked):
        raise FittingError(
            "forgetting cannot be learned from this log: no event tells an interest that few "
            "enough users share; give items with interests, finer ones"
        )
    end, begin = float(rows.times.max()), float(rows.times.min())
    moments = Moments.of(log)
    cuts: list[_Cut] = []
    n_cases = n_returned = 0
    for number in range(CUTS):
        at = end - (number + 1) * horizon_s
        if at < begin:
            break
        cases = cases_at(asked, at, horizon_s)
        n_cases, n_returned = n_cases + len(cases), n_returned + int(cases.returned.sum())
        if not cases.returned.any() or cases.returned.all():
            continue
        ahead = (rows.times > at) & (rows.times <= at + horizon_s)
        width = len(rows.names)
        taken = np.unique(rows.pairs[ahead & np.isin(rows.users, cases.users)])
        cuts.append(
            _Cut(
                cases=cases,
                at_cut=standing_at(moments, rows, cases),
                popularity=popularity_at(rows, at),
                ahead=np.column_stack([taken // width, taken % width]),
                number=number,
            )
        )
    if not cuts:
        raise FittingError(
            f"forgetting cannot be learned from this log: of {n_cases} user-interests "
            f"{'all' if n_cases and n_returned else 'none'} came back within "
            f"{horizon_s / DAY_S:g} days; give a longer log, whose items carry interests"
        )
    return cuts


def _default_gap_s(cut: _Cut, horizon_s: float) -> float:
    s, case = cut.at_cut.standing, cut.at_cut.case
    again = s.count[case] > 1
    if not again.any():
        return horizon_s
    gaps = (s.last[case] - s.first[case])[again] / (s.count[case][again] - 1)
    return max(float(np.median(gaps)), DAY_S)


def _plain(
    cuts: Sequence[_Cut], n_interests: int, default_gap_s: float, restraint: Restraint
) -> _Model:
    logistic = _logistic(cuts, n_interests, default_gap_s, restraint, 0.0)
    return _Model(logistic, Company.none(n_interests), default_gap_s)


def _with_company(
    plain: _Model, cuts: Sequence[_Cut], n_interests: int, restraint: Restraint
) -> _Model:
    """Learn company on what the logistic leaves, and fit that anew beside it."""
    model, gap_s = plain, plain.default_gap_s
    weights = [_weight(cut, restraint) for cut in cuts]
    for _ in range(ROUNDS):
        known = [model.logistic.log_odds(cut.features(gap_s), cut.interests) for cut in cuts]
        users = _users(cuts, known, weights)
        company = learn_company(users, n_interests, seed=0)
        logistic = _logistic(cuts, n_interests, gap_s, restraint, company.log_odds(users))
        model = _Model(logistic, company, gap_s)
    return model


def _weight(cut: _Cut, restraint: Restraint) -> float:
    weight: float = 0.5 ** (cut.number / restraint.cuts_to_half)
    return weight


def _logistic(
    cuts: Sequence[_Cut],
    n_interests: int,
    default_gap_s: float,
    restraint: Restraint,
    offset: np.ndarray | float,
) -> Logistic:
    return fit_logistic(
        np.concatenate([cut.features(default_gap_s) for cut in cuts]),
        np.concatenate([cut.interests for cut in cuts]),
        np.concatenate([cut.cases.returned for cut in cuts]),
        np.concatenate([np.full(len(cut.cases), _weight(cut, restraint)) for cut in cuts]),
        _SIGNS,
        n_interests,
        restraint.ridge,
        restraint.interest_ridge,
        offset,
    )


def _at_newest_level(model: _Model, newest: _Cut) -> _Model:
    """How readily users return at all comes and goes; the newest cut tells most of where it is."""
    log_odds = model.log_odds(newest)
    weight = np.ones(len(log_odds))
    moved = shift_to(log_odds, weight, float(newest.cases.returned.sum()))
    intercept = model.logistic.intercept + LEVEL_PERSISTS * moved
    return replace(model, logistic=replace(model.logistic, intercept=intercept))


def _users(cuts: Sequence[_Cut], known: Sequence[np.ndarray], weights: Sequence[float]) -> Users:
    """The users of all cuts, one after the other."""
    parts: list[tuple[np.ndarray, ...]] = []
    users = rows = 0
    for cut, log_odds, weight in zip(cuts, known, weights, strict=True):
        s = cut.at_cut.standing
        present = np.unique(cut.cases.users)
        attention = s.attention[:, 0]
        length = np.sqrt(np.bincount(s.owner, attention**2, len(present)))
        parts.append(
            (
                s.owner + users,
                cut.at_cut.interests,
                attention / np.maximum(length[s.owner], np.finfo(np.float64).tiny),
                cut.at_cut.case + rows,
                cut.cases.returned,
                log_odds,
                np.full(len(cut.cases), weight),
                np.searchsorted(present, cut.ahead[:, 0]) + users,
                cut.ahead[:, 1],
                np.full(len(present), weight),
            )
        )
        users, rows = users + len(present), rows + len(s.owner)
    return Users(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _helps(cases: ReturnCases, plain: np.ndarray, heard: np.ndarray) -> bool:
    """Whether company lowers the loss of users by more than its standard error."""
    y = cases.returned
    gain = np.logaddexp(0.0, plain) - y * plain - np.logaddexp(0.0, heard) + y * heard
    _, user = np.unique(cases.users, return_inverse=True)
    per_user = np.bincount(user, gain)
    error = per_user.std() / np.sqrt(len(per_user))
    return bool(per_user.mean() > error)


def _family(
    asked: Engagements,
    cuts: Sequence[_Cut],
    log_odds: Sequence[np.ndarray],
    restraint: Restraint,
    horizon_s: float,
    end: float,
) -> tuple[tuple[float, float], ...]:
    """Horizons and what each adds to the log-odds: the same users, counted up to other moments.

    Only cuts whose outcome the log holds whole count. By McCullagh's proportional odds one number
    a horizon is left open; it grows with the horizon, for so do the returns.
    """
    shifts = {horizon_s: 0.0}
    for days in HORIZONS_DAYS:
        other = days * DAY_S
        whole = [i for i, cut in enumerate(cuts) if cut.cases.at + other <= end]
        if not whole or other == horizon_s:
            continue
        z = np.concatenate([log_odds[i] for i in whole])
        weight = np.concatenate(
            [np.full(len(cuts[i].cases), _weight(cuts[i], restraint)) for i in whole]
        )
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
    return tuple(zip(seconds.tolist(), [_rounded(a) for a in added.tolist()], strict=True))


def _returned_within(asked: Engagements, cases: ReturnCases, horizon_s: float) -> np.ndarray:
    pairs = cases.users * max(len(asked.names), 1) + cases.interests
    ahead = (asked.times > cases.at) & (asked.times <= cases.at + horizon_s)
    returned: np.ndarray = np.isin(pairs, asked.pairs[ahead])
    return returned


def _published(
    model: _Model,
    cuts: Sequence[_Cut],
    rows: Engagements,
    horizons: tuple[tuple[float, float], ...],
    now: float,
    horizon_s: float,
    version: str,
) -> ForgettingParameters:
    """The model as of the end of the log, told against the typical case of the newest cut."""
    newest = cuts[0].features(model.default_gap_s)
    typical = newest.mean(axis=0)
    n = len(FEATURES)
    coefficients = model.logistic.coefficients
    of_popularity, typical_popularity = coefficients[n:], typical[n:]
    today = (popularity_at(rows, now) - typical_popularity) @ of_popularity
    total = float(np.exp(-popularity_at(rows, now)).max())
    engaged = np.zeros(len(rows.names), bool)
    engaged[rows.interests] = True
    nobody = (-np.log(total) - typical_popularity) @ of_popularity if not engaged.all() else None
    company = model.company
    return ForgettingParameters(
        horizon_s=horizon_s,
        base=_rounded(float(model.logistic.intercept + typical @ coefficients)),
        typical=_all_rounded(typical[:n]),
        coefficients=_all_rounded(coefficients[:n]),
        default_gap_s=model.default_gap_s,
        horizons=horizons,
        population=Population(
            names=tuple(name for name, seen in zip(rows.names, engaged, strict=True) if seen),
            popularity=np.array(_all_rounded(today[engaged])),
            returns=np.array(_all_rounded(model.logistic.effects[engaged])),
            says=_rounded_array(company.says[engaged]),
            hears=_rounded_array(company.hears[engaged]),
            unknown_popularity=float(nobody) if nobody is not None else float(today.min()),
        ),
        version=version,
    )


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _all_rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(_rounded(value) for value in values.tolist())


def _rounded_array(values: np.ndarray) -> np.ndarray:
    return np.array(_all_rounded(values.ravel())).reshape(values.shape)


def _metrics(log_odds: np.ndarray, returned: np.ndarray) -> dict[str, float]:
    base = float(returned.mean())
    predicted = 1.0 / (1.0 + np.exp(-log_odds))
    return {
        "cases": len(returned),
        "base_rate": base,
        "auc": auc(predicted, returned),
        "log_loss": log_loss(predicted, returned),
        "base_log_loss": log_loss(np.full(len(predicted), base), returned),
    }
