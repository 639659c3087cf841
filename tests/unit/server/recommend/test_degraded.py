"""The pipeline where the models do not answer: a slate all the same, in time, that says so."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import pytest

from ebbing.history import item_key
from server.inference.errors import InferenceError, TritonUnavailable
from server.recommend.candidates import Source
from server.recommend.pipeline import Recommender
from tests.unit.server.recommend.fakes import FakeRelease, FakeRollout, ids, slate, sources

KINDS = [InferenceError, *InferenceError.__subclasses__()]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
async def test_a_failing_retrieval_gives_the_popular_weighed_by_interest(
    recommender: Recommender,
    release: FakeRelease,
    world: None,
    sample,
    logged: list[dict[str, Any]],
    kind: type[InferenceError],
) -> None:
    release.retrieval_failure = kind("no answer", detail="what Triton said")
    made = await slate(recommender)
    assert made.degraded_reason == f"TRITON_{kind.outcome.upper()}"
    assert sources(made) == {Source.POPULAR}
    # The popular s0 and s1 are nothing of Ann's; m1 is, and m0 was seen.
    assert ids(made) == ["m1", "s0", "s1", "s2"]
    assert {s.relevance for s in made.items} == {None}
    assert made.release == 3
    assert release.ranked == []
    assert sample("ebbing_slates_total", source="popular", degraded="true") == 1
    (entry,) = logged
    assert entry["detail"] == "what Triton said"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
async def test_a_failing_ranking_leaves_the_order_of_retrieval(
    recommender: Recommender,
    release: FakeRelease,
    world: None,
    sample,
    kind: type[InferenceError],
) -> None:
    release.best = ["m3", "m1", "m2"]
    release.ranking_failure = kind("no answer")
    made = await slate(recommender)
    assert ids(made) == ["m3", "m1", "m2"]
    assert made.degraded_reason == f"TRITON_{kind.outcome.upper()}"
    assert sources(made) == {Source.RETRIEVAL}
    assert {s.relevance for s in made.items} == {None}
    assert [s.candidate.retrieval_score for s in made.items] == [1.0, 0.5, 0.0]
    assert sample("ebbing_slates_total", source="retrieval", degraded="true") == 1


async def test_filters_hold_for_a_degraded_slate_too(
    recommender: Recommender, release: FakeRelease, world: None
) -> None:
    release.retrieval_failure = TritonUnavailable("down")
    made = await slate(recommender, excluded_ids=frozenset({"s0"}))
    assert ids(made) == ["m1", "s1", "s2"]
    assert len((await slate(recommender, size=1)).items) == 1


async def test_the_budget_is_shared_out(
    recommender: Recommender, release: FakeRelease, world: None
) -> None:
    await slate(recommender, budget_s=2.0)
    retrieval_s, ranking_s = release.budgets
    assert 0 < ranking_s < retrieval_s
    assert retrieval_s + ranking_s < 2.0


async def test_a_triton_that_hangs_costs_less_than_the_budget(
    recommender: Recommender, rollout: FakeRollout, world: None, loaded
) -> None:
    async def hang(model: str, version: int, inputs: Any, timeout_s: float) -> Any:
        await asyncio.sleep(timeout_s + 10)

    rollout.live = loaded(hang)
    started = time.monotonic()
    made = await slate(recommender, budget_s=1.0)
    assert time.monotonic() - started < 1.0
    assert made.degraded_reason == "TRITON_DEADLINE"
    assert ids(made)


@pytest.mark.parametrize("bad", ["retrieval", "ranking"])
async def test_scores_that_are_no_numbers_degrade_the_slate(
    recommender: Recommender, rollout: FakeRollout, world: None, loaded, bad: str
) -> None:
    async def infer(model: str, version: int, inputs: Any, timeout_s: float) -> Any:
        rows = len(inputs["HISTORY_KEYS__0"])
        value = np.nan if model == bad else 0.5
        if model == "retrieval":
            return {
                "ITEM_KEYS__0": np.full((rows, 1), item_key("m2")),
                "SCORES__1": np.full((rows, 1), value, np.float32),
                "USER_VECTOR__2": np.zeros((rows, 4), np.float32),
                "OOV_COUNT__3": np.zeros((rows, 1), np.int32),
            }
        shape = inputs["CANDIDATE_KEYS__3"].shape
        return {"RELEVANCE__0": np.full(shape, value, np.float32)}

    rollout.live = loaded(infer)
    made = await slate(recommender)
    assert made.degraded_reason == "TRITON_FAILED"
    assert sources(made) == {Source.RETRIEVAL if bad == "ranking" else Source.POPULAR}
    assert all(np.isfinite(s.score) for s in made.items)


async def test_what_is_not_of_triton_is_not_hidden(
    recommender: Recommender, release: FakeRelease, world: None
) -> None:
    release.retrieval_failure = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError):
        await slate(recommender)
