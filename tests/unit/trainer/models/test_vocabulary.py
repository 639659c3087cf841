from __future__ import annotations

import pytest
import torch

from trainer.models.vocabulary import Vocabulary

BIG = 2**63 - 1


def test_keys_become_rows_in_sorted_order() -> None:
    vocabulary = Vocabulary([30, 10, BIG])
    rows = vocabulary(torch.tensor([[0, 10, 30], [BIG, 11, BIG - 1]]))
    assert rows.tolist() == [[0, 2, 3], [4, 1, 1]]
    assert vocabulary.size() == 5


def test_a_key_above_all_is_unknown() -> None:
    assert Vocabulary([5, 7])(torch.tensor([8, BIG])).tolist() == [1, 1]


@pytest.mark.parametrize("keys", [[], [0, 1], [3, 3], [-1]])
def test_keys_that_make_no_vocabulary_are_refused(keys: list[int]) -> None:
    with pytest.raises(ValueError, match="distinct keys above zero"):
        Vocabulary(keys)
