"""How well retention predicts returns, log by log, beside known forgetting curves.

Each log is evaluated as `ebbing evaluate forgetting` does: the engine is fitted on what lies before
the cut and scored by the code that serves. The table shows the engine and the best of the built-in
baselines, figure by figure, each with the baseline's name.

Run it from the project root: python -m benchmarks.forgetting DIR [DIR …]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.record import circumstances, keep
from ebbing.progress import Reporter
from trainer.data.log import read_log
from trainer.evaluate_forgetting import evaluate_forgetting
from trainer.return_prediction import DAY_S

BEST: dict[str, Callable[..., Any]] = {"auc": max, "user_auc": max, "log_loss": min}
"""Figures shown, and which of two is better."""


def measured(folder: Path, horizon_days: float) -> dict[str, Any]:
    """What evaluation says of a log, with the seconds it took."""
    start = time.perf_counter()
    found = evaluate_forgetting(read_log(folder), horizon_days * DAY_S, "benchmark", Reporter())
    return {**found.to_json(), "seconds": round(time.perf_counter() - start, 1)}


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
    parser.add_argument("--out", type=Path, help="file to keep the result in")
    options = parser.parse_args()
    results = {}
    for folder in options.logs:
        results[folder.name] = measured(folder, options.horizon)
        show(folder.name, results[folder.name])
    keep({**circumstances(), "logs": results}, options.out)


if __name__ == "__main__":
    main()
