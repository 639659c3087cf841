"""Learns what to expect of a log from other logs, and measures what that is worth to each.

Of every log, what lies before its cut of return prediction is read, and nothing after. First the
prior of all logs is printed, as `trainer/prior.py` holds it. Then each log is fitted as of earlier
cuts, one horizon apart, and scored there: without a prior, with that of the other logs alone, and
with that of all, so that what a log itself brought to the prior is told apart. With --users, the
fit sees no more than so many of those who came back, as where a service has just begun.

Run it from the project root: python -m benchmarks.prior DIR DIR [DIR …]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.record import circumstances, keep
from trainer.data.log import EventLog, read_log
from trainer.evaluate_forgetting import served_retention
from trainer.forgetting import fit_forgetting
from trainer.metrics import figures
from trainer.prior import learn_prior
from trainer.return_prediction import HORIZON_S, cases_at, cut_of, exploded

FIGURES = ("auc", "user_auc", "log_loss")
DIGITS = 3
"""Significant digits of the prior: it is a rough expectation."""


def before_cut(log: EventLog) -> EventLog:
    """What return prediction fits on."""
    return log.until(cut_of(exploded(log).asked()))


def rounded(prior: Mapping[str, float]) -> dict[str, float]:
    """As it is written down."""
    return {name: float(f"{value:.{DIGITS}g}") for name, value in prior.items()}


def of_few(log: EventLog, at: float, users: int) -> EventLog:
    """The events up to a cut of users drawn among those who came back in the horizon before it."""
    before = cases_at(exploded(log).asked(), at - HORIZON_S, HORIZON_S)
    drawn = np.random.default_rng(0).permutation(np.unique(before.users))[:users]
    past = log.until(at)
    return past.without(np.flatnonzero(~np.isin(past.users, drawn)))


def figures_at(
    log: EventLog, at: float, prior: Mapping[str, float] | None, users: int | None
) -> list[float | None]:
    """`FIGURES` of a cut, fitted on what lies before."""
    past, rows = log.until(at), exploded(log)
    cases = cases_at(rows.asked(), at, HORIZON_S)
    seen = of_few(log, at, users) if users else past
    parameters = fit_forgetting(seen, "benchmark", prior=prior).parameters
    retention = served_retention(past, rows.names, cases, parameters)
    told = figures(retention, retention, cases.returned, cases.users)
    return [told[name] for name in FIGURES]


def worth(
    log: EventLog,
    cuts: Sequence[int],
    priors: Mapping[str, Mapping[str, float] | None],
    users: int | None,
) -> dict[str, dict[str, float]]:
    """Mean figures over cuts so many horizons before that of return prediction, prior by prior."""
    at = cut_of(exploded(log).asked())
    found = {}
    for name, prior in priors.items():
        table = [figures_at(log, at - cut * HORIZON_S, prior, users) for cut in cuts]
        found[name] = dict(zip(FIGURES, np.mean(table, axis=0).tolist(), strict=True))
    return found


def main() -> None:
    """Learn, measure and keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("logs", nargs="+", type=Path, help="folders of logs, two at least")
    parser.add_argument(
        "--cuts", nargs="*", type=int, default=[1, 3, 5], help="horizons before the cut"
    )
    parser.add_argument("--users", type=int, help="users the fit may see; all if not given")
    parser.add_argument("--out", type=Path, help="file to keep the result in")
    options = parser.parse_args()
    logs = {folder.name: read_log(folder) for folder in options.logs}
    pasts = {name: before_cut(log) for name, log in logs.items()}
    prior = rounded(learn_prior(list(pasts.values())))
    for name, value in prior.items():
        print(f'    "{name}": {value},')
    results = {}
    for name, log in logs.items() if options.cuts else ():
        others = rounded(learn_prior([past for other, past in pasts.items() if other != name]))
        priors = {"none": None, "of the others": others, "of all": prior}
        results[name] = worth(log, options.cuts, priors, options.users)
        for which, means in results[name].items():
            line = " / ".join(f"{means[figure]:.4f}" for figure in FIGURES)
            print(f"{name:12} prior {which:14} {line}", flush=True)
    asked = {"prior": prior, "cuts": options.cuts, "users": options.users}
    keep({**circumstances(), **asked, "logs": results}, options.out)


if __name__ == "__main__":
    main()
