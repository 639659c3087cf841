"""Offline evaluation of forgetting: the engine that ships, by return prediction, beside baselines.

The engine is fitted on the log up to the cut and on nothing after it. Its cases are then scored as
the gateway would score them at the cut, from the traces of each user's events so far.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from ebbing.interest.assessment import retention as retention_of
from ebbing.interest.forgetting import ForgettingParameters
from ebbing.interest.trace import TraceTable
from ebbing.progress import Reporter
from trainer.baselines import BASELINES, Past, predict
from trainer.data.log import EventLog
from trainer.data.replay import traced_events
from trainer.evaluation.protocol import EvaluationError
from trainer.forgetting import STEPS, fit_forgetting
from trainer.metrics import figures
from trainer.return_prediction import DAY_S, Engagements, ReturnCases, cut_of, exploded

PROTOCOL = (
    "return prediction: the cut is the 80 % quantile of engagement times; users engaged before it "
    "and within the horizon after it; every interest of theirs engaged before it is a case, "
    "positive if engaged again within the horizon; among more than 40 interests, those engaged by "
    "over 30 % of users are left out; all that is tunable is fitted on what lies before the cut"
)

Figures = dict[str, float | None]


@dataclass(frozen=True)
class ForgettingEvaluation:
    """Every case with its prediction, and the figures."""

    users: np.ndarray
    """(N,) user indexes of the log."""
    interests: tuple[str, ...]
    """The interest of each case."""
    returned: np.ndarray
    """(N,) bool."""
    retention: np.ndarray
    """(N,) what the engine says: probability of return."""
    count: np.ndarray
    """(N,) engagements up to the cut."""
    recency: np.ndarray
    """(N,) days since the newest one."""
    at: float
    """The cut, seconds since the epoch."""
    horizon_s: float
    """What retention is asked for, seconds."""
    outcomes_s: float
    """Seconds after the cut that outcomes are known of: the horizon, or less where the log ends."""
    version: str
    """Of the fitted forgetting parameters."""
    shipped: Figures
    """The engine's figures; see `trainer.metrics.figures`."""
    baselines: dict[str, Figures]
    """Those of `trainer.baselines.BASELINES`."""
    chosen: dict[str, float]
    """What baselines left open, as chosen at the earlier cut."""

    @property
    def shortened(self) -> str | None:
        """What is to be minded where the log ends within the horizon; None where it does not."""
        if self.outcomes_s >= self.horizon_s:
            return None
        return (
            f"the log ends {self.outcomes_s / DAY_S:.1f} days after its cut: returns later within "
            f"the {self.horizon_s / DAY_S:g} days asked for are missing from the outcomes, and "
            "predictions look too high by them"
        )

    def to_json(self) -> dict[str, object]:
        """The figures with what they are of."""
        return {
            "protocol": PROTOCOL,
            "horizon_days": self.horizon_s / DAY_S,
            "outcomes_days": self.outcomes_s / DAY_S,
            "cut": datetime.fromtimestamp(self.at, UTC).isoformat(),
            "base_rate": float(self.returned.mean()),
            "users": len(np.unique(self.users)),
            "forgetting_version": self.version,
            "shipped": self.shipped,
            "baselines": self.baselines,
            "baselines_chosen": self.chosen,
        }

    def scores_csv(self, user_ids: tuple[str, ...]) -> str:
        """`user_id,interest,retention`, a row a case, numbers to the last digit."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("user_id", "interest", "retention"))
        ids = (user_ids[user] for user in self.users.tolist())
        writer.writerows(zip(ids, self.interests, map(repr, self.retention.tolist()), strict=True))
        return text.getvalue()


def evaluate_forgetting(
    log: EventLog, horizon_s: float, version: str, reporter: Reporter
) -> ForgettingEvaluation:
    """Fit the engine before the cut and measure it after, beside every baseline.

    A log that ends within the horizon is measured by the outcomes it has.

    Args:
        log: all of it; what lies after the cut is only read for outcomes.
        horizon_s: seconds, above 0.
        version: what the fitted parameters are to be called.
        reporter: where progress is shown.

    Raises:
        EvaluationError: the log holds no case, or one outcome alone, at the cut or at all before.
        FittingError: the engine cannot be fitted on the log up to the cut.
    """
    if not 0 < horizon_s < float("inf"):
        raise EvaluationError("the horizon must be a number of days above 0")
    rows = _asked(log)
    at = _cut(rows, horizon_s)
    outcomes_s = min(horizon_s, float(log.times.max()) - at)
    now, earlier = _now(rows, at, horizon_s, outcomes_s), _earlier(rows, at, horizon_s)
    cases, past = now.cases, log.until(at)
    with reporter.stage("forgetting", STEPS, "steps") as stage:
        parameters = fit_forgetting(past, version, horizon_s, stage.advance).parameters
    with reporter.stage("retention", len(np.unique(cases.users)), "users") as stage:
        retention = served_retention(past, rows.names, cases, parameters, stage.advance)
    baselines: dict[str, Figures] = {}
    chosen: dict[str, float] = {}
    with reporter.stage("baselines", len(BASELINES), "baselines") as stage:
        for name, baseline in BASELINES.items():
            said = predict(baseline, earlier, now)
            baselines[name] = figures(said.score, said.probability, cases.returned, cases.users)
            if said.chosen is not None:
                chosen[name] = said.chosen
            stage.advance(1)
    return ForgettingEvaluation(
        users=cases.users,
        interests=tuple(rows.names[interest] for interest in cases.interests.tolist()),
        returned=cases.returned,
        retention=retention,
        count=now.count,
        recency=now.recency,
        at=at,
        horizon_s=horizon_s,
        outcomes_s=outcomes_s,
        version=version,
        shipped=figures(retention, retention, cases.returned, cases.users),
        baselines=baselines,
        chosen=chosen,
    )


def served_retention(
    past: EventLog,
    names: tuple[str, ...],
    cases: ReturnCases,
    parameters: ForgettingParameters,
    advance: Callable[[int], None] = lambda _: None,
) -> np.ndarray:
    """(N,) retention of cases by the code that serves, from the whole past of each user.

    Args:
        past: the log up to the cut, all its events: common interests and the like are what the
            gateway would know too.
        names: path of each interest index of the cases.
        cases: of `past`'s cut.
        parameters: of the engine.
        advance: told of users done.
    """
    retention = np.empty(len(cases))
    edges = np.flatnonzero(np.diff(cases.users)) + 1
    for own in np.split(np.arange(len(cases)), edges):
        user = int(cases.users[own[0]])
        events = traced_events(past, int(past.offsets[user]), int(past.offsets[user + 1]))
        table = TraceTable.from_events(events)
        place = {name: row for row, name in enumerate(table.names)}
        where = [place[names[interest]] for interest in cases.interests[own].tolist()]
        retention[own] = retention_of(table, cases.at, parameters)[where]
        advance(1)
    return retention


def _asked(log: EventLog) -> Engagements:
    engaged = exploded(log)
    if not len(engaged):
        raise EvaluationError(
            "no event of this log tells an interest: fill the column interests of its items, for "
            "items that users engage (impressions and dislikes leave no trace)"
        )
    rows = engaged.asked()
    if not len(rows):
        raise EvaluationError(
            "every interest is engaged by over 30 % of the users, so that none tells them apart: "
            "give a log of more users, or finer interests"
        )
    return rows


def _cut(rows: Engagements, horizon_s: float) -> float:
    """t0, before which there must be a horizon to learn from."""
    at, first = cut_of(rows), float(rows.times.min())
    if at - horizon_s < first:
        raise EvaluationError(
            f"a horizon of {horizon_s / DAY_S:g} days is longer than the "
            f"{(at - first) / DAY_S:.1f} days this log holds before its cut (the 80 % quantile of "
            "event times): shorten the horizon or give a longer log"
        )
    return at


def _now(rows: Engagements, at: float, horizon_s: float, outcomes_s: float) -> Past:
    """The cut that is measured, whose outcomes must not be all alike."""
    now = Past.of(rows, at, horizon_s)
    returned = now.cases.returned
    if returned.any() and not returned.all():
        return now
    known = "" if outcomes_s >= horizon_s else f", of which the log holds {outcomes_s / DAY_S:.1f}"
    raise EvaluationError(
        f"{_alike(returned)} within {horizon_s / DAY_S:g} days after the cut (the 80 % quantile of "
        f"event times){known}, so that there is nothing to tell apart: try another horizon or give "
        "a longer log"
    )


def _earlier(rows: Engagements, at: float, horizon_s: float) -> Past:
    """The cut that baselines are fitted at: the newest of those before with both outcomes."""
    first, before = float(rows.times.min()), at - horizon_s
    while before >= first:
        earlier = Past.of(rows, before, horizon_s)
        if earlier.cases.returned.any() and not earlier.cases.returned.all():
            return earlier
        before -= horizon_s
    newest = Past.of(rows, at - horizon_s, horizon_s).cases
    raise EvaluationError(
        f"{_alike(newest.returned)} within the {horizon_s / DAY_S:g} days before the cut (the 80 % "
        "quantile of event times), nor are there both outcomes earlier, so that there is nothing "
        "to learn from: try another horizon or give a longer log"
    )


def _alike(returned: np.ndarray) -> str:
    """Outcomes that are all alike, (N,), in words."""
    if not len(returned):
        return "no user known before comes back"
    return f"of {len(returned)} user-interests {'all' if returned.all() else 'none'} came back"
