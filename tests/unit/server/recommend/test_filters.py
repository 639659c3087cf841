"""Which candidates may come into a slate."""

from __future__ import annotations

import pytest

from ebbing.history import item_key
from server.recommend.candidates import Candidate, Source
from server.recommend.filters import eligible
from server.state.store import ItemRecord

AT_US = 1_700_000_000_000_000


def candidate(
    item_id: str, available_us: int = 0, expire_us: int = 0, source: Source = Source.RETRIEVAL
) -> Candidate:
    item = ItemRecord(item_id, item_key(item_id), (), available_us, expire_us, b"")
    return Candidate(item, source)


def kept(candidates: list[Candidate], *excluded: str) -> list[str]:
    keys = {item_key(i) for i in excluded}
    return [c.item.item_id for c in eligible(candidates, keys, AT_US)]


def test_order_is_kept() -> None:
    assert kept([candidate(i) for i in "cab"]) == ["c", "a", "b"]


def test_excluded_items_are_left_out() -> None:
    assert kept([candidate(i) for i in "abc"], "b", "x") == ["a", "c"]
    assert kept([candidate("a")], "a") == []


def test_the_padding_of_a_history_excludes_nothing() -> None:
    assert [c.item.item_id for c in eligible([candidate("a")], {0}, AT_US)] == ["a"]


@pytest.mark.parametrize(
    ("available_us", "expire_us", "wanted"),
    [
        (0, 0, True),
        (AT_US, 0, True),
        (AT_US + 1, 0, False),
        (0, AT_US + 1, True),
        (0, AT_US, False),
        (0, 1, False),
        (AT_US - 1, AT_US + 1, True),
        (AT_US + 1, AT_US + 2, False),
        (AT_US - 2, AT_US - 1, False),
    ],
)
def test_availability(available_us: int, expire_us: int, wanted: bool) -> None:
    assert bool(kept([candidate("a", available_us, expire_us)])) is wanted


def test_an_item_comes_once_from_where_it_came_first() -> None:
    twice = [candidate("a"), candidate("b"), candidate("a", source=Source.POPULAR)]
    assert eligible(twice, (), AT_US) == twice[:2]
