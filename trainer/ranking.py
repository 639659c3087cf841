"""Training of the ranking model, by the article's recipe."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from ebbing.progress import Reporter
from trainer.data.replay import Examples, ReplayConfig
from trainer.metrics import auc
from trainer.models.mlp import MlpConfig, MlpRanker
from trainer.models.vocabulary import Vocabulary
from trainer.reproducible import reproducible
from trainer.retrieval import EpochFigures, TrainingError


@dataclass(frozen=True)
class RankingConfig:
    """How the ranking model is trained; the defaults are the article's."""

    model: MlpConfig = field(default_factory=MlpConfig)
    """Its shape."""
    examples: ReplayConfig = field(default_factory=ReplayConfig)
    """What it learns from."""
    epochs: int = 10
    """Passes over the examples; the model of the one that validates best is kept."""
    batch: int = 32
    """Examples in a batch."""
    learning_rate: float = 1e-3
    """Adam's rate."""
    validation_share: float = 0.2
    """Share of the moments kept out to validate on."""


@dataclass(frozen=True)
class RankingResult:
    """A trained ranking model."""

    model: MlpRanker
    curves: tuple[EpochFigures, ...]
    metrics: dict[str, float]
    """Of the validation moments: examples, loss, accuracy, auc."""


def train_ranking(
    examples: Examples,
    vocabulary: Vocabulary,
    table: Tensor,
    config: RankingConfig,
    seed: int,
    reporter: Reporter,
) -> RankingResult:
    """Train on replayed examples and the retrieval model's (V, D) item vectors.

    Raises:
        TrainingError: there are too few examples to validate, or the loss stops being a number.
    """
    # A batch is too little work to share: two threads took longer than one.
    with reproducible(seed, threads=1):
        return _train(examples, vocabulary, table, config, seed, reporter)


def _train(
    examples: Examples,
    vocabulary: Vocabulary,
    table: Tensor,
    config: RankingConfig,
    seed: int,
    reporter: Reporter,
) -> RankingResult:
    random = np.random.default_rng(seed)
    moments = random.permutation(len(examples.keys))
    n_held = round(config.validation_share * len(moments))
    if n_held == 0 or n_held == len(moments):
        raise TrainingError(f"{len(moments)} examples cannot be split for validation")
    held, fitted = (
        _Batches(examples.take(moments[:n_held]), vocabulary),
        _Batches(examples.take(moments[n_held:]), vocabulary),
    )
    known = examples.features[moments[n_held:]].reshape(-1, examples.features.shape[-1])
    model = MlpRanker(
        vocabulary,
        table,
        torch.from_numpy(known.mean(axis=0)),
        torch.from_numpy(np.maximum(known.std(axis=0), 1e-3)),
        config.model,
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=True)
    bce = nn.BCEWithLogitsLoss()
    curves: list[EpochFigures] = []
    metrics: dict[str, float] = {}
    best: dict[str, Tensor] = {}
    with reporter.stage("ranking model", config.epochs * len(fitted), "examples") as stage:
        for epoch in range(config.epochs):
            total = 0.0
            for chosen in torch.randperm(len(fitted)).split(config.batch):
                loss = bce(*fitted.predict(model, chosen))
                value = float(loss.detach())
                if not math.isfinite(value):
                    raise TrainingError(
                        f"the ranking loss became {value} in epoch {epoch + 1}: "
                        "lower the recipe's learning rate"
                    )
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                total += value * len(chosen)
                stage.advance(len(chosen), epoch=epoch + 1, loss=value)
            figures = _validate(model, held)
            curves.append(
                EpochFigures(epoch + 1, total / len(fitted), figures["loss"], figures["accuracy"])
            )
            if not metrics or figures["loss"] < metrics["loss"]:
                metrics, best = figures, copy.deepcopy(model.state_dict())
    model.load_state_dict(best)
    return RankingResult(model.eval(), tuple(curves), metrics)


class _Batches:
    """Examples as tensors, one candidate each: number n is candidate n % C of moment n // C."""

    def __init__(self, examples: Examples, vocabulary: Vocabulary) -> None:
        self.rows = vocabulary(torch.from_numpy(examples.keys))
        self.ages = torch.from_numpy(examples.ages)
        self.width = examples.candidates.shape[1]
        self.candidates = vocabulary(torch.from_numpy(examples.candidates)).reshape(-1, 1)
        self.features = torch.from_numpy(examples.features).flatten(0, 1)[:, None]
        self.labels = torch.from_numpy(examples.labels).reshape(-1)

    def __len__(self) -> int:
        return len(self.labels)

    def predict(self, model: MlpRanker, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Log-odds and labels (N,) of examples by number (N,)."""
        moment = chosen // self.width
        logits = model.logits(
            self.rows[moment], self.ages[moment], self.candidates[chosen], self.features[chosen]
        )
        return logits.squeeze(1), self.labels[chosen]


@torch.no_grad()
def _validate(model: MlpRanker, held: _Batches) -> dict[str, float]:
    parts = [held.predict(model, chosen)[0] for chosen in torch.arange(len(held)).split(4096)]
    logits = torch.cat(parts)
    return {
        "examples": len(held),
        "loss": float(nn.functional.binary_cross_entropy_with_logits(logits, held.labels)),
        "accuracy": float(((logits > 0) == (held.labels > 0)).float().mean()),
        "auc": auc(logits.numpy(), held.labels.numpy() > 0),
    }
