"""Fits the forgetting parameters by return prediction, on cuts one horizon apart.

The newest cut lies one horizon before the end of the log. The parameters are first fitted without
it and measured on it, which also tells how little the fit is to believe and whether company helps
on this log; then they are fitted on all cuts, older ones counting less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ebbing.interest.forgetting import ForgettingParameters
from ebbing.interest.population import Population
from ebbing.interest.standing import FEATURES
from trainer.company import Caution, Company, Users, learn_company
from trainer.cuts import Cut, cuts_of, usual_gap_of
from trainer.data.log import EventLog
from trainer.horizons import horizon_family
from trainer.logistic import Logistic, fit_logistic, shift_to
from trainer.metrics import auc, log_loss
from trainer.prior import PRIOR, SIGNS, case_weights, coefficients_of
from trainer.return_prediction import HORIZON_S, Engagements, ReturnCases, exploded
from trainer.standing import popularity_at

LEVEL_PERSISTS = 0.5
"""How much of what the newest cut's returns differ by from the fit is taken to last."""
ROUNDS = 2
"""Times company is learned on what the logistic leaves, and the logistic fitted beside it."""
STEPS = 5
"""Steps `fit_forgetting` tells of."""
DIGITS = 6
"""Significant digits published."""


@dataclass(frozen=True)
class Restraint:
    """How little the fit believes."""

    ridge: float
    """Pull of the coefficients, per squared standard deviation of their features."""
    interest_ridge: float
    """Pull of each interest's own record of returns to 0, per squared log-odds."""
    cuts_to_half: float
    """Cuts after which a case counts half."""
    to_prior: bool = False
    """Whether the coefficients are pulled to what other logs say of them, and not to 0."""


RESTRAINTS = (
    Restraint(1.0, 3.0, 6.0),
    Restraint(20.0, 10.0, 3.0),
    Restraint(2000.0, 10.0, 3.0, to_prior=True),
    Restraint(100.0, 10.0, 3.0, to_prior=True),
)
"""What is tried on the newest cut: for logs that tell much, that tell less, and that are better
told by others. The last is taken for a log of one cut."""


CAUTIONS = (Caution(1.0, 0.3), Caution(20.0, 1.0))
"""What is tried of company: for logs where returns tell enough of it, and for those where little
is to be believed, and rather what the user turns to at all."""


@dataclass(frozen=True)
class FittedForgetting:
    """The parameters and how well they predict."""

    parameters: ForgettingParameters
    metrics: dict[str, dict[str, float]]
    """in_sample: of the newest cut. held_out: the same cut, of parameters fitted without it; absent
    where the log holds no second cut. Each: cases, base_rate, auc, log_loss,
    base_log_loss."""


@dataclass(frozen=True)
class _Model:
    """What is fitted: log-odds of the cases of any cut."""

    logistic: Logistic
    company: Company
    default_gap_s: float

    def log_odds(self, cut: Cut) -> np.ndarray:
        """(C,)"""
        known = self.alone(cut)
        return known + self.company.log_odds(_users([cut], [known], [1.0]))

    def alone(self, cut: Cut) -> np.ndarray:
        """(C,) without company."""
        return self.logistic.log_odds(cut.features(self.default_gap_s), cut.interests)


