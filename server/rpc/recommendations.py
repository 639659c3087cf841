"""RecommendationService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

from ebbing.v1 import recommendation_service_pb2 as pb
from ebbing.v1 import recommendation_service_pb2_grpc
from server.errors import EbbingError
from server.recommend.filters import Filters
from server.recommend.pipeline import Recommender
from server.recommend.slates import ScoreRequest, Slate, SlateRequest
from server.recommend.strategies import Strategy
from server.rpc import Context
from server.rpc.mapping import failure, recommended_items, slate_message
from server.rpc.paging import page_size
from server.rpc.streams import answer_in_order
from server.rpc.validation import Checks

__all__ = ["Recommendations"]

MAX_SLATE = 100
DEFAULT_SLATE = 10
MAX_EXCLUDED = 1000
MAX_SCORED = 512
MAX_BATCH = 256
MAX_FILTERS = 16
MAX_FILTER_VALUES = 100
MAX_CONTEXT = 16


class Recommendations(recommendation_service_pb2_grpc.RecommendationServiceServicer):
    """Recommends and scores items."""

    def __init__(
        self, recommender: Recommender, now_us: Callable[[], int], default_deadline_s: float
    ) -> None:
        """Set up; ``default_deadline_s`` holds for calls that bring no deadline, and at most."""
        self._recommender = recommender
        self._now_us = now_us
        self._default_deadline_s = default_deadline_s

    async def RecommendItems(
        self, request: pb.RecommendItemsRequest, context: Context
    ) -> pb.RecommendItemsResponse:
        """A slate for one user."""
        slate = await self._slate(request, self._budget(context))
        return pb.RecommendItemsResponse(slate=slate_message(slate))

    async def BatchRecommendItems(
        self, request: pb.BatchRecommendItemsRequest, context: Context
    ) -> pb.BatchRecommendItemsResponse:
        """Slates for many users, each by itself."""
        with Checks() as checks:
            checks.count("requests", len(request.requests), MAX_BATCH, required=True)
        budget_s = self._budget(context)
        results = await asyncio.gather(*(self._result(one, budget_s) for one in request.requests))
        return pb.BatchRecommendItemsResponse(results=results)

    async def StreamRecommendItems(
        self, request_iterator: AsyncIterator[pb.StreamRecommendItemsRequest], context: Context
    ) -> AsyncIterator[pb.StreamRecommendItemsResponse]:
        """Slates as requests come, in order."""

        async def answer(
            message: pb.StreamRecommendItemsRequest,
        ) -> pb.StreamRecommendItemsResponse:
            # A stream lives long; each message has the time a lone call has.
            result = await self._result(message.request, self._default_deadline_s)
            return pb.StreamRecommendItemsResponse(result=result)

        async for response in answer_in_order(request_iterator, answer):
            yield response

    async def ScoreItems(
        self, request: pb.ScoreItemsRequest, context: Context
    ) -> pb.ScoreItemsResponse:
        """Given items scored for one user."""
        with Checks() as checks:
            checks.identifier("user_id", request.user_id)
            checks.count("item_ids", len(request.item_ids), MAX_SCORED, required=True)
            checks.distinct("item_ids", request.item_ids)
            for i, item_id in enumerate(request.item_ids):
                checks.identifier(f"item_ids[{i}]", item_id)
            at_us = checks.moment(request)
            _check_release_and_alpha(checks, request)
        slate = await self._recommender.score(
            ScoreRequest(
                user_id=request.user_id,
                item_ids=tuple(request.item_ids),
                at_us=at_us,
                release=request.release,
                alpha=request.alpha if request.HasField("alpha") else None,
            ),
            self._now_us(),
            self._budget(context),
        )
        return pb.ScoreItemsResponse(
            items=recommended_items(slate),
            release=slate.release,
            article_score=slate.article_score,
        )

    async def _result(
        self, request: pb.RecommendItemsRequest, budget_s: float
    ) -> pb.RecommendItemsResult:
        try:
            slate = await self._slate(request, budget_s)
        except EbbingError as error:
            return pb.RecommendItemsResult(failure=failure(error))
        return pb.RecommendItemsResult(slate=slate_message(slate))

    async def _slate(self, request: pb.RecommendItemsRequest, budget_s: float) -> Slate:
        with Checks() as checks:
            checks.identifier("user_id", request.user_id)
            at_us = checks.moment(request)
            if request.strategy not in pb.Strategy.values():
                checks.found("strategy", f"is unknown: use one of {', '.join(_STRATEGIES)}")
            checks.count("exclude_item_ids", len(request.exclude_item_ids), MAX_EXCLUDED)
            for i, item_id in enumerate(request.exclude_item_ids):
                checks.identifier(f"exclude_item_ids[{i}]", item_id)
            _check_release_and_alpha(checks, request)
            _check_filters(checks, "allow", request.allow)
            _check_filters(checks, "deny", request.deny)
            checks.count("context", len(request.context), MAX_CONTEXT)
            for name, value in request.context.items():
                checks.identifier("context", name)
                checks.text("context", value, checks.limits.text_bytes)
            checks.count("context_interests", len(request.context_interests), MAX_CONTEXT)
            for i, path in enumerate(request.context_interests[:MAX_CONTEXT]):
                checks.path(f"context_interests[{i}]", path)
            if request.HasField("diversity"):
                checks.between("diversity", request.diversity, 0.0, 1.0)
        size = page_size(request.page_size, DEFAULT_SLATE, MAX_SLATE)
        return await self._recommender.recommend(
            SlateRequest(
                user_id=request.user_id,
                size=size,
                at_us=at_us,
                include_seen=request.include_seen,
                excluded_ids=frozenset(request.exclude_item_ids),
                release=request.release,
                alpha=request.alpha if request.HasField("alpha") else None,
                strategy=Strategy(request.strategy or pb.STRATEGY_FOLLOW),
                filters=Filters(_filters(request.allow), _filters(request.deny)),
                context=dict(request.context),
                context_interests=tuple(request.context_interests),
                diversity=request.diversity if request.HasField("diversity") else None,
            ),
            self._now_us(),
            budget_s,
        )

    def _budget(self, context: Context) -> float:
        remaining: float | None = context.time_remaining()
        if remaining is None:
            return self._default_deadline_s
        return min(remaining, self._default_deadline_s)


_STRATEGIES = [name.removeprefix("STRATEGY_") for name in pb.Strategy.keys()[1:]]


def _check_release_and_alpha(checks: Checks, request: Any) -> None:
    if request.release < 0:
        checks.found("release", "must be 1 or more, or 0 for the live one")
    checks.alpha(request)


def _check_filters(checks: Checks, field: str, filters: Sequence[pb.AttributeFilter]) -> None:
    checks.count(field, len(filters), MAX_FILTERS)
    for i, one in enumerate(filters[:MAX_FILTERS]):
        checks.identifier(f"{field}[{i}].attribute", one.attribute)
        values = f"{field}[{i}].values"
        checks.count(values, len(one.values), MAX_FILTER_VALUES, required=True)
        for value in one.values[:MAX_FILTER_VALUES]:
            checks.text(values, value, checks.limits.text_bytes)


def _filters(
    filters: Iterable[pb.AttributeFilter],
) -> tuple[tuple[str, frozenset[str]], ...]:
    return tuple((one.attribute, frozenset(one.values)) for one in filters)
