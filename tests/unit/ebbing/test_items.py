"""What the item encoder is told of items, by small examples."""

from __future__ import annotations

import numpy as np
import pytest

from ebbing.history import INTEREST_LEVELS, ITEM_ENCODER_INPUTS, item_key
from ebbing.items import encode_items, interest_levels


def test_the_levels_of_a_path_lead_to_it() -> None:
    assert interest_levels("sports/football") == ["sports", "sports/football"]


def test_what_lies_deeper_counts_as_the_last_level() -> None:
    levels = interest_levels("a/b/c/d/e/f")
    assert levels == ["a", "a/b", "a/b/c", "a/b/c/d"]
    assert len(levels) == INTEREST_LEVELS


def test_items_are_padded_to_the_widest() -> None:
    encoded = encode_items(
        [[("sports/football", 0.75), ("travel", 0.25)], []],
        [{"text": [1.0, 2.0], "image": [3.0]}, {"text": [4.0, 5.0]}],
    )
    football = [item_key("sports"), item_key("sports/football"), 0, 0]
    assert encoded.interest_keys[0].tolist() == [football, [item_key("travel"), 0, 0, 0]]
    assert not encoded.interest_keys[1].any()
    np.testing.assert_array_equal(encoded.shares, np.float32([[0.75, 0.25], [0, 0]]))
    assert encoded.content_keys.tolist() == [
        [item_key("image"), item_key("text")],
        [item_key("text"), 0],
    ]
    np.testing.assert_array_equal(encoded.contents, [[[3, 0], [1, 2]], [[4, 5], [0, 0]]])


@pytest.mark.parametrize("contents", [None, [{}, {}]])
def test_no_axis_is_ever_empty(contents: list[dict[str, list[float]]] | None) -> None:
    encoded = encode_items([[], []], contents)
    for part, spec in zip(encoded, ITEM_ENCODER_INPUTS, strict=True):
        assert part.shape[0] == 2
        assert len(part.shape) == 1 + len(spec.dims)
        assert 0 not in part.shape
        assert not part.any()


def test_a_vector_with_a_gap_is_no_vector() -> None:
    encoded = encode_items([[]], [{"text": [1.0, float("nan")], "image": [2.0]}])
    assert encoded.content_keys.tolist() == [[item_key("image")]]
    assert encoded.contents.tolist() == [[[2.0]]]
