from __future__ import annotations

import pytest
import torch

from ebbing.history import HISTORY_LENGTH
from trainer.models.ncf import NcfConfig, NcfRanker
from trainer.models.vocabulary import Vocabulary


@pytest.fixture
def ranker() -> NcfRanker:
    torch.manual_seed(0)
    return NcfRanker(Vocabulary(range(100, 120)), NcfConfig())


def test_the_widths_are_the_articles(ranker: NcfRanker) -> None:
    assert ranker.had.embedding_dim == 32
    assert ranker.item.embedding_dim == 32
    assert (ranker.dense.in_features, ranker.dense.out_features) == (64, 64)
    assert ranker.out.out_features == 1


def test_the_user_is_the_mean_of_what_they_had(ranker: NcfRanker) -> None:
    had = ranker.had.weight
    torch.testing.assert_close(ranker.user(torch.tensor([[0, 5, 1, 9]]))[0], (had[5] + had[9]) / 2)


@pytest.mark.parametrize("rows", [[0, 0], [0, 1]])
def test_who_had_nothing_known_is_nobody(rows: list[int], ranker: NcfRanker) -> None:
    with torch.no_grad():
        ranker.nobody.fill_(0.5)
    torch.testing.assert_close(ranker.user(torch.tensor([rows]))[0], torch.full((32,), 0.5))


def test_unknown_candidates_are_alike(ranker: NcfRanker) -> None:
    keys = torch.zeros(1, HISTORY_LENGTH, dtype=torch.int64)
    keys[0, -1] = 104
    features = torch.randn(1, 3, 6)
    relevance = ranker(keys, keys.float(), keys.int(), torch.tensor([[7, 8, 110]]), features)
    assert relevance[0, 0] == relevance[0, 1] != relevance[0, 2]
    assert ((relevance > 0) & (relevance < 1)).all()
