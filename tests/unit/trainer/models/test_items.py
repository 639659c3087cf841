from __future__ import annotations

import torch

from trainer.models.items import ItemTable


def test_an_item_is_itself_and_its_interests() -> None:
    table = ItemTable([(("a/b", 0.5), ("c", 0.5)), ()], dim=4)
    interest = table.interest.weight  # a, a/b, c in order of appearance
    vectors = table()
    torch.testing.assert_close(
        vectors[2],
        table.own.weight[2] + 0.25 * interest[0] + 0.25 * interest[1] + 0.5 * interest[2],
    )
    torch.testing.assert_close(vectors[3], table.own.weight[3])


def test_some_rows_are_those_of_the_whole_table() -> None:
    table = ItemTable([(("a/b", 0.5), ("c", 0.5)), (), (("c", 1.0),)], dim=4)
    rows = torch.tensor([4, 0, 2, 4, 3])
    torch.testing.assert_close(table.lookup(rows), table()[rows])
    table.lookup(rows).sum().backward()
    few = [weight.grad.clone() for weight in table.parameters()]
    table.zero_grad()
    table()[rows].sum().backward()
    for one, weight in zip(few, table.parameters(), strict=True):
        torch.testing.assert_close(one, weight.grad)


def test_a_catalogue_without_interests_works() -> None:
    table = ItemTable([(), ()], dim=4)
    torch.testing.assert_close(table(), table.own.weight)
