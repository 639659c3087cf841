"""What the item encoder is told of items: one encoder for training and serving.

Interests and modalities cross the wire as 63-bit numbers, like items; the model owns both of its
vocabularies, so what a release has not been trained with is left out of the answer and counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ebbing.history import INTEREST_LEVELS, item_key

__all__ = ["EncodedItems", "encode_items", "interest_levels"]


class EncodedItems(NamedTuple):
    """B items as the item encoder takes them."""

    interest_keys: NDArray[np.int64]
    """(B, A, INTEREST_LEVELS) keys of each interest's levels, root first; 0 is padding."""
    shares: NDArray[np.float32]
    """(B, A) what of the item each interest is; 0 is padding."""
    content_keys: NDArray[np.int64]
    """(B, M) key of each modality; 0 where the item has none there."""
    contents: NDArray[np.float32]
    """(B, M, W) content vectors, those narrower than the widest padded with 0."""


def interest_levels(path: str) -> list[str]:
    """``a/b`` → ``["a", "a/b"]``; of deeper paths the first ``INTEREST_LEVELS`` levels."""
    levels = path.split("/")[:INTEREST_LEVELS]
    return ["/".join(levels[: depth + 1]) for depth in range(len(levels))]


def encode_items(
    interests: Sequence[Sequence[tuple[str, float]]],
    contents: Sequence[Mapping[str, ArrayLike]] | None = None,
) -> EncodedItems:
    """Encode items.

    Args:
        interests: of each of B items its (path, share > 0) pairs.
        contents: of each item its content vectors by modality, of any width; a vector with a
            number that is not finite counts as absent. None: no item has any.

    Returns:
        Arrays of at least one interest and one modality, so that no axis is empty.
    """
    n = len(interests)
    vectors = [_finite(item) for item in contents] if contents else [{} for _ in range(n)]
    n_interests = max([1, *map(len, interests)])
    n_contents = max([1, *map(len, vectors)])
    width = max([1, *(len(v) for item in vectors for v in item.values())])
    out = EncodedItems(
        np.zeros((n, n_interests, INTEREST_LEVELS), np.int64),
        np.zeros((n, n_interests), np.float32),
        np.zeros((n, n_contents), np.int64),
        np.zeros((n, n_contents, width), np.float32),
    )
    known: dict[str, list[int]] = {}
    for row, (pairs, item) in enumerate(zip(interests, vectors, strict=True)):
        for place, (path, share) in enumerate(pairs):
            if path not in known:
                known[path] = [item_key(level) for level in interest_levels(path)]
            out.interest_keys[row, place, : len(known[path])] = known[path]
            out.shares[row, place] = share
        for place, (modality, vector) in enumerate(sorted(item.items())):
            out.content_keys[row, place] = item_key(modality)
            out.contents[row, place, : len(vector)] = vector
    return out


def _finite(item: Mapping[str, ArrayLike]) -> dict[str, NDArray[np.float32]]:
    vectors = {name: np.asarray(vector, np.float32) for name, vector in item.items()}
    return {name: vector for name, vector in vectors.items() if np.isfinite(vector).all()}
