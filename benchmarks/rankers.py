"""Which ranker tells best what a user takes, and what is it worth behind retrieval?

    .venv/bin/python -m benchmarks.rankers data/one-log data/another [--out FILE]

One retrieval model a log; the rankers of the recipes, each trained as its recipe has it, are asked
about the same tests, users' last events, which nothing was trained on. AUC is the share of a test's
negatives, two of the catalogue and two retrieved, that the wanted item beats. The peer is the
article's MLP; differences from it are paired by user and have 95 % bootstrap intervals.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import circumstances, keep
from ebbing.progress import Reporter
from trainer.data.log import read_log
from trainer.data.replay import replay
from trainer.evaluation.protocol import leave_one_out
from trainer.evaluation.reranking import ORDERS, Reranking, rerank
from trainer.evaluation.resampling import Bootstrap, Interval
from trainer.forgetting import fit_forgetting
from trainer.ranking import train_ranking
from trainer.recipes import RECIPES
from trainer.retrieval import RetrievalConfig, train_retrieval
from trainer.retriever import Retriever

PEER, RANKERS = "article_mlp", ("article_mlp", "article_ncf", "sequence")
CUTOFF = 10


def per_test(found: Reranking) -> dict[str, np.ndarray]:
    """Figures of each test, (T,): AUC, and NDCG at 10 by each order."""
    starts = np.flatnonzero(found.wanted)
    wanted = found.relevance[starts]
    n = np.diff(starts, append=len(found.wanted))
    own = np.repeat(wanted, n)
    won = (own > found.relevance) + 0.5 * ((own == found.relevance) & ~found.wanted)
    return {
        "auc": np.add.reduceat(won, starts) / (n - 1),
        **{
            f"ndcg_at_10.{name}": np.where(
                found.ranks[name] <= CUTOFF,
                1.0 / np.log2(1.0 + np.minimum(found.ranks[name], CUTOFF).astype(float)),
                0.0,
            )
            for name in ORDERS
        },
    }


def told(interval: Interval) -> list[float]:
    """Value and bounds."""
    return [round(number, 4) for number in (interval.value, interval.low, interval.high)]


def of_log(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Train and ask every ranker on one log."""
    log = read_log(folder).engagements()
    tests = leave_one_out(log)
    train, reporter = tests.known, Reporter()
    parameters = fit_forgetting(log, folder.name).parameters
    retrieval = train_retrieval(
        train,
        RetrievalConfig(epochs=args.epochs, negatives=args.negatives),
        args.seed,
        reporter,
    )
    events = tests.events[:: -(-len(tests.events) // args.tests)]
    figures, validation = {}, {}
    for name in RANKERS:
        config = RECIPES[name]().ranking
        examples = replay(
            train,
            parameters,
            config.examples,
            np.random.default_rng(args.seed),
            Retriever(retrieval.model, train),
            untrained=retrieval.untrained,
            repeats=tests.repeats,
        )
        space = (retrieval.vocabulary, retrieval.model.table, retrieval.model.popularity)
        ranking = train_ranking(examples, *space, config, args.seed, reporter)
        validation[name] = ranking.metrics
        figures[name] = per_test(
            rerank(
                log,
                events,
                Retriever(retrieval.model, log),
                ranking.model,
                parameters,
                tests.repeats,
                np.random.default_rng(args.seed),
            )
        )
    columns = [(name, figure) for name in RANKERS for figure in figures[name]]
    means = Bootstrap().means(
        np.column_stack([figures[name][figure] for name, figure in columns]), log.users[events]
    )
    place = {column: number for number, column in enumerate(columns)}
    return {
        "log": folder.name,
        "tests": len(events),
        "repeats": tests.repeats,
        "validation": validation,
        "rankers": {
            name: {figure: told(means.interval(place[name, figure])) for figure in figures[name]}
            for name in RANKERS
        },
        "better_than_peer": {
            name: {
                figure: told(means.difference(place[name, figure], place[PEER, figure]))
                for figure in figures[name]
                if figure != "ndcg_at_10.retrieval"
            }
            for name in RANKERS
            if name != PEER
        },
    }


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logs", type=Path, nargs="+")
    parser.add_argument("--tests", type=int, default=3000, help="at most, evenly spread")
    parser.add_argument("--epochs", type=int, default=RetrievalConfig.epochs)
    parser.add_argument("--negatives", type=int, default=RetrievalConfig.negatives)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    result = {
        **circumstances(),
        "epochs": args.epochs,
        "negatives": args.negatives,
        "logs": [of_log(folder, args) for folder in args.logs],
    }
    print(json.dumps(result, indent=2))
    keep(result, args.out)


if __name__ == "__main__":
    main()
