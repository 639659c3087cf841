"""Exact top k beside a stable sort of all scores: sizes, ties and exclusions of every kind.

Vectors of small whole numbers make every score exact, so that answers must be equal to the bit.
"""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.models.topk import ABSENT, TopK

Case = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, int]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    items = draw(st.integers(1, 3_000) | st.integers(1, 40) | st.sampled_from([512, 1024, 1025]))
    queries, dim = draw(st.integers(1, 300) | st.just(1)), draw(st.integers(1, 5))
    spread = draw(st.integers(0, 3))
    """Of the numbers: none means that all scores are equal."""
    torch.manual_seed(draw(st.integers(0, 2**32)))
    user = torch.randint(-spread, spread + 1, (queries, dim)).float()
    table = torch.randint(-spread, spread + 1, (items, dim)).float()
    bias = torch.randint(-spread, spread + 1, (items,)).float()
    excluded = torch.randint(ABSENT, items, (queries, draw(st.integers(0, 2 * min(items, 60)))))
    return user, table, bias, excluded, draw(st.integers(1, 60))


def sorted_whole(
    user: torch.Tensor, table: torch.Tensor, bias: torch.Tensor, excluded: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    scores = user @ table.T + bias
    for query, rows in zip(scores, excluded, strict=True):
        query[rows[rows >= 0]] = float("-inf")
    values, rows = scores.sort(dim=1, descending=True, stable=True)
    values, rows = values[:, :k], rows[:, :k]
    return values, rows.masked_fill(values == float("-inf"), ABSENT)


@given(cases())
def test_the_same_as_sorting_everything(case: Case) -> None:
    user, table, bias, excluded, k = case
    values, rows = sorted_whole(user, table, bias, excluded, k)
    for head in (TopK(k, 0), TopK(k)):
        answer = head(user, table, bias, excluded)
        assert torch.equal(answer[0], values)
        assert torch.equal(answer[1], rows)


@given(cases())
def test_excluding_nothing_is_no_exclusion(case: Case) -> None:
    user, table, bias, _, k = case
    for head in (TopK(k, 0), TopK(k)):
        plain = head(user, table, bias)
        padded = head(user, table, bias, torch.full((len(user), 3), ABSENT))
        assert torch.equal(plain[0], padded[0])
        assert torch.equal(plain[1], padded[1])
