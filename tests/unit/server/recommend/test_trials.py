"""What the rollout is told of releases, and how a shadow is compared."""

from __future__ import annotations

import asyncio

import pytest

from server.inference.errors import InferenceDeadline, InferenceFailed, TritonUnavailable
from server.recommend.pipeline import SHADOWS_IN_FLIGHT, Recommender
from tests.unit.server.recommend.fakes import FakeRelease, FakeRollout, ids, slate


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
def shadow(rollout: FakeRollout) -> FakeRelease:
    """Finds half of what the live release finds."""
    asked_beside = FakeRelease()
    asked_beside.release = 4
    asked_beside.best = ["m1", "m3"]
    rollout.shadow = asked_beside
    return asked_beside


async def test_a_slate_is_observed(
    recommender: Recommender, rollout: FakeRollout, release: FakeRelease, world: None
) -> None:
    made = await slate(recommender)
    ((number, seen),) = rollout.observed
    assert number == 3
    assert (seen.failed, seen.empty, seen.overlap) == (False, False, None)
    assert seen.oov_share == 0.0
    forgetting = [scored.forgetting for scored in made.items]
    assert seen.retention == pytest.approx(1 - sum(forgetting) / len(forgetting))


async def test_a_release_that_knows_nothing_of_the_history_is_observed(
    recommender: Recommender, rollout: FakeRollout, release: FakeRelease, world: None
) -> None:
    release.oov_count = 1
    await slate(recommender)
    ((_, seen),) = rollout.observed
    assert (seen.oov_share, seen.empty) == (1.0, True)


async def test_a_retrieval_that_offers_nothing_is_observed_as_empty(
    recommender: Recommender, rollout: FakeRollout, release: FakeRelease, world: None
) -> None:
    release.best = ["unknown", "m0"]
    assert ids(await slate(recommender))
    assert rollout.observed[0][1].empty


@pytest.mark.parametrize("failure", [InferenceFailed("NaN"), InferenceDeadline("late")])
@pytest.mark.parametrize("model", ["retrieval", "ranking"])
async def test_a_failure_is_observed(
    recommender: Recommender,
    rollout: FakeRollout,
    release: FakeRelease,
    world: None,
    failure: Exception,
    model: str,
) -> None:
    setattr(release, f"{model}_failure", failure)
    await slate(recommender)
    assert [seen.failed for _, seen in rollout.observed] == [True]


async def test_a_triton_that_is_not_there_says_nothing_of_the_release(
    recommender: Recommender, rollout: FakeRollout, release: FakeRelease, world: None
) -> None:
    release.retrieval_failure = TritonUnavailable("gone")
    await slate(recommender)
    assert rollout.observed == []


async def test_a_user_without_history_asks_no_model(
    recommender: Recommender, rollout: FakeRollout, shadow: FakeRelease, world: None
) -> None:
    await slate(recommender, user_id="nobody")
    await settled()
    assert rollout.observed == []


async def test_a_shadow_is_compared_and_never_shown(
    recommender: Recommender, rollout: FakeRollout, shadow: FakeRelease, world: None, sample
) -> None:
    made = await slate(recommender)
    assert made.release == 3
    assert set(ids(made)) == {"m1", "s0", "m2", "s1"}
    await settled()
    (live, _), (other, seen) = rollout.observed
    assert (live, other) == (3, 4)
    assert seen.overlap == 0.25
    assert sample("ebbing_shadow_overlap_ratio_sum") == 0.25
    assert sample("ebbing_slates_total", source="retrieval", degraded="false") == 1


async def test_a_shadow_that_fails_costs_the_slate_nothing(
    recommender: Recommender, rollout: FakeRollout, shadow: FakeRelease, world: None, sample
) -> None:
    shadow.ranking_failure = InferenceFailed("NaN")
    assert not (await slate(recommender)).degraded_reason
    await settled()
    assert [seen.failed for _, seen in rollout.observed] == [False, True]
    assert sample("ebbing_shadow_overlap_ratio_count") == 0


async def test_a_release_that_was_asked_for_has_no_shadow(
    recommender: Recommender, rollout: FakeRollout, shadow: FakeRelease, world: None
) -> None:
    await slate(recommender, release=3)
    await settled()
    assert [number for number, _ in rollout.observed] == [3]


async def test_a_slow_shadow_piles_up_no_further_than_allowed(
    recommender: Recommender, rollout: FakeRollout, shadow: FakeRelease, world: None
) -> None:
    going_on = asyncio.Event()

    async def hang(*_: object) -> None:
        await going_on.wait()

    shadow.retrieve = hang  # type: ignore[assignment]
    for _ in range(SHADOWS_IN_FLIGHT + 5):
        await slate(recommender)
    assert len(recommender._shadows._running) == SHADOWS_IN_FLIGHT
    await recommender.drain()
    assert not recommender._shadows._running
