"""The input layout of the models: one encoder for training and serving, with a digest.

A model published with one layout cannot be fed another: the digest travels in the release's
manifest and is checked where the release is published and where it is served.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ebbing.features import CANDIDATE_FEATURES

__all__ = [
    "HISTORY_LENGTH",
    "INTEREST_LEVELS",
    "ITEM_ENCODER_INPUTS",
    "ITEM_ENCODER_OUTPUTS",
    "LAYOUT_DIGEST",
    "MODEL_TENSORS",
    "RANKING_INPUTS",
    "RANKING_OUTPUTS",
    "RETRIEVAL_INPUTS",
    "RETRIEVAL_OUTPUTS",
    "EncodedHistory",
    "TensorSpec",
    "encode_history",
    "item_key",
    "item_keys",
]

HISTORY_LENGTH = 50
"""Events a model sees of a user, newest last; shorter histories are padded on the left."""

INTEREST_LEVELS = 4
"""Levels of an interest's path that a model sees; what lies deeper counts as the last of them."""


class TensorSpec(NamedTuple):
    """One tensor of a model's contract, batch axis left out; ``-1`` is any size."""

    name: str
    dtype: str
    dims: tuple[int, ...]


_HISTORY = (
    TensorSpec("HISTORY_KEYS__0", "INT64", (HISTORY_LENGTH,)),
    TensorSpec("HISTORY_AGES__1", "FP32", (HISTORY_LENGTH,)),
    TensorSpec("HISTORY_TYPES__2", "INT32", (HISTORY_LENGTH,)),
)
RETRIEVAL_INPUTS = _HISTORY
RETRIEVAL_OUTPUTS = (
    TensorSpec("ITEM_KEYS__0", "INT64", (-1,)),
    TensorSpec("SCORES__1", "FP32", (-1,)),
    TensorSpec("USER_VECTOR__2", "FP32", (-1,)),
    TensorSpec("OOV_COUNT__3", "INT32", (1,)),
)
RANKING_INPUTS = (
    *_HISTORY,
    TensorSpec("CANDIDATE_KEYS__3", "INT64", (-1,)),
    TensorSpec("CANDIDATE_FEATURES__4", "FP32", (-1, len(CANDIDATE_FEATURES))),
)
RANKING_OUTPUTS = (TensorSpec("RELEVANCE__0", "FP32", (-1,)),)
ITEM_ENCODER_INPUTS = (
    TensorSpec("INTEREST_KEYS__0", "INT64", (-1, INTEREST_LEVELS)),
    TensorSpec("INTEREST_SHARES__1", "FP32", (-1,)),
    TensorSpec("CONTENT_KEYS__2", "INT64", (-1,)),
    TensorSpec("CONTENT_VECTORS__3", "FP32", (-1, -1)),
)
ITEM_ENCODER_OUTPUTS = (
    TensorSpec("ITEM_VECTOR__0", "FP32", (-1,)),
    TensorSpec("POPULARITY__1", "FP32", (1,)),
    TensorSpec("OOV_COUNT__2", "INT32", (1,)),
)
MODEL_TENSORS = {
    "retrieval": (RETRIEVAL_INPUTS, RETRIEVAL_OUTPUTS),
    "ranking": (RANKING_INPUTS, RANKING_OUTPUTS),
    "item_encoder": (ITEM_ENCODER_INPUTS, ITEM_ENCODER_OUTPUTS),
}
"""Inputs and outputs of every model a release can hold."""


def _layout_digest() -> str:
    layout = {
        "item_key": "blake2b-63",
        "order": "event_time, event_id; newest last; left padding 0",
        "items": "one row an interest, root first, deeper levels 0; one row a modality",
        "ages": "seconds",
        "candidate_features": list(CANDIDATE_FEATURES),
        "models": MODEL_TENSORS,
    }
    return hashlib.sha256(json.dumps(layout, sort_keys=True).encode()).hexdigest()


LAYOUT_DIGEST = _layout_digest()


def item_key(item_id: str) -> int:
    """The 63-bit number an item has on the wire to a model; never 0, which is padding."""
    digest = hashlib.blake2b(item_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1 or 1


def item_keys(item_ids: Sequence[str]) -> NDArray[np.int64]:
    """``item_key`` of many items, shape (n,)."""
    return np.fromiter((item_key(i) for i in item_ids), np.int64, len(item_ids))


class EncodedHistory(NamedTuple):
    """A user's newest events as the models take them, each of shape (HISTORY_LENGTH,)."""

    keys: NDArray[np.int64]
    ages: NDArray[np.float32]
    types: NDArray[np.int32]


def encode_history(
    keys: ArrayLike, times: ArrayLike, types: ArrayLike, at: float
) -> EncodedHistory:
    """Encode a history as of ``at``.

    Args:
        keys: item keys, shape (n,), oldest first by (event_time, event_id).
        times: event times in seconds since the epoch, shape (n,), not decreasing.
        types: event type numbers, shape (n,).
        at: the moment asked for, seconds since the epoch; events after it are left out.

    Returns:
        Arrays of shape (HISTORY_LENGTH,), newest last, zeros on the left; ages are seconds ≥ 0.
    """
    moments = np.asarray(times, np.float64)
    n = int(np.searchsorted(moments, at, side="right"))
    taken = slice(max(0, n - HISTORY_LENGTH), n)
    m = taken.stop - taken.start
    out = EncodedHistory(
        np.zeros(HISTORY_LENGTH, np.int64),
        np.zeros(HISTORY_LENGTH, np.float32),
        np.zeros(HISTORY_LENGTH, np.int32),
    )
    if m:
        out.keys[-m:] = np.asarray(keys, np.int64)[taken]
        out.ages[-m:] = at - moments[taken]
        out.types[-m:] = np.asarray(types, np.int32)[taken]
    return out
