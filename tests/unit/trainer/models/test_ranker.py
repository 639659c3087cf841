from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from ebbing.history import HISTORY_LENGTH
from trainer.models.ranker import Ranker, RankerConfig, TargetAttention
from trainer.models.vocabulary import Vocabulary

DAY_S = 86_400.0


@pytest.fixture
def ranker() -> Ranker:
    torch.manual_seed(0)
    return Ranker(
        Vocabulary(range(100, 120)),
        torch.randn(22, 8),
        torch.randn(22),
        torch.zeros(6),
        torch.ones(6),
        RankerConfig(width=8),
    ).eval()


def history(*keys: int, age: float = DAY_S) -> tuple[Tensor, Tensor, Tensor]:
    rows = torch.zeros(1, HISTORY_LENGTH, dtype=torch.int64)
    ages = torch.zeros(1, HISTORY_LENGTH)
    if keys:
        rows[0, -len(keys) :] = torch.tensor(keys)
        ages[0, -len(keys) :] = age
    return rows, ages, (rows > 0).int()


def test_relevance_is_a_probability_whatever_is_unknown(ranker: Ranker) -> None:
    for keys in ((), (1, 2, 3), (105, 7), tuple(range(100, 120))):
        relevance = ranker(*history(*keys), torch.tensor([[0, 5, 101]]), torch.randn(1, 3, 6))
        assert relevance.shape == (1, 3)
        assert ((relevance > 0) & (relevance < 1)).all()


def test_a_candidate_is_judged_by_itself(ranker: Ranker) -> None:
    candidates, features = torch.tensor([[100, 107, 111]]), torch.randn(1, 3, 6)
    together = ranker(*history(103, 104), candidates, features)
    for place in range(3):
        alone = ranker(*history(103, 104), candidates[:, [place]], features[:, [place]])
        torch.testing.assert_close(alone[0, 0], together[0, place])


def test_events_are_heard_less_as_they_grow_older() -> None:
    torch.manual_seed(0)
    attention = TargetAttention(8, 2)
    asked, told = torch.randn(1, 1, 8), torch.randn(1, 3, 8)
    real = torch.ones(1, 3, dtype=torch.bool)
    heard = [
        attention(asked, told, torch.full((1, 3), days * DAY_S), real) for days in (0.0, 1.0, 100.0)
    ]
    for (newer, newer_loud), (older, older_loud) in pairwise(heard):
        assert (older.sum(dim=3) < newer.sum(dim=3)).all()
        assert (older_loud < newer_loud).all()


def test_padding_is_not_heard() -> None:
    torch.manual_seed(0)
    attention = TargetAttention(8, 2)
    real = torch.tensor([[False, True, True]])
    heard, _ = attention(torch.randn(1, 2, 8), torch.randn(1, 3, 8), torch.zeros(1, 3), real)
    assert (heard[..., 0] == 0).all()
    assert (heard[..., 1:] > 0).all()


def test_types_of_events_matter_and_unheard_ones_do_no_harm(ranker: Ranker) -> None:
    rows, ages, types = history(103, 104)
    with torch.no_grad():
        ranker.event_type.weight.normal_()
    asked = (torch.tensor([[100, 107]]), torch.zeros(1, 2, 6))
    one, other, beyond = (ranker(rows, ages, types * kind, *asked) for kind in (1, 5, 99))
    assert not torch.equal(one, other)
    assert beyond.isfinite().all()
