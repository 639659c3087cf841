from __future__ import annotations

import numpy as np
import pytest
import torch

from ebbing.history import HISTORY_LENGTH
from ebbing.progress import Reporter
from trainer.data.replay import Examples
from trainer.models.mlp import MlpConfig
from trainer.models.ncf import NcfConfig
from trainer.models.ranker import RankerConfig
from trainer.models.vocabulary import Vocabulary
from trainer.ranking import RankingConfig, train_ranking
from trainer.retrieval import TrainingError

VOCABULARY = Vocabulary(range(100, 120))
TABLE = torch.randn(22, 8, generator=torch.Generator().manual_seed(0))
POPULARITY = torch.zeros(22)


def examples(n: int = 120) -> Examples:
    """What the user takes has a high first feature; nothing else tells it apart."""
    random = np.random.default_rng(0)
    features = random.normal(size=(n, 5, 6)).astype(np.float32)
    features[:, 0, 0] += 3.0
    keys = np.zeros((n, HISTORY_LENGTH), np.int64)
    keys[:, -3:] = random.integers(100, 120, (n, 3))
    ages = np.zeros((n, HISTORY_LENGTH), np.float32)
    ages[:, -3:] = random.random((n, 3)) * 1e6
    return Examples(
        keys, ages, np.zeros_like(keys, np.int32), random.integers(100, 120, (n, 5)), features
    )


@pytest.mark.parametrize("model", [MlpConfig(), RankerConfig(width=8)], ids=["mlp", "ranker"])
def test_it_learns_what_tells_items_apart(
    model: MlpConfig | RankerConfig, reporter: Reporter
) -> None:
    config = RankingConfig(model)
    result = train_ranking(examples(), VOCABULARY, TABLE, POPULARITY, config, 1, reporter)
    assert len(result.curves) == 10
    assert result.metrics["auc"] > 0.9
    assert result.metrics["examples"] == 120


def test_embeddings_learn_who_takes_what(reporter: Reporter) -> None:
    """Users who had items of one half of the catalogue take more of that half."""
    random = np.random.default_rng(0)
    given = examples(400)
    half = random.integers(2, size=400)
    given.keys[:, -3:] = 100 + 10 * half[:, None] + random.integers(10, size=(400, 3))
    given.candidates[:, 0] = 100 + 10 * half + random.integers(10, size=400)
    given.candidates[:, 1:] = 110 - 10 * half[:, None] + random.integers(10, size=(400, 4))
    config = RankingConfig(NcfConfig(), learning_rate=1e-2)
    result = train_ranking(given, VOCABULARY, TABLE, POPULARITY, config, 1, reporter)
    assert result.metrics["auc"] > 0.9


@pytest.mark.parametrize(
    "model", [MlpConfig(), NcfConfig(), RankerConfig(width=8)], ids=["mlp", "ncf", "ranker"]
)
def test_the_same_seed_gives_the_same_model(
    model: MlpConfig | NcfConfig | RankerConfig, reporter: Reporter
) -> None:
    config = RankingConfig(model, epochs=2)
    one, two = (
        train_ranking(examples(), VOCABULARY, TABLE, POPULARITY, config, 1, reporter)
        for _ in range(2)
    )
    assert one.curves == two.curves
    assert one.metrics == two.metrics


def test_a_diverging_loss_stops_with_a_remedy(reporter: Reporter) -> None:
    config = RankingConfig(learning_rate=float("inf"))
    with pytest.raises(TrainingError, match="lower the recipe's learning rate"):
        train_ranking(examples(), VOCABULARY, TABLE, POPULARITY, config, 1, reporter)


def test_too_few_examples_are_refused(reporter: Reporter) -> None:
    with pytest.raises(TrainingError, match="cannot be split"):
        train_ranking(examples(1), VOCABULARY, TABLE, POPULARITY, RankingConfig(), 1, reporter)
