"""Training of a ranking model on replayed examples."""

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
from trainer.models.ncf import NcfConfig, NcfRanker
from trainer.models.ranker import Ranker, RankerConfig
from trainer.models.relevance import RelevanceModel
from trainer.models.vocabulary import Vocabulary
from trainer.reproducible import reproducible
from trainer.retrieval import EpochFigures, TrainingError


@dataclass(frozen=True)
class RankingConfig:
    """How the ranking model is trained; the defaults are the article's MLP's."""

    model: MlpConfig | NcfConfig | RankerConfig = field(default_factory=MlpConfig)
    """Which model it is, and its shape."""
    examples: ReplayConfig = field(default_factory=ReplayConfig)
    """What it learns from."""
    epochs: int = 10
    """Passes over the examples; the model of the one that validates best is kept."""
    batch: int = 32
    """Examples in a batch, all of a moment's in the same."""
    learning_rate: float = 1e-3
    """Adam's rate."""
    weight_decay: float = 0.0
    """AdamW's pull of weights to zero."""
    validation_share: float = 0.2
    """Share of the moments kept out to validate on."""


@dataclass(frozen=True)
class RankingResult:
    """A trained ranking model."""

    model: RelevanceModel
    curves: tuple[EpochFigures, ...]
    metrics: dict[str, float]
    """Of the validation moments: examples, loss, accuracy, auc."""


def train_ranking(
    examples: Examples,
    vocabulary: Vocabulary,
    table: Tensor,
    popularity: Tensor,
    config: RankingConfig,
    seed: int,
    reporter: Reporter,
) -> RankingResult:
    """Train on replayed examples and a retrieval model's (V, D) item vectors and (V,) popularity.

    Raises:
        TrainingError: there are too few examples to validate, or the loss stops being a number.
    """
    # A batch is too little work to share: two threads took longer than one.
    with reproducible(seed, threads=1):
        return _train(examples, vocabulary, table, popularity, config, seed, reporter)


def _train(
    examples: Examples,
    vocabulary: Vocabulary,
    table: Tensor,
    popularity: Tensor,
    config: RankingConfig,
    seed: int,
    reporter: Reporter,
) -> RankingResult:
    random = np.random.default_rng(seed)
    moments = random.permutation(len(examples.keys))
    n_held = round(config.validation_share * len(moments))
    if n_held == 0 or n_held == len(moments):
        raise TrainingError(f"{len(moments)} examples cannot be split for validation")
    held = _Batches(examples.take(moments[:n_held]), vocabulary)
    fitted = _Batches(examples.take(moments[n_held:]), vocabulary)
    model = _build(config.model, vocabulary, table, popularity, examples.features[moments[n_held:]])
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    size = max(config.batch // fitted.width, 1)
    bce = nn.BCEWithLogitsLoss()
    curves: list[EpochFigures] = []
    metrics: dict[str, float] = {}
    best: dict[str, Tensor] = {}
    with reporter.stage("ranking model", config.epochs * len(fitted), "examples") as stage:
        for epoch in range(config.epochs):
            total = 0.0
            model.train()
            for chosen in torch.randperm(len(fitted.rows)).split(size):
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
                n = len(chosen) * fitted.width
                total += value * n
                stage.advance(n, epoch=epoch + 1, loss=value)
            figures = _validate(model, held)
            curves.append(
                EpochFigures(epoch + 1, total / len(fitted), figures["loss"], figures["accuracy"])
            )
            if not metrics or figures["loss"] < metrics["loss"]:
                metrics, best = figures, copy.deepcopy(model.state_dict())
    model.load_state_dict(best)
    return RankingResult(model.eval(), tuple(curves), metrics)


def _build(
    config: MlpConfig | NcfConfig | RankerConfig,
    vocabulary: Vocabulary,
    table: Tensor,
    popularity: Tensor,
    features: np.ndarray,
) -> RelevanceModel:
    """A model that knows how the features (G, C, F) it will be trained on are spread."""
    if isinstance(config, NcfConfig):
        return NcfRanker(vocabulary, config)
    known = features.reshape(-1, features.shape[-1])
    mean = torch.from_numpy(known.mean(axis=0))
    scale = torch.from_numpy(np.maximum(known.std(axis=0), 1e-3))
    if isinstance(config, MlpConfig):
        return MlpRanker(vocabulary, table, mean, scale, config)
    return Ranker(vocabulary, table, popularity, mean, scale, config)


class _Batches:
    """Examples as tensors, by moment."""

    def __init__(self, examples: Examples, vocabulary: Vocabulary) -> None:
        self.rows = vocabulary(torch.from_numpy(examples.keys))
        self.ages = torch.from_numpy(examples.ages)
        self.types = torch.from_numpy(examples.types)
        self.width = examples.candidates.shape[1]
        self.candidates = vocabulary(torch.from_numpy(examples.candidates))
        self.features = torch.from_numpy(examples.features)
        self.labels = torch.from_numpy(examples.labels)

    def __len__(self) -> int:
        return self.labels.numel()

    def predict(self, model: RelevanceModel, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Log-odds and labels (N, C) of moments by number (N,)."""
        logits = model.logits(
            self.rows[chosen],
            self.ages[chosen],
            self.types[chosen],
            self.candidates[chosen],
            self.features[chosen],
        )
        return logits, self.labels[chosen]


@torch.no_grad()
def _validate(model: RelevanceModel, held: _Batches) -> dict[str, float]:
    model.eval()
    parts = [held.predict(model, chosen)[0] for chosen in torch.arange(len(held.rows)).split(1024)]
    logits = torch.cat(parts)
    return {
        "examples": len(held),
        "loss": float(nn.functional.binary_cross_entropy_with_logits(logits, held.labels)),
        "accuracy": float(((logits > 0) == (held.labels > 0)).float().mean()),
        "auc": auc(logits.flatten().numpy(), held.labels.flatten().numpy() > 0),
    }
