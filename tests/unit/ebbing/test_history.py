"""The input layout: what a model sees of a user, and what identifies an item."""

from __future__ import annotations

import numpy as np
import pytest

from ebbing.features import CANDIDATE_FEATURES
from ebbing.history import (
    HISTORY_LENGTH,
    LAYOUT_DIGEST,
    MODEL_TENSORS,
    RANKING_INPUTS,
    encode_history,
    item_key,
    item_keys,
)

L = HISTORY_LENGTH


def encode(n: int, at: float):
    """The encoding as of ``at`` of n events at 1, 2, … n seconds."""
    return encode_history(np.arange(1, n + 1) * 10, np.arange(1.0, n + 1), np.full(n, 5), at)


def test_short_histories_are_padded_on_the_left() -> None:
    keys, ages, types = encode(3, at=7.0)
    assert keys.tolist() == [0] * (L - 3) + [10, 20, 30]
    assert ages.tolist() == [0.0] * (L - 3) + [6.0, 5.0, 4.0]
    assert types.tolist() == [0] * (L - 3) + [5, 5, 5]


def test_only_the_newest_of_a_long_history_are_seen() -> None:
    keys, ages, _ = encode(L + 20, at=L + 20.0)
    assert keys.tolist() == [10 * i for i in range(21, L + 21)]
    assert ages[-1] == 0.0
    assert ages[0] == L - 1


def test_exactly_as_many_as_fit() -> None:
    assert encode(L, at=1e3).keys.tolist() == [10 * i for i in range(1, L + 1)]


def test_what_comes_after_the_moment_is_not_seen() -> None:
    keys, ages, _ = encode(10, at=4.0)
    assert keys[-4:].tolist() == [10, 20, 30, 40]
    assert not keys[:-4].any()
    assert (ages >= 0).all()
    assert not encode(10, at=0.5).keys.any()


def test_no_history() -> None:
    for array in encode_history([], [], [], 1.0):
        assert array.shape == (L,)
        assert not array.any()


def test_types_and_shapes_are_those_of_the_contract() -> None:
    dtypes = {"INT64": np.int64, "FP32": np.float32, "INT32": np.int32}
    for array, spec in zip(encode(3, at=9.0), RANKING_INPUTS, strict=False):
        assert array.dtype == dtypes[spec.dtype]
        assert array.shape == spec.dims


def test_the_arguments_are_left_alone() -> None:
    keys, times, types = np.arange(60), np.arange(60.0), np.ones(60, int)
    encoded = encode_history(keys, times, types, 99.0)
    encoded.keys[:] = -1
    assert keys.tolist() == list(range(60))


def test_keys_are_positive_63_bit_numbers_and_differ() -> None:
    keys = [item_key(f"item-{i}") for i in range(20_000)]
    assert min(keys) > 0
    assert max(keys) < 2**63
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("item_id", ["", "a", "ü", "漢字", "a" * 128, "\x00"])
def test_any_text_has_a_key(item_id: str) -> None:
    assert 0 < item_key(item_id) < 2**63


def test_keys_of_many_are_keys_of_each() -> None:
    many = item_keys(["a", "b"])
    assert many.dtype == np.int64
    assert many.tolist() == [item_key("a"), item_key("b")]
    assert item_keys([]).shape == (0,)


def test_tensor_names_carry_their_position() -> None:
    for inputs, outputs in MODEL_TENSORS.values():
        for specs in (inputs, outputs):
            assert [int(spec.name.rsplit("__", 1)[1]) for spec in specs] == list(range(len(specs)))


def test_the_layout_covers_the_candidate_features() -> None:
    assert RANKING_INPUTS[-1].dims == (-1, len(CANDIDATE_FEATURES))
    assert len(LAYOUT_DIGEST) == 64
