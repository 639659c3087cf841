"""What going on from an earlier run saves and costs, as a log grows.

    python -m benchmarks.warm_start data/shop --out warm-start.json

The recipe `sequence` is trained on the first 70 % of the events, with the catalogue of that time.
On the events up to 85 % it is then trained anew, and further from the earlier run, as
`ebbing train --from` does: for as long as validation asks for, and for one and two epochs. Each
user's first event after that is the test, over the whole catalogue, what the user had left out.
Beside them stands the earlier model as it is. Gains are paired with training anew, with intervals
over users; seconds are CPU time of retrieval's training.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import circumstances, keep
from benchmarks.sequence import FIGURES, measured
from ebbing.progress import Reporter
from trainer.data.log import EventLog, read_log
from trainer.evaluation.measures import rank_figures
from trainer.evaluation.protocol import temporal
from trainer.evaluation.resampling import Bootstrap
from trainer.recipes import RECIPES
from trainer.retrieval import RetrievalConfig, RetrievalResult, train_retrieval
from trainer.trained import Trained
from trainer.warm_start import Earlier

ANEW = "anew"


def of_its_time(log: EventLog) -> EventLog:
    """A log with only the items that it has events of."""
    there = np.bincount(log.items, minlength=len(log.item_ids)) > 0
    place = np.cumsum(there) - 1
    kept = np.flatnonzero(there).tolist()
    return EventLog.of(
        log.user_ids,
        [log.item_ids[item] for item in kept],
        [log.interests[item] for item in kept],
        log.users,
        place[log.items],
        log.types,
        log.times,
    )


def main() -> None:
    """Measure, print, and keep if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder of a log")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, help="write the result as JSON into this file")
    arguments = parser.parse_args()
    log = read_log(arguments.data)
    before, now = np.quantile(log.times, (0.70, 0.85))
    tests = temporal(log, float(now), repeats=False)
    old, grown = of_its_time(log.until(float(before))), of_its_time(log.until(float(now)))
    config = RECIPES["sequence"]().retrieval
    assert isinstance(config, RetrievalConfig)
    figures: dict[str, list[np.ndarray]] = {}
    costs: dict[str, list[dict[str, float]]] = {}

    def add(name: str, seed: int, known: EventLog, epochs: int, start: Earlier | None) -> Any:
        began = time.process_time()
        asked = replace(config, epochs=epochs)
        result = train_retrieval(known, asked, seed, Reporter(), earlier=start)
        seconds = time.process_time() - began
        ranks = rank_figures(measured(log, tests, result.model))
        figures.setdefault(name, []).append(np.stack([ranks[one] for one in FIGURES], axis=1))
        best = float(result.best["epoch"])
        costs.setdefault(name, []).append({"cpu_s": round(seconds, 1), "best_epoch": best})
        print(seed, name, figures[name][-1].mean(axis=0).round(4), costs[name][-1], flush=True)
        return result

    for seed in arguments.seeds:
        first: RetrievalResult = add("the earlier run as it is", seed, old, config.epochs, None)
        assert first.weights is not None
        told = {"recipe": "sequence", "weights": "0" * 64}
        earlier = Earlier(Path("earlier"), first.weights, Trained.on(old), told)
        add(ANEW, seed, grown, config.epochs, None)
        for epochs in (1, 2, config.epochs):
            add(f"further, {epochs} epochs at most", seed, grown, epochs, earlier)
    users = log.users[tests.events]
    anew, rows = np.mean(figures[ANEW], axis=0), {}
    for name, each in figures.items():
        own = np.mean(each, axis=0)
        means = Bootstrap().means(np.hstack([own, anew]), users)
        rows[name] = {
            figure: {
                "mean": round(float(own[:, i].mean()), 5),
                "over_anew": [round(v, 5) for v in asdict(means.difference(i, i + 2)).values()],
            }
            for i, figure in enumerate(FIGURES)
        } | {"runs": costs[name]}
    result = {
        "benchmark": "warm_start",
        "data": arguments.data.resolve().name,
        **circumstances(),
        "seeds": arguments.seeds,
        "tests": len(tests.events),
        "events": [len(old), len(grown)],
        "items": [len(old.item_ids), len(grown.item_ids)],
        "rows": rows,
    }
    print(rows)
    keep(result, arguments.out)


if __name__ == "__main__":
    main()
