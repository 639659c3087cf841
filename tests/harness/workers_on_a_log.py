"""Processes that train on a log together, for tests."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ebbing.progress import Reporter
from trainer.data.log import read_log
from trainer.distributed import joined
from trainer.models.sequence import SequenceConfig
from trainer.retrieval import RetrievalConfig, RetrievalResult, Surroundings, train_retrieval

CONFIG = RetrievalConfig(
    model=SequenceConfig(dim=16, dropout=0.0),
    epochs=2,
    batch_positions=256,
    warmup_steps=5,
    checkpoint_steps=3,
    negatives=64,
    oov_share=0.0,
)
BY_ROWS = replace(CONFIG, by_rows=True)


class Interrupted(Exception):
    """What a training is stopped with on its way."""


def weights_of(result: RetrievalResult) -> dict[str, Tensor]:
    """What was learned, and how well it did on the way."""
    kept = {k: v for k, v in result.model.state_dict().items() if "keys" not in k}
    curve = [point.validation_ndcg for point in result.curves]
    return {**kept, "curve": torch.tensor(curve)}


def train_logs(data: str, folder: str) -> None:
    """Train both kinds of model on a log; one of them a second time, interrupted and resumed."""
    log = read_log(Path(data))
    with joined(os.environ, "cpu") as group:
        path = Path(folder) / "checkpoint.pt"
        looks = iter(range(10**6))

        def clock() -> float:
            if (look := next(looks)) == 14:
                raise Interrupted
            return float(look)

        answers = {}
        for name, config in (("whole", CONFIG), ("rows", BY_ROWS)):
            around = Surroundings("cpu", workers=group)
            found = train_retrieval(log, config, 3, Reporter(quiet=True), around=around)
            answers[name] = weights_of(found)
        around = Surroundings("cpu", path, workers=group, clock=clock)
        with suppress(Interrupted):
            train_retrieval(log, BY_ROWS, 3, Reporter(quiet=True), around=around)
        assert path.exists()
        around = Surroundings("cpu", path, resume=True, workers=group)
        found = train_retrieval(log, BY_ROWS, 3, Reporter(quiet=True), around=around)
        answers["resumed"] = weights_of(found)
        torch.save(answers, Path(folder) / f"{group.rank}.pt")
