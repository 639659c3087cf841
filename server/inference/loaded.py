"""One release that is ready: its models asked through micro-batchers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebbing.features import CANDIDATE_FEATURES
from ebbing.history import HISTORY_LENGTH, INTEREST_LEVELS, EncodedHistory
from ebbing.interest.forgetting import ForgettingParameters
from ebbing.items import EncodedItems
from ebbing.manifest import Manifest
from server.inference.batcher import MicroBatcher
from server.inference.errors import InferenceFailed, TritonUnavailable

__all__ = ["CANDIDATE_BUCKETS", "LoadedRelease", "Placed", "Retrieved", "blank_inputs"]

PROBED_TOGETHER = 32
"""Questions about the vocabulary at a time, so that traffic has its turn."""
CANDIDATE_BUCKETS = (32, 200, 512)
"""Candidates are padded to one of these, so that the models meet few shapes, all warmed up."""


@dataclass(frozen=True, slots=True)
class Retrieved:
    """What the retrieval model answered for one user."""

    keys: NDArray[np.int64]
    """(K,) item keys, best first."""
    scores: NDArray[np.float32]
    """(K,) scores."""
    oov_count: int
    """History items the model does not know."""
    user: NDArray[np.float32]
    """(D,) the user in the space of items."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where an encoder has items in the space of its retrieval model."""

    vectors: NDArray[np.float32]
    """(N, D): the product with a user's vector is the item's score, but for popularity."""
    popularity: NDArray[np.float32]
    """(N,) what is added to it."""


class LoadedRelease:
    """One release, ready to be asked."""

    def __init__(
        self,
        manifest: Manifest,
        forgetting: ForgettingParameters,
        batchers: dict[str, MicroBatcher],
        clock: Callable[[], float],
        timeout_s: float,
        doubt: Callable[[], None],
    ) -> None:
        """Set up; ``clock`` is the batchers', ``timeout_s`` bounds one call to Triton.

        ``doubt`` is told when an answer makes it look as if Triton had lost the models.
        """
        self.manifest = manifest
        self.release = manifest.release
        self.forgetting = forgetting
        self._batchers = batchers
        self._clock = clock
        self._timeout_s = timeout_s
        self._doubt = doubt

    async def retrieve(self, history: EncodedHistory, budget_s: float) -> Retrieved:
        """The items nearest to a user, within ``budget_s`` seconds.

        Raises:
            InferenceError: no usable answer in time.
        """
        answer = await self._ask("retrieval", _history_inputs(history), budget_s)
        keys, scores = answer["ITEM_KEYS__0"][0], answer["SCORES__1"][0]
        if not np.isfinite(scores).all():
            raise InferenceFailed("the retrieval model answered scores that are not finite")
        user = answer["USER_VECTOR__2"][0].astype(np.float32)
        return Retrieved(keys, scores, int(answer["OOV_COUNT__3"][0, 0]), user)

    async def rank(
        self,
        history: EncodedHistory,
        keys: NDArray[np.int64],
        features: NDArray[np.float32],
        budget_s: float,
    ) -> NDArray[np.float32]:
        """Relevance of (C,) candidates with (C, F) features, (C,) from 0 to 1.

        Raises:
            InferenceError: no usable answer in time.
        """
        count = len(keys)
        padded = next(size for size in CANDIDATE_BUCKETS if count <= size)
        inputs = _history_inputs(history)
        inputs["CANDIDATE_KEYS__3"] = np.pad(keys, (0, padded - count))[None]
        inputs["CANDIDATE_FEATURES__4"] = np.pad(features, ((0, padded - count), (0, 0)))[None]
        answer = await self._ask("ranking", inputs, budget_s)
        relevance = answer["RELEVANCE__0"][0, :count].astype(np.float32)
        if not np.isfinite(relevance).all():
            raise InferenceFailed("the ranking model answered relevance that is not finite")
        return relevance

    @property
    def encodes_items(self) -> bool:
        """Whether the release has a model that places items its others have never seen."""
        return "item_encoder" in self._batchers

    async def unknown(self, keys: Sequence[int], timeout_s: float) -> list[int]:
        """Those of some items that the retrieval model does not know, in order.

        It is asked with histories full of them how many of each it does not know; only histories
        with some are asked about one by one, so that a known catalogue takes few questions.

        Raises:
            InferenceError: no usable answer in time.
        """
        found: list[int] = []
        for start in range(0, len(keys), PROBED_TOGETHER * HISTORY_LENGTH):
            part = list(keys[start : start + PROBED_TOGETHER * HISTORY_LENGTH])
            rows = [part[i : i + HISTORY_LENGTH] for i in range(0, len(part), HISTORY_LENGTH)]
            counts = await self._unknown_of(rows, timeout_s)
            doubtful = [key for row, n in zip(rows, counts, strict=True) if n for key in row]
            for first in range(0, len(doubtful), PROBED_TOGETHER):
                alone = doubtful[first : first + PROBED_TOGETHER]
                counts = await self._unknown_of([[key] for key in alone], timeout_s)
                found += [key for key, n in zip(alone, counts, strict=True) if n]
        return found

    async def _unknown_of(self, rows: Sequence[Sequence[int]], timeout_s: float) -> list[int]:
        inputs = blank_inputs("retrieval", len(rows), 0)
        for row, keys in enumerate(rows):
            inputs["HISTORY_KEYS__0"][row, HISTORY_LENGTH - len(keys) :] = keys
            inputs["HISTORY_TYPES__2"][row, HISTORY_LENGTH - len(keys) :] = 1
        answer = await self._ask("retrieval", inputs, timeout_s)
        return [int(count) for count in answer["OOV_COUNT__3"][:, 0]]

    async def place(self, items: EncodedItems, timeout_s: float) -> Placed:
        """Where the encoder has items, at most as many as it takes at once.

        Raises:
            InferenceError: no usable answer in time.
        """
        inputs: dict[str, NDArray[np.generic]] = {
            "INTEREST_KEYS__0": items.interest_keys,
            "INTEREST_SHARES__1": items.shares,
            "CONTENT_KEYS__2": items.content_keys,
            "CONTENT_VECTORS__3": items.contents,
        }
        answer = await self._ask("item_encoder", inputs, timeout_s)
        placed = Placed(
            answer["ITEM_VECTOR__0"].astype(np.float32),
            answer["POPULARITY__1"][:, 0].astype(np.float32),
        )
        if not (np.isfinite(placed.vectors).all() and np.isfinite(placed.popularity).all()):
            raise InferenceFailed("the item encoder answered numbers that are not finite")
        return placed

    async def drain(self) -> None:
        """Refuse new questions; return when the running ones are answered."""
        await asyncio.gather(*(batcher.drain() for batcher in self._batchers.values()))

    async def _ask(
        self, model: str, inputs: dict[str, NDArray[np.generic]], budget_s: float
    ) -> dict[str, NDArray[np.generic]]:
        deadline = self._clock() + min(budget_s, self._timeout_s)
        version = self.manifest.models[model].version
        try:
            answer = await self._batchers[model].submit(model, version, inputs, deadline=deadline)
        except (TritonUnavailable, InferenceFailed):
            self._doubt()
            raise
        return dict(answer)


