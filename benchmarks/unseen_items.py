"""How well is an item recommended that no model has seen, placed by its description alone?

    .venv/bin/python -m benchmarks.unseen_items data/one-log --draws 1 2 3 [--out FILE]

Per draw a share of the items is taken out of the log with all their events, and everything is
trained on the rest. The tests are the users' last events whose item is one of those, over the full
catalogue with seen items filtered. Beside the encoder's placement stand the row that training left
such an item, which is all a model of ids has, and the peer: the same configuration and seed,
trained on them too. Shares are ratios to the peer, with bootstrap intervals over tests. `others`
are the tests of all other items: what placing these costs them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.record import circumstances, keep
from ebbing.progress import Reporter
from trainer.data.log import EventLog, read_log
from trainer.data.replay import histories_before
from trainer.evaluation.protocol import leave_one_out
from trainer.item_encoding import ItemEncoderConfig, place_items, train_item_encoder
from trainer.models.sequence import RetrievalModel
from trainer.retrieval import RetrievalConfig, RetrievalResult, item_rows, train_retrieval

CUTOFF = 10
SAMPLES = 2000
"""Bootstrap samples."""
OTHERS = 4000
"""Tests of other items that are looked at, at most."""


def hits(model: RetrievalModel, log: EventLog, tests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) whether each test's item is among the first ten, and (N, 10) rows of those."""
    _, row_of, _ = item_rows(log)
    hit, first = [], []
    for events in np.array_split(tests, -(-len(tests) // 512)):
        with torch.no_grad():
            scores = model.scores(
                *(torch.from_numpy(part) for part in histories_before(log, events))
            )
        for event, row in zip(events.tolist(), scores, strict=True):
            seen = log.items[log.offsets[log.users[event]] : event]
            row[torch.from_numpy(row_of[seen] - 2)] = -torch.inf
            best = row.topk(CUTOFF).indices.numpy() + 2
            first.append(best)
            hit.append(row_of[log.items[event]] in best)
    return np.array(hit), np.stack(first)


def placed(model: RetrievalModel, rows: Tensor, vectors: Tensor, popularity: Tensor) -> None:
    """Give the items of some rows (N,) these vectors (N, D) and popularity (N,)."""
    with torch.no_grad():
        model.table[rows] = vectors
        model.popularity[rows] = popularity


def ratio(ours: np.ndarray, peer: np.ndarray, random: np.random.Generator) -> dict[str, float]:
    """Ratio of two hit rates on the same tests, with its 95 % bootstrap interval."""
    drawn = random.integers(len(ours), size=(SAMPLES, len(ours)))
    samples = ours[drawn].mean(axis=1) / np.maximum(peer[drawn].mean(axis=1), 1e-9)
    low, high = np.quantile(samples, (0.025, 0.975))
    return {"ratio": float(ours.mean() / peer.mean()), "low": float(low), "high": float(high)}


def one_draw(
    log: EventLog,
    train: EventLog,
    peer: RetrievalResult,
    retrieval: RetrievalConfig,
    draw: int,
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Take out, train, place, measure."""
    random = np.random.default_rng(draw)
    trained = np.flatnonzero(np.bincount(train.items, minlength=len(log.item_ids)))
    gone = np.sort(random.choice(trained, round(args.share * len(trained)), replace=False))
    less = train.without(np.flatnonzero(np.isin(train.items, gone)))
    result = train_retrieval(less, retrieval, args.seed, Reporter())
    encoded = train_item_encoder(less, result.model, ItemEncoderConfig(), args.seed, Reporter())
    assert encoded is not None, "nothing describes the items of this log"

    tests = leave_one_out(log, repeats=False).events
    about = np.isin(log.items[tests], gone)
    others = tests[~about]
    others = others[:: -(-len(others) // OTHERS)]
    _, row_of, _ = item_rows(log)
    left, _ = hits(result.model, log, tests[about])
    others_before, _ = hits(result.model, log, others)
    rows = torch.from_numpy(row_of[gone])
    placed(result.model, rows, *place_items(encoded.model, log, gone))
    ours, _ = hits(result.model, log, tests[about])
    others_after, first = hits(result.model, log, others)
    peers, _ = hits(peer.model, log, tests[about])
    return {
        "draw": draw,
        "items": len(gone),
        "tests": int(about.sum()),
        "hit_rate_at_10": {
            "as_training_left_it": float(left.mean()),
            "placed": float(ours.mean()),
            "trained": float(peers.mean()),
        },
        "placed_of_trained": ratio(ours, peers, random),
        "others": {
            "tests": len(others),
            "hit_rate_at_10_before": float(others_before.mean()),
            "hit_rate_at_10_after": float(others_after.mean()),
            "share_of_first_ten_taken": float(np.isin(first, row_of[gone]).mean()),
        },
        "encoder": encoded.metrics,
    }


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("log", type=Path)
    parser.add_argument("--draws", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--share", type=float, default=0.05, help="of the items, taken out")
    parser.add_argument("--epochs", type=int, default=RetrievalConfig.epochs)
    parser.add_argument("--negatives", type=int, default=RetrievalConfig.negatives)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()

    log = read_log(args.log)
    train = log.without(log.last_events())
    retrieval = RetrievalConfig(epochs=args.epochs, negatives=args.negatives)
    peer = train_retrieval(train, retrieval, args.seed, Reporter())
    draws = [one_draw(log, train, peer, retrieval, draw, args) for draw in args.draws]
    result = {
        **circumstances(),
        "log": args.log.name,
        "epochs": args.epochs,
        "negatives": args.negatives,
        "share": args.share,
        "draws": draws,
    }
    print(json.dumps(result, indent=2))
    keep(result, args.out)


if __name__ == "__main__":
    main()
