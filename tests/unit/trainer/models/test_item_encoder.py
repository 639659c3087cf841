from __future__ import annotations

import pytest
import torch

from ebbing.history import item_key
from ebbing.items import encode_items
from trainer.models.item_encoder import Description, ItemEncoder

KNOWN = ("sports", "sports/football", "travel")


@pytest.fixture
def description() -> Description:
    return Description(
        [item_key(level) for level in KNOWN],
        {"image": (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0]))},
    )


def described(description: Description, *items, contents=None) -> tuple[torch.Tensor, list[int]]:
    encoded = encode_items(items, contents)
    parts, unknown = description(*(torch.from_numpy(part) for part in encoded))
    assert parts.shape == (len(items), description.size())
    return parts, unknown.squeeze(1).tolist()


def shares(description: Description, row: torch.Tensor) -> dict[str, float]:
    places = description.interests(torch.tensor([item_key(level) for level in KNOWN]))
    return dict(zip(KNOWN, row[places].tolist(), strict=True))


def test_an_interest_is_the_mean_of_its_levels(description: Description) -> None:
    parts, unknown = described(description, [("sports/football", 0.5), ("travel", 0.5)])
    assert shares(description, parts[0]) == {"sports": 0.25, "sports/football": 0.25, "travel": 0.5}
    assert unknown == [0]


def test_an_unknown_child_falls_to_its_parent(description: Description) -> None:
    parts, unknown = described(description, [("sports/curling", 1.0)])
    assert shares(description, parts[0]) == {"sports": 1.0, "sports/football": 0.0, "travel": 0.0}
    assert unknown == [0]


def test_what_nobody_knows_is_left_out_and_counted(description: Description) -> None:
    parts, unknown = described(
        description,
        [("travel", 0.25), ("chess", 0.75)],
        [("chess", 1.0)],
        contents=[{"smell": [1.0]}, {}],
    )
    assert shares(description, parts[0])["travel"] == pytest.approx(1.0)
    assert unknown == [2, 1]
    # Of the second nothing is left but the constant.
    assert parts[1].tolist() == [0.0] * (description.size() - 1) + [1.0]


def test_contents_are_standardised_and_absent_ones_masked(description: Description) -> None:
    contents = [
        {"image": [3.0, 10.0]},
        {},
        {"image": [3.0]},
        {"audio": [1, 2, 3], "image": [3, 10]},
    ]
    parts, unknown = described(description, (), (), (), (), contents=contents)
    there = [1.0, 2.0, 2.0, 1.0]
    assert parts[0, -4:].tolist() == there
    assert parts[1, -4:].tolist() == [0.0, 0.0, 0.0, 1.0]
    assert parts[3, -4:].tolist() == there
    assert unknown == [0, 0, 0, 1]


def test_a_vector_too_short_is_no_vector(description: Description) -> None:
    parts, unknown = described(description, (), contents=[{"image": [3.0]}])
    assert parts[0, -4:].tolist() == [0.0, 0.0, 0.0, 1.0]
    assert unknown == [1]


def test_the_order_of_what_describes_an_item_does_not_matter(description: Description) -> None:
    torch.manual_seed(0)
    encoder = ItemEncoder(description, torch.randn(description.size(), 5))
    one = encode_items([[("travel", 0.5), ("sports", 0.5)]], [{"image": [1, 2], "audio": [3]}])
    other = encode_items([[("sports", 0.5), ("travel", 0.5)]], [{"audio": [3], "image": [1, 2]}])
    answers = [encoder(*(torch.from_numpy(part) for part in item)) for item in (one, other)]
    for a, b in zip(*answers, strict=True):
        torch.testing.assert_close(a, b)
    vector, popularity, unknown = answers[0]
    assert (vector.shape, popularity.shape, unknown.shape) == ((1, 4), (1, 1), (1, 1))


@pytest.mark.parametrize("contents", [None, [{"image": [1.0]}]])
def test_a_model_that_knows_nothing_answers_all_the_same(contents) -> None:
    description = Description([], {})
    parts, unknown = described(description, [("sports", 1.0)], contents=contents)
    assert parts[0].sum() == 1.0
    assert unknown == [1 + (contents is not None)]