def _history_inputs(history: EncodedHistory) -> dict[str, NDArray[np.generic]]:
    return {
        "HISTORY_KEYS__0": history.keys[None],
        "HISTORY_AGES__1": history.ages[None],
        "HISTORY_TYPES__2": history.types[None],
    }


def blank_inputs(name: str, rows: int, candidates: int) -> dict[str, NDArray[Any]]:
    """Inputs of a model that say nothing: so many rows, of so many candidates where it ranks."""
    if name == "item_encoder":
        return {
            "INTEREST_KEYS__0": np.zeros((rows, 1, INTEREST_LEVELS), np.int64),
            "INTEREST_SHARES__1": np.zeros((rows, 1), np.float32),
            "CONTENT_KEYS__2": np.zeros((rows, 1), np.int64),
            "CONTENT_VECTORS__3": np.zeros((rows, 1, 1), np.float32),
        }
    inputs: dict[str, NDArray[Any]] = {
        "HISTORY_KEYS__0": np.zeros((rows, HISTORY_LENGTH), np.int64),
        "HISTORY_AGES__1": np.zeros((rows, HISTORY_LENGTH), np.float32),
        "HISTORY_TYPES__2": np.zeros((rows, HISTORY_LENGTH), np.int32),
    }
    if name == "ranking":
        width = len(CANDIDATE_FEATURES)
        inputs["CANDIDATE_KEYS__3"] = np.zeros((rows, candidates), np.int64)
        inputs["CANDIDATE_FEATURES__4"] = np.zeros((rows, candidates, width), np.float32)
    return inputs
