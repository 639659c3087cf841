"""Recommending: each request of many fails by itself, and calls have the time they bring."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from ebbing.v1 import recommendation_service_pb2 as recommendation_pb
from server.errors import Overloaded
from server.recommend.slates import ScoreRequest, SlateRequest
from server.recommend.strategies import Strategy
from server.rpc.recommendations import Recommendations
from tests.unit.server.rpc.request_table import NOW_US, batch, recommend, score


class FakeRecommender:
    """Remembers what it is asked; has no slate for anybody."""

    def __init__(self) -> None:
        self.asked: list[SlateRequest | ScoreRequest] = []
        self.budgets: list[float] = []

    async def recommend(
        self, request: SlateRequest | ScoreRequest, now_us: int, budget_s: float
    ) -> Any:
        assert now_us == NOW_US
        self.asked.append(request)
        self.budgets.append(budget_s)
        raise Overloaded("no slate")

    score = recommend


class FakeContext:
    """A call with so many seconds left; None brings no deadline."""

    def __init__(self, remaining_s: float | None = None) -> None:
        self._remaining_s = remaining_s

    def time_remaining(self) -> float | None:
        return self._remaining_s


@pytest.fixture
def recommender() -> FakeRecommender:
    return FakeRecommender()


@pytest.fixture
def recommendations(recommender: Any) -> Recommendations:
    return Recommendations(recommender, lambda: NOW_US, 5.0)


def context(remaining_s: float | None = None) -> Any:
    return FakeContext(remaining_s)


@pytest.mark.parametrize(("remaining_s", "budget_s"), [(None, 5.0), (1.5, 1.5), (60.0, 5.0)])
async def test_a_call_has_the_time_it_brings_up_to_the_setting(
    recommendations: Recommendations,
    recommender: FakeRecommender,
    remaining_s: float | None,
    budget_s: float,
) -> None:
    with pytest.raises(Overloaded):
        await recommendations.RecommendItems(recommend(), context(remaining_s))
    with pytest.raises(Overloaded):
        await recommendations.ScoreItems(score(), context(remaining_s))
    await recommendations.BatchRecommendItems(batch(recommend()), context(remaining_s))
    assert recommender.budgets == [budget_s] * 3


async def test_what_is_not_set_takes_its_default(
    recommendations: Recommendations, recommender: FakeRecommender
) -> None:
    with pytest.raises(Overloaded):
        await recommendations.RecommendItems(recommend(), context())
    with pytest.raises(Overloaded):
        await recommendations.ScoreItems(score(), context())
    assert recommender.asked == [
        SlateRequest("u", 10, None, False, frozenset(), 0, None),
        ScoreRequest("u", ("i",), None, 0, None),
    ]


async def test_what_is_set_is_handed_on(
    recommendations: Recommendations, recommender: FakeRecommender
) -> None:
    request = recommend(
        page_size=3, include_seen=True, exclude_item_ids=["a", "b"], release=2, alpha=0.0
    )
    request.at.FromMicroseconds(7)
    with pytest.raises(Overloaded):
        await recommendations.RecommendItems(request, context())
    asked = score(item_ids=["b", "a"], release=2, alpha=0.5)
    asked.at.FromMicroseconds(0)
    with pytest.raises(Overloaded):
        await recommendations.ScoreItems(asked, context())
    assert recommender.asked == [
        SlateRequest("u", 3, 7, True, frozenset("ab"), 2, 0.0),
        ScoreRequest("u", ("b", "a"), 0, 2, 0.5),
    ]


async def test_all_that_is_asked_for_reaches_the_pipeline(
    recommendations: Recommendations, recommender: FakeRecommender
) -> None:
    asked = recommend(
        strategy=4, context={"country": "DE"}, context_interests=["a/b"], diversity=0.0
    )
    asked.allow.add(attribute="brand", values=["x", "y"])
    asked.deny.add(attribute="colour", values=["red"])
    with pytest.raises(Overloaded):
        await recommendations.RecommendItems(asked, context())
    (reached,) = recommender.asked
    assert isinstance(reached, SlateRequest)
    assert reached.strategy is Strategy.PACE
    assert reached.filters.allow == (("brand", frozenset({"x", "y"})),)
    assert reached.filters.deny == (("colour", frozenset({"red"})),)
    assert reached.context == {"country": "DE"}
    assert reached.context_interests == ("a/b",)
    assert reached.diversity == 0.0


async def test_each_request_of_a_batch_fails_by_itself(recommendations: Recommendations) -> None:
    requests = batch(
        recommend(user_id=""), recommend(page_size=-1), recommend(strategy=9), recommend()
    )
    response = await recommendations.BatchRecommendItems(requests, context())
    failures = [(r.failure.code, r.failure.reason) for r in response.results]
    assert failures == [
        (3, "INVALID_FIELD"),
        (3, "INVALID_FIELD"),
        (3, "INVALID_FIELD"),
        (8, "OVERLOADED"),
    ]
    assert response.results[0].failure.message == "user_id: is required"


async def test_each_request_of_a_stream_fails_by_itself(
    recommendations: Recommendations, recommender: FakeRecommender
) -> None:
    async def sent() -> AsyncIterator[recommendation_pb.StreamRecommendItemsRequest]:
        for one in (recommend(user_id=""), recommend(), recommend(release=-1)):
            yield recommendation_pb.StreamRecommendItemsRequest(request=one)

    # A stream lives long; its messages do not share one deadline.
    stream = recommendations.StreamRecommendItems(sent(), context(0.1))
    reasons = [response.result.failure.reason async for response in stream]
    assert reasons == ["INVALID_FIELD", "OVERLOADED", "INVALID_FIELD"]
    assert recommender.budgets == [5.0]
