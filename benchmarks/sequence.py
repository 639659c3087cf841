"""How well the `sequence` recipe ranks, and what each of its parts is worth.

Each training is a command of its own, so that they can run side by side; what they leave in a
folder is put together at the end:

    for seed in 1 2 3; do python -m benchmarks.sequence data/shop work --train recipe $seed; done
    python -m benchmarks.sequence data/shop work --out figures.json

The last event of each user is the test, the whole catalogue is ranked, what the user had is not
recommended, items nobody had in training are no tests. All before the test trains, but that the
last training event of 2,048 users is kept to stop by; variants named `strict` train on nobody's
last two events. Figures are those of the exported file. With --tuning everybody's last event is
hidden and the one before is the test: that is where decisions are made.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from benchmarks.record import circumstances, keep
from ebbing.history import RETRIEVAL_INPUTS, item_keys
from ebbing.progress import Reporter
from trainer.data.log import EventLog, read_log
from trainer.evaluation.measures import rank_figures
from trainer.evaluation.places import batches, ranks_among
from trainer.evaluation.protocol import HeldOut, leave_one_out
from trainer.evaluation.resampling import Bootstrap
from trainer.evaluation.scorers import ModelScorer, had_before
from trainer.export import TorchScriptExporter, load_exported, parity_samples
from trainer.place import peak_memory_bytes
from trainer.recipes import RECIPES
from trainer.retrieval import RetrievalConfig, train_retrieval

FIGURES = ("hit_rate_at_10", "ndcg_at_10")
FULL = "recipe"


def without(**switches: bool) -> Callable[[RetrievalConfig], RetrievalConfig]:
    """A recipe with parts of its model switched off."""
    return lambda config: replace(config, model=replace(config.model, **switches))


VARIANTS: Mapping[str, Callable[[RetrievalConfig], RetrievalConfig]] = MappingProxyType(
    {
        FULL: without(),
        "time-of-test-unknown": without(told_now=False),
        "strict": without(),
        "strict-time-of-test-unknown": without(told_now=False),
        "no-elapsed-time": without(elapsed_time=False),
        "no-forgetting-attention": without(forgetting=False),
        "no-short-term-read-out": without(short_term=False),
        "no-attributes": without(attributes=False),
    }
)
"""What is trained. `recipe` is asked at the time of the test, as a gateway is; the published
figures beside it are of models that know the order of events only, hence the second."""


def measured(log: EventLog, tests: HeldOut, model: torch.nn.Module) -> np.ndarray:
    """(T,) ranks of the tests, from 1; ties count against the model."""
    scorer = ModelScorer(model, log)
    ranks = []
    for part in batches(tests.events, 128):
        scores = scorer(part)
        left_out = np.zeros(scores.shape, bool)
        rows, past = had_before(log, part)
        left_out[rows, log.items[past]] = True
        ranks.append(ranks_among(scores, log.items[part], left_out))
    return np.concatenate(ranks)


def train(log: EventLog, folder: Path, variant: str, seed: int) -> None:
    """Train one variant and leave its ranks and circumstances in the folder."""
    started = time.monotonic()
    config = RECIPES["sequence"]().retrieval
    assert isinstance(config, RetrievalConfig)
    config = VARIANTS[variant](config)
    known = log.without(log.last_events())
    if variant.startswith("strict"):
        known = known.without(known.last_events())
    tests = leave_one_out(log, repeats=False)
    result = train_retrieval(known, config, seed, Reporter())
    trained_s = time.monotonic() - started
    path = folder / f"{variant}-{seed}.pt"
    samples = parity_samples(RETRIEVAL_INPUTS, item_keys(log.item_ids))
    parity = TorchScriptExporter().export(result.model, samples, path)
    ranks = measured(log, tests, load_exported(path))
    path.unlink()
    about = {
        "variant": variant,
        "seed": seed,
        **{name: float(rank_figures(ranks)[name].mean()) for name in FIGURES},
        "tests": len(ranks),
        "epochs": len(result.curves),
        "best": dict(result.best),
        "training_seconds": round(trained_s, 1),
        "events_per_second": round(result.events_per_second),
        "threads": torch.get_num_threads(),
        "peak_memory_mib": round(peak_memory_bytes() / 2**20),
        "parity": parity,
        "config": asdict(config),
    }
    np.save(folder / f"{variant}-{seed}.npy", ranks.astype(np.int32))
    (folder / f"{variant}-{seed}.json").write_text(json.dumps(about, indent=1) + "\n")
    print({name: about[name] for name in (*FIGURES, "epochs", "training_seconds")})


def summary(log: EventLog, folder: Path) -> dict[str, Any]:
    """Every variant trained: means over seeds, and gains over the recipe with intervals.

    A gain is that of the mean over the seeds that both have; users are drawn again, in pairs.
    """
    tests = leave_one_out(log, repeats=False)
    users = log.users[tests.events]
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    found: dict[str, dict[int, np.ndarray]] = {}
    for run in runs:
        ranks = np.load(folder / f"{run['variant']}-{run['seed']}.npy")
        figures = rank_figures(ranks)
        found.setdefault(run["variant"], {})[run["seed"]] = np.stack(
            [figures[name] for name in FIGURES], axis=1
        )
    rows = {}
    for variant in (name for name in VARIANTS if name in found):
        each = found[variant]
        own = np.mean(list(each.values()), axis=0)
        row: dict[str, Any] = {
            name: {
                "mean": round(float(own[:, column].mean()), 5),
                "seeds": [round(float(one[:, column].mean()), 5) for one in each.values()],
            }
            for column, name in enumerate(FIGURES)
        }
        shared = sorted(each.keys() & found.get(FULL, {}).keys())
        if variant != FULL and shared:
            pairs = [
                np.mean([table[seed] for seed in shared], axis=0) for table in (each, found[FULL])
            ]
            means = Bootstrap().means(np.hstack(pairs), users)
            row["against_the_recipe"] = {
                name: [round(value, 5) for value in asdict(means.difference(i, i + 2)).values()]
                for i, name in enumerate(FIGURES)
            }
        rows[variant] = row
    costs = ("variant", "seed", "epochs", "training_seconds", "events_per_second", "threads",
             "peak_memory_mib")  # fmt: skip
    return {
        "tests": len(tests.events),
        "protocol": str(tests),
        "variants": rows,
        "runs": [{name: run[name] for name in costs} for run in runs],
        "config": next((run["config"] for run in runs if run["variant"] == FULL), None),
    }


def main() -> None:
    """Train one variant, or put together what was trained."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder of a log")
    parser.add_argument("folder", type=Path, help="where trainings leave what they measured")
    parser.add_argument("--train", nargs=2, metavar=("VARIANT", "SEED"), help=" ".join(VARIANTS))
    parser.add_argument("--tuning", action="store_true", help="hide everybody's last event")
    parser.add_argument("--out", type=Path, help="write the summary as JSON into this file")
    arguments = parser.parse_args()
    log = read_log(arguments.data)
    if arguments.tuning:
        log = log.without(log.last_events())
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.train:
        train(log, arguments.folder, arguments.train[0], int(arguments.train[1]))
        return
    about = {"benchmark": "sequence", "data": arguments.data.resolve().name, **circumstances()}
    result = {**about, "tuning": arguments.tuning, **summary(log, arguments.folder)}
    print(json.dumps(result["variants"], indent=1))
    keep(result, arguments.out)


if __name__ == "__main__":
    main()
