"""How well retention predicts returns, log by log, beside known forgetting curves.

Each log is evaluated as `ebbing evaluate forgetting` does: the engine is fitted on what lies before
the cut and scored by the code that serves. The table shows the engine and the best of the built-in
baselines, figure by figure, each with the baseline's name.

One cut of a small log tells little. With `--cuts N` the engine is measured at N cuts before that
one, each a horizon before the next, fitted on nothing after each, beside the logistics on hand-made
features, which are fitted a horizon earlier, as ever; the cut that evaluation measures is left out.

Run it from the project root: python -m benchmarks.forgetting [--cuts 5] DIR [DIR …]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.record import circumstances, keep
from ebbing.progress import Reporter
from trainer.baselines import BASELINES, Past, predict
from trainer.data.log import read_log
from trainer.evaluate_forgetting import evaluate_forgetting, served_retention
from trainer.forgetting import fit_forgetting
from trainer.metrics import figures
from trainer.return_prediction import DAY_S, cut_of, exploded

BEST: dict[str, Callable[..., Any]] = {"auc": max, "user_auc": max, "log_loss": min}
"""Figures shown, and which of two is better."""
LOGISTICS = [name for name in BASELINES if name.startswith("recency_frequency_gap")]


def measured(folder: Path, horizon_days: float) -> dict[str, Any]:
    """What evaluation says of a log, with the seconds it took."""
    start = time.perf_counter()
    found = evaluate_forgetting(read_log(folder), horizon_days * DAY_S, "benchmark", Reporter())
    return {**found.to_json(), "seconds": round(time.perf_counter() - start, 1)}


def at_earlier_cuts(folder: Path, horizon_days: float, cuts: int) -> dict[str, Any]:
    """The engine's figures and those of `LOGISTICS` at cuts before evaluation's, newest first."""
    log, horizon_s = read_log(folder), horizon_days * DAY_S
    rows = exploded(log).asked()
    found: dict[str, list[dict[str, float | None]]] = {}
    for number in range(1, cuts + 1):
        at = cut_of(rows) - number * horizon_s
        now, earlier = Past.of(rows, at, horizon_s), Past.of(rows, at - horizon_s, horizon_s)
        past, cases = log.until(at), now.cases
        parameters = fit_forgetting(past, "benchmark", horizon_s).parameters
        said = served_retention(past, rows.names, cases, parameters)
        found.setdefault("engine", []).append(figures(said, said, cases.returned, cases.users))
        for name in LOGISTICS:
            other = predict(BASELINES[name], earlier, now)
            told = figures(other.score, other.probability, cases.returned, cases.users)
            found.setdefault(name, []).append(told)
    return {
        name: {figure: [round(one[figure] or 0.0, 5) for one in each] for figure in BEST}
        for name, each in found.items()
    }


def show_cuts(name: str, result: dict[str, Any]) -> None:
    """One line a contender: means over the cuts."""
    for contender, told in result.items():
        means = "  ".join(f"{figure} {mean(told[figure]):.4f}" for figure in BEST)
        print(f"{name}, {len(told['auc'])} earlier cuts: {means}  {contender}")


def show(name: str, result: dict[str, Any]) -> None:
    """One line a figure."""
    shipped, baselines = result["shipped"], result["baselines"]
    print(f"{name}: {shipped['cases']:,} cases, {result['seconds']} s, ECE {shipped['ece']:.4f}")
    for figure, better in BEST.items():
        best = better(baselines, key=lambda one, figure=figure: baselines[one][figure])
        other = baselines[best][figure]
        print(f"  {figure:9} {shipped[figure]:.4f}   best baseline {other:.4f} ({best})")


def main() -> None:
    """Measure and keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("logs", nargs="+", type=Path, help="folders of logs")
    parser.add_argument("--horizon", type=float, default=30.0, help="horizon in days")
    parser.add_argument("--cuts", type=int, default=0, help="earlier cuts to measure at, instead")
    parser.add_argument("--out", type=Path, help="file to keep the result in")
    options = parser.parse_args()
    results = {}
    for folder in options.logs:
        if options.cuts:
            results[folder.name] = at_earlier_cuts(folder, options.horizon, options.cuts)
            show_cuts(folder.name, results[folder.name])
            continue
        results[folder.name] = measured(folder, options.horizon)
        show(folder.name, results[folder.name])
    keep({**circumstances(), "logs": results}, options.out)


if __name__ == "__main__":
    main()