@dataclass(frozen=True)
class _Fitting:
    """Fits models on some cuts of a log, always alike."""

    n_interests: int
    default_gap_s: float
    prior: np.ndarray | None
    """(F,) coefficients that other logs tell."""

    @property
    def restraints(self) -> list[Restraint]:
        """Those that can be tried."""
        return [one for one in RESTRAINTS if self.prior is not None or not one.to_prior]

    def plain(self, cuts: Sequence[Cut], restraint: Restraint) -> _Model:
        """A model without company."""
        logistic = self._logistic(cuts, restraint, 0.0)
        return _Model(logistic, Company.none(self.n_interests), self.default_gap_s)

    def with_company(
        self, plain: _Model, cuts: Sequence[Cut], restraint: Restraint, caution: Caution
    ) -> _Model:
        """Learn company on what the logistic leaves, and fit that anew beside it."""
        model = plain
        weights = [cut.weight(restraint.cuts_to_half) for cut in cuts]
        for _ in range(ROUNDS):
            users = _users(cuts, [model.alone(cut) for cut in cuts], weights)
            company = learn_company(users, self.n_interests, caution, seed=0)
            logistic = self._logistic(cuts, restraint, company.log_odds(users))
            model = replace(model, logistic=logistic, company=company)
        return model

    def _logistic(
        self, cuts: Sequence[Cut], restraint: Restraint, offset: np.ndarray | float
    ) -> Logistic:
        return fit_logistic(
            np.concatenate([cut.features(self.default_gap_s) for cut in cuts]),
            np.concatenate([cut.interests for cut in cuts]),
            np.concatenate([cut.cases.returned for cut in cuts]),
            case_weights(cuts, restraint.cuts_to_half),
            SIGNS,
            self.n_interests,
            restraint.ridge,
            restraint.interest_ridge,
            offset,
            self.prior if self.prior is not None and restraint.to_prior else 0.0,
        )


def fit_forgetting(
    log: EventLog,
    version: str,
    horizon_s: float = HORIZON_S,
    advance: Callable[[int], None] = lambda _: None,
    prior: Mapping[str, float] | None = PRIOR,
) -> FittedForgetting:
    """Fit on a log; deterministic on CPU.

    Args:
        log: all of it is read.
        version: what the parameters are to be called.
        horizon_s: seconds, above 0.
        advance: told of steps done, of `STEPS`.
        prior: what other logs tell of the coefficients; see `trainer.prior`. None: nothing.

    Raises:
        FittingError: the log holds no cut at which some cases returned and others did not.
    """
    rows = exploded(log)
    asked = rows.asked()
    cuts = cuts_of(log, rows, asked, horizon_s)
    advance(1)
    newest, end = cuts[0], float(rows.times.max())
    expected = None if prior is None else coefficients_of(prior)
    fitting = _Fitting(len(rows.names), usual_gap_of(newest, horizon_s), expected)
    metrics = {}
    restraint, caution = fitting.restraints[-1], None
    if len(cuts) > 1:
        restraint, caution, metrics["held_out"] = _chosen(fitting, cuts[1:], newest)
    advance(2)
    model = fitting.plain(cuts, restraint)
    if caution is not None:
        model = fitting.with_company(model, cuts, restraint, caution)
    model = _at_level_of(newest, model)
    advance(1)
    log_odds = [model.log_odds(cut) for cut in cuts]
    metrics["in_sample"] = _metrics(log_odds[0], newest.cases.returned)
    weights = [cut.weight(restraint.cuts_to_half) for cut in cuts]
    horizons = horizon_family(asked, cuts, log_odds, weights, horizon_s, end)
    parameters = _published(model, newest, rows, horizons, end, version)
    advance(1)
    return FittedForgetting(parameters, metrics)


def _chosen(
    fitting: _Fitting, earlier: Sequence[Cut], newest: Cut
) -> tuple[Restraint, Caution | None, dict[str, float]]:
    """Which restraint does best on the newest cut, which company if any helps, and the figures."""
    returned = newest.cases.returned
    tried = []
    for restraint in fitting.restraints:
        model = fitting.plain(earlier, restraint)
        said = model.log_odds(newest)
        tried.append((_loss_at_level(said, returned), said, model, restraint))
    _, said, plain, restraint = min(tried, key=lambda one: one[0])
    believed = []
    for caution in CAUTIONS:
        heard = fitting.with_company(plain, earlier, restraint, caution).log_odds(newest)
        if _helps(newest.cases, said, heard):
            believed.append((_loss_at_level(heard, returned), heard, caution))
    if not believed:
        return restraint, None, _metrics(said, returned)
    _, heard, caution = min(believed, key=lambda one: one[0])
    return restraint, caution, _metrics(heard, returned)


