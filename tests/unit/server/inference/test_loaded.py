"""Asking a release: what its models are sent, and what of their answers can be used."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import pytest

from ebbing.features import CANDIDATE_FEATURES
from ebbing.history import HISTORY_LENGTH, EncodedHistory, encode_history, item_key
from ebbing.items import encode_items
from server.inference.errors import (
    InferenceDeadline,
    InferenceFailed,
    TritonUnavailable,
)
from server.inference.loaded import CANDIDATE_BUCKETS, LoadedRelease
from tests.unit.server.inference.fake_triton import FakeTriton


def history(*item_ids: str) -> EncodedHistory:
    return encode_history(
        [item_key(i) for i in item_ids], range(len(item_ids)), [1] * len(item_ids), 10.0
    )


async def test_retrieval_asks_the_pinned_version(live: LoadedRelease, triton: FakeTriton) -> None:
    answer = await live.retrieve(history("a", "b"), 5.0)
    assert answer.keys.tolist() == [item_key("b")] * 3
    assert answer.scores.tolist() == [3.0, 2.0, 1.0]
    assert answer.oov_count == 2
    assert list(triton.asked) == [("retrieval", 3, ((1, HISTORY_LENGTH),) * 3)]


@pytest.mark.parametrize("count", [1, 31, 32, 33, 200, 201, 512])
async def test_candidates_are_padded_to_a_warm_shape_and_cut_again(
    live: LoadedRelease, triton: FakeTriton, count: int
) -> None:
    keys = np.arange(1, count + 1)
    features = np.ones((count, len(CANDIDATE_FEATURES)), np.float32)
    relevance = await live.rank(history("a"), keys, features, 5.0)
    assert relevance.tolist() == keys.tolist()
    assert relevance.dtype == np.float32
    ((_, version, shapes),) = triton.asked
    assert version == 3
    padded = next(size for size in CANDIDATE_BUCKETS if count <= size)
    assert shapes[3:] == ((1, padded), (1, padded, len(CANDIDATE_FEATURES)))


async def test_concurrent_users_share_calls_and_get_their_own_answers(
    live: LoadedRelease, triton: FakeTriton
) -> None:
    names = [f"i{n}" for n in range(40)]
    answers = await asyncio.gather(*(live.retrieve(history(name), 5.0) for name in names))
    assert [a.keys[0] for a in answers] == [item_key(name) for name in names]
    assert sum(triton.asked.values()) < 5


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
async def test_numbers_that_are_none_are_a_failure(loaded, bad: float) -> None:
    async def infer(model: str, version: int, inputs: Any, timeout_s: float) -> Any:
        if model == "ranking":
            return {"RELEVANCE__0": np.full((1, 32), bad, np.float32)}
        return {
            "ITEM_KEYS__0": np.array([[1, 2]]),
            "SCORES__1": np.array([[1.0, bad]], np.float32),
            "USER_VECTOR__2": np.zeros((1, 2), np.float32),
            "OOV_COUNT__3": np.array([[0]], np.int32),
        }

    release = loaded(infer)
    with pytest.raises(InferenceFailed):
        await release.retrieve(history("a"), 5.0)
    features = np.zeros((1, len(CANDIDATE_FEATURES)), np.float32)
    with pytest.raises(InferenceFailed):
        await release.rank(history("a"), np.array([1]), features, 5.0)


async def test_what_the_padding_scores_does_not_matter(loaded) -> None:
    async def infer(model: str, version: int, inputs: Any, timeout_s: float) -> Any:
        return {"RELEVANCE__0": np.array([[0.5] + [np.nan] * 31], np.float32)}

    features = np.zeros((1, len(CANDIDATE_FEATURES)), np.float32)
    assert await loaded(infer).rank(history("a"), np.array([1]), features, 5.0) == [0.5]


@pytest.mark.parametrize(("budget_s", "timeout_s"), [(0.05, 5.0), (5.0, 0.05)])
async def test_the_caller_and_the_setting_bound_the_wait(
    loaded, budget_s: float, timeout_s: float
) -> None:
    async def hang(model: str, version: int, inputs: Any, timeout_s: float) -> Any:
        await asyncio.sleep(60)

    doubts: list[None] = []
    release = loaded(hang, timeout_s, lambda: doubts.append(None))
    started = time.monotonic()
    with pytest.raises(InferenceDeadline):
        await release.retrieve(history("a"), budget_s)
    assert time.monotonic() - started < 2.0
    # A late answer does not say that the models are gone.
    assert doubts == []


@pytest.mark.parametrize("failure", [TritonUnavailable("gone"), InferenceFailed("broken")])
async def test_an_answer_as_from_lost_models_raises_doubt(loaded, failure: Exception) -> None:
    async def infer(model: str, version: int, inputs: Any, timeout_s: float) -> Any:
        raise failure

    doubts: list[None] = []
    with pytest.raises(type(failure)):
        await loaded(infer, doubt=lambda: doubts.append(None)).retrieve(history("a"), 5.0)
    assert doubts == [None]


# Items that the models have never seen.


async def test_what_the_vocabulary_lacks_is_found_with_few_questions(loaded) -> None:
    known = set(range(1, 3001)) - {7, 1500, 1501, 2999}
    questions = []

    async def infer(model: str, version: int, inputs: Any, timeout_s: float) -> Any:
        keys = inputs["HISTORY_KEYS__0"]
        questions.append(len(keys))
        unknown = [[sum(key not in known and key != 0 for key in row)] for row in keys.tolist()]
        return {"OOV_COUNT__3": np.array(unknown, np.int32)}

    release = loaded(infer)
    assert await release.unknown(list(range(1, 3001)), 5.0) == [7, 1500, 1501, 2999]
    assert len(questions) < 15
    assert max(questions) <= 32
    assert await release.unknown([], 5.0) == []


async def test_the_encoder_places_items(loaded) -> None:
    async def infer(model: str, version: int, inputs: Any, timeout_s: float) -> Any:
        assert (model, version) == ("item_encoder", 9)
        shares = inputs["INTEREST_SHARES__1"]
        vectors = np.repeat(shares[:, :1], 4, axis=1)
        return {
            "ITEM_VECTOR__0": vectors if shares[0, 0] < 9 else vectors * np.nan,
            "POPULARITY__1": shares[:, :1],
            "OOV_COUNT__2": np.zeros((len(shares), 1), np.int32),
        }

    release = loaded(infer, encoder=True)
    assert release.encodes_items
    placed = await release.place(encode_items([(("a", 1.0),), (("b", 2.0),)]), 5.0)
    assert placed.vectors.tolist() == [[1.0] * 4, [2.0] * 4]
    assert placed.popularity.tolist() == [1.0, 2.0]
    with pytest.raises(InferenceFailed):
        await release.place(encode_items([(("a", 9.0),)]), 5.0)
    assert not loaded(infer).encodes_items
