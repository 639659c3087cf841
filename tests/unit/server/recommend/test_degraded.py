"""The pipeline where the models do not answer: a slate all the same, in time, that says so."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import pytest

from ebbing.history import item_key
from server.errors import ModelsUnavailable
from server.inference.breaker import FAILURES
from server.inference.errors import (
    InferenceDeadline,
    InferenceError,
    InferenceFailed,
    QueueFull,
    TritonUnavailable,
)
from server.recommend.candidates import Source
from server.recommend.pipeline import Recommender
from tests.unit.server.recommend.fakes import (
    FakeRelease,
    FakeRollout,
    ids,
    score,
    slate,
    sources,
)

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


OPEN = "TRITON_BREAKER_OPEN"


async def reasons(recommender: Recommender, times: int, budget_s: float = 5.0) -> list[str]:
    return [(await slate(recommender, budget_s)).degraded_reason for _ in range(times)]


async def test_a_model_that_fails_again_and_again_is_left_alone(
    recommender: Recommender, rollout: FakeRollout, release: FakeRelease, world: None, sample
) -> None:
    release.ranking_failure = InferenceFailed("NaN")
    assert set(await reasons(recommender, FAILURES)) == {"TRITON_FAILED"}
    assert await reasons(recommender, 2) == [OPEN, OPEN]
    assert len(release.ranked) == FAILURES
    assert sample("ebbing_breaker_open", release="3", model="ranking") == 1
    assert sample("ebbing_breaker_open", release="3", model="retrieval") == 0
    # What is well goes on, and the rollout hears of every slate that is not.
    assert sources(await slate(recommender)) == {Source.RETRIEVAL}
    assert [seen.failed for _, seen in rollout.observed] == [True] * (FAILURES + 3)
    with pytest.raises(ModelsUnavailable):
        await score(recommender, "m1")


async def test_one_that_answers_a_probe_is_back(
    make: Any, release: FakeRelease, world: None, sample
) -> None:
    now = [0.0]
    recommender = make(clock=lambda: now[0])
    release.retrieval_failure = InferenceFailed("gone wrong")
    await reasons(recommender, FAILURES)
    now[0] = 2.0
    assert await reasons(recommender, 2) == ["TRITON_FAILED", OPEN]
    release.retrieval_failure = None
    assert await reasons(recommender, 1) == [OPEN]
    now[0] = 4.0
    assert await reasons(recommender, 3) == ["", "", ""]
    assert sample("ebbing_breaker_open", release="3", model="retrieval") == 0


@pytest.mark.parametrize("kind", [TritonUnavailable, QueueFull])
async def test_who_says_at_once_that_it_cannot_is_asked_again(
    recommender: Recommender, release: FakeRelease, world: None, kind: type[InferenceError]
) -> None:
    release.retrieval_failure = kind("not now")
    assert OPEN not in await reasons(recommender, 2 * FAILURES)


async def test_callers_in_a_hurry_close_a_model_to_nobody(
    recommender: Recommender, release: FakeRelease, world: None
) -> None:
    release.retrieval_failure = InferenceDeadline("too late")
    assert OPEN not in await reasons(recommender, 2 * FAILURES, budget_s=0.1)
    assert (await reasons(recommender, FAILURES + 1))[-1] == OPEN


# What is odd about an answer, but no failure.


async def test_items_named_twice_are_shown_once(
    recommender: Recommender, release: FakeRelease, world: None
) -> None:
    release.best = ["m1", "m1", "m2", "m1", "m2"]
    made = await slate(recommender)
    assert ids(made) == ["m1", "m2"]
    assert release.ranked == [[item_key("m1"), item_key("m2")]]
    assert made.degraded_reason == ""


@pytest.mark.parametrize("keys", [[0, 0], [-1, 2**63 - 1, -(2**63)], []], ids=str)
async def test_keys_of_no_item_leave_the_popular_and_count_as_empty(
    recommender: Recommender, rollout: FakeRollout, world: None, loaded, keys: list[int]
) -> None:
    async def infer(model: str, version: int, inputs: Any, timeout_s: float) -> Any:
        assert model == "retrieval"
        return {
            "ITEM_KEYS__0": np.array([keys], np.int64),
            "SCORES__1": np.zeros((1, len(keys)), np.float32),
            "USER_VECTOR__2": np.zeros((1, 4), np.float32),
            "OOV_COUNT__3": np.zeros((1, 1), np.int32),
        }

    rollout.live = loaded(infer)
    made = await slate(recommender)
    assert ids(made)
    assert sources(made) == {Source.POPULAR}
    ((_, seen),) = rollout.observed
    assert (seen.empty, seen.failed) == (True, False)


async def test_512_items_are_scored(
    recommender: Recommender, release: FakeRelease, world: None
) -> None:
    made = await score(recommender, *(f"m{n}" for n in range(512)))
    assert len(made.items) == 512