def _loss_at_level(log_odds: np.ndarray, returned: np.ndarray) -> float:
    """Log loss where the level is right: that of a cut comes and goes, whatever the restraint."""
    return _metrics(log_odds + _missing(log_odds, returned), returned)["log_loss"]


def _missing(log_odds: np.ndarray, returned: np.ndarray) -> float:
    """What the level of log-odds is short of for as many returns as there were."""
    return shift_to(log_odds, np.ones(len(log_odds)), float(returned.sum()))


def _helps(cases: ReturnCases, plain: np.ndarray, heard: np.ndarray) -> bool:
    """Whether company lowers the loss of users by more than its standard error."""
    y = cases.returned
    gain = np.logaddexp(0.0, plain) - y * plain - np.logaddexp(0.0, heard) + y * heard
    _, user = np.unique(cases.users, return_inverse=True)
    per_user = np.bincount(user, gain)
    error = per_user.std() / np.sqrt(len(per_user))
    return bool(per_user.mean() > error)


def _at_level_of(newest: Cut, model: _Model) -> _Model:
    """How readily users return at all comes and goes; the newest cut tells most of where it is."""
    missing = _missing(model.log_odds(newest), newest.cases.returned)
    intercept = model.logistic.intercept + LEVEL_PERSISTS * missing
    return replace(model, logistic=replace(model.logistic, intercept=intercept))


def _users(cuts: Sequence[Cut], known: Sequence[np.ndarray], weights: Sequence[float]) -> Users:
    """The users of all cuts, one after the other."""
    return Users.all_of(
        Users.of(
            owner=cut.at_cut.standing.owner,
            interests=cut.at_cut.interests,
            attention=cut.at_cut.standing.attention[:, 0],
            case=cut.at_cut.case,
            returned=cut.cases.returned,
            known=log_odds,
            chooser=np.searchsorted(np.unique(cut.cases.users), cut.ahead[:, 0]),
            chosen=cut.ahead[:, 1],
            weight=weight,
        )
        for cut, log_odds, weight in zip(cuts, known, weights, strict=True)
    )


def _published(
    model: _Model,
    newest: Cut,
    rows: Engagements,
    horizons: Iterable[tuple[float, float]],
    end: float,
    version: str,
) -> ForgettingParameters:
    """The model as of the end of the log, told against the typical case of the newest cut."""
    n = len(FEATURES)
    typical = newest.features(model.default_gap_s).mean(axis=0)
    coefficients = model.logistic.coefficients
    of_popularity, typical_popularity = coefficients[n:], typical[n:]
    log_shares = popularity_at(rows, end)
    popularity = (log_shares - typical_popularity) @ of_popularity
    engaged = np.zeros(len(rows.names), bool)
    engaged[rows.interests] = True
    # Where the catalogue holds no interest that nobody engaged, the least of the others stands in.
    strangers = popularity[~engaged] if not engaged.all() else popularity
    company = model.company
    return ForgettingParameters(
        horizon_s=newest.cases.horizon_s,
        base=_rounded(float(model.logistic.intercept + typical @ coefficients)),
        typical=_all_rounded(typical[:n]),
        coefficients=_all_rounded(coefficients[:n]),
        default_gap_s=model.default_gap_s,
        horizons=tuple((seconds, _rounded(added)) for seconds, added in horizons),
        population=Population(
            names=tuple(name for name, seen in zip(rows.names, engaged, strict=True) if seen),
            popularity=_rounded_array(popularity[engaged]),
            returns=_rounded_array(model.logistic.effects[engaged]),
            says=_rounded_array(company.says[engaged]),
            hears=_rounded_array(company.hears[engaged]),
            unknown_popularity=_rounded(float(strangers.min())),
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
