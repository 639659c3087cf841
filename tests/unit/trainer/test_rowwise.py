from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn

from trainer.rowwise import RowwiseAdagrad


def test_only_rows_with_a_gradient_move_and_by_the_formula() -> None:
    table = nn.Embedding(5, 3, sparse=True)
    before = table.weight.detach().clone()
    optimizer = RowwiseAdagrad([table.weight], lr=0.5)
    slope = torch.tensor([[1.0, -2.0, 2.0]])
    squares = torch.zeros(5)
    for repeats in (1, 2):
        optimizer.zero_grad()
        # A row that is looked up twice has one gradient, the sum.
        (table(torch.tensor([3] * repeats)) * slope).sum().backward()
        optimizer.step()
        squares[3] += (repeats * slope).square().mean()
        before[3] -= 0.5 * repeats * slope[0] / squares[3].sqrt()
        torch.testing.assert_close(table.weight.detach(), before)
    torch.testing.assert_close(optimizer.state[table.weight]["squares"], squares)


def test_it_goes_on_from_its_state() -> None:
    def stepped(optimizer: RowwiseAdagrad, table: nn.Embedding) -> torch.Tensor:
        optimizer.zero_grad()
        table(torch.tensor([1, 2])).square().sum().backward()
        optimizer.step()
        return table.weight.detach().clone()

    one = nn.Embedding(4, 2, sparse=True)
    optimizer = RowwiseAdagrad([one.weight], lr=0.1)
    stepped(optimizer, one)
    other = nn.Embedding.from_pretrained(one.weight.detach().clone(), freeze=False, sparse=True)
    resumed = RowwiseAdagrad([other.weight], lr=0.1)
    resumed.load_state_dict(deepcopy(optimizer.state_dict()))
    assert torch.equal(stepped(optimizer, one), stepped(resumed, other))


def test_a_table_without_gradient_stays() -> None:
    table = nn.Embedding(4, 2, sparse=True)
    before = table.weight.detach().clone()
    RowwiseAdagrad([table.weight], lr=0.1).step()
    assert torch.equal(table.weight, before)
