from __future__ import annotations

import pytest
import torch

from ebbing.history import HISTORY_LENGTH
from trainer.models.mlp import MlpConfig, MlpRanker
from trainer.models.vocabulary import Vocabulary

DAY_S = 86_400.0


@pytest.fixture
def ranker() -> MlpRanker:
    torch.manual_seed(0)
    return MlpRanker(
        Vocabulary(range(100, 120)), torch.randn(22, 8), torch.zeros(6), torch.ones(6), MlpConfig()
    )


def test_the_layers_are_the_articles(ranker: MlpRanker) -> None:
    widths = [layer.out_features for layer in ranker.layers if hasattr(layer, "out_features")]
    assert widths == [128, 64, 32, 1]


def test_relevance_is_a_probability(ranker: MlpRanker) -> None:
    keys = torch.randint(100, 125, (3, HISTORY_LENGTH))
    keys[0] = 0
    ages = torch.rand(3, HISTORY_LENGTH) * 1e9
    candidates = torch.randint(95, 125, (3, 7))
    relevance = ranker(keys, ages, keys.int(), candidates, torch.randn(3, 7, 6))
    assert relevance.shape == (3, 7)
    assert ((relevance >= 0) & (relevance <= 1)).all()


def test_the_user_is_the_age_weighted_mean(ranker: MlpRanker) -> None:
    rows, ages = torch.tensor([[0, 4, 9]]), torch.tensor([[0.0, 60.0, 30.0]]) * DAY_S
    with torch.no_grad():
        user = ranker.user(rows, ages)
    # With the initial half-life of 30 days the older one weighs half as much.
    expected = (ranker.table[4] + 2 * ranker.table[9]) / 3
    torch.testing.assert_close(user[0], expected)


def test_very_old_histories_keep_finite_gradients(ranker: MlpRanker) -> None:
    rows = torch.zeros(2, HISTORY_LENGTH, dtype=torch.int64)
    rows[0, -2:] = 5
    ages = torch.zeros(2, HISTORY_LENGTH)
    ages[0, -2:] = torch.tensor([3e9, 1e9])
    logits = ranker.logits(rows, ages, rows, torch.full((2, 1), 3), torch.zeros(2, 1, 6))
    logits.sum().backward()
    for parameter in ranker.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
