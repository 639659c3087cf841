from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor

from trainer.models.topk import ABSENT, GROUP, TopK, best, leave_out

INF = float("inf")


def catalogue(items: int, queries: int, dim: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(items)
    return torch.randn(queries, dim), torch.randn(items, dim), torch.randn(items)


@pytest.mark.parametrize("direct", [0, None])
@pytest.mark.parametrize("items", [1, 15, 16, 17, 2048, 2049, 70_001])
def test_as_torch_has_it(items: int, direct: int | None) -> None:
    user, table, bias = catalogue(items, 3)
    values, rows = TopK(20, direct)(user, table, bias)
    wanted = torch.topk(user @ table.T + bias, min(20, items))
    torch.testing.assert_close(values, wanted.values)
    assert torch.equal(rows, wanted.indices)


def test_many_chunks() -> None:
    user, table, bias = catalogue(5_003, 300)
    values, rows = TopK(7, 0)(user, table, bias)
    wanted = torch.topk(user @ table.T + bias, 7)
    torch.testing.assert_close(values, wanted.values)
    assert torch.equal(rows, wanted.indices)


@pytest.mark.parametrize("direct", [0, None])
def test_what_is_excluded_never_comes_and_what_is_left_does(direct: int | None) -> None:
    user, table, bias = catalogue(100, 2)
    excluded = torch.full((2, 98), ABSENT)
    excluded[0] = torch.arange(97, -1, -1)
    values, rows = TopK(5, direct)(user, table, bias, excluded)
    assert sorted(rows[0].tolist()) == [ABSENT] * 3 + [98, 99]
    assert values[0, 2:].tolist() == [-INF] * 3
    assert torch.equal(rows[1], torch.topk(user[1] @ table.T + bias, 5).indices)


@pytest.mark.parametrize("direct", [0, None])
def test_rows_beyond_the_catalogue_exclude_nothing(direct: int | None) -> None:
    user, table, bias = catalogue(40, 1)
    excluded = torch.tensor([[40, 47, 48, 10_000, ABSENT]])
    assert TopK(40, direct)(user, table, bias, excluded)[1].sort()[0].tolist() == [list(range(40))]


@pytest.mark.parametrize("direct", [0, None])
def test_among_equals_the_first_come(direct: int | None) -> None:
    rows = TopK(30, direct)(torch.zeros(2, 4), torch.randn(2_000, 4), torch.zeros(2_000))[1]
    assert rows.tolist() == [list(range(30))] * 2


@pytest.mark.parametrize("direct", [0, None])
def test_no_query_no_answer(direct: int | None) -> None:
    values, rows = TopK(4, direct)(torch.zeros(0, 4), torch.randn(50, 4), torch.zeros(50))
    assert values.shape == rows.shape == (0, 4)


def test_a_half_precision_table_is_scored_as_it_is() -> None:
    user, table, bias = (part.bfloat16() for part in catalogue(3_000, 4))
    values, rows = TopK(10, 0)(user, table, bias)
    assert values.dtype == torch.bfloat16
    scores = (user.double() @ table.double().T + bias.double()).gather(1, rows)
    torch.testing.assert_close(values.double(), scores, atol=0.1, rtol=0.02)


def test_scripted_it_answers_the_same_for_any_batch() -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        scripted = torch.jit.script(TopK(9, 0))
    for queries in (1, 5, 2):
        user, table, bias = catalogue(700, queries)
        excluded = torch.randint(-1, 700, (queries, 6))
        for inputs in ((user, table, bias), (user, table, bias, excluded)):
            for one, other in zip(scripted(*inputs), TopK(9, 0)(*inputs), strict=True):
                torch.testing.assert_close(one, other)


def test_no_gradient_is_asked_of_it() -> None:
    user, table, bias = (part.requires_grad_() for part in catalogue(100, 2))
    assert not TopK(3, 0)(user, table, bias)[0].requires_grad


def test_nothing_to_ask_for() -> None:
    with pytest.raises(ValueError, match="ask for 1 at least"):
        TopK(0)


def test_best_breaks_ties_where_the_choice_ends() -> None:
    values, where = best(torch.tensor([[1.0, 3.0, 1.0, 3.0, 1.0], [5.0, 4.0, 3.0, 2.0, 1.0]]), 3)
    assert where.tolist() == [[1, 3, 0], [0, 1, 2]]
    assert values.tolist() == [[3.0, 3.0, 1.0], [5.0, 4.0, 3.0]]


def test_leaving_out_the_same_twice_and_nothing() -> None:
    scores = torch.ones(2, GROUP)
    leave_out(scores, torch.tensor([[0, 0, ABSENT], [GROUP, ABSENT, ABSENT]]))
    assert (scores == -INF).sum(dim=1).tolist() == [1, 0]
    leave_out(scores, torch.empty(2, 0, dtype=torch.int64))
    assert (scores == -INF).sum().item() == 1
