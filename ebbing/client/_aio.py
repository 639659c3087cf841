"""The client for asyncio."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, cast

import grpc
from grpc import aio

from ebbing.client import _data as data
from ebbing.client import _insight as insight
from ebbing.client._base import CURSOR_METADATA, ClientBase, Sources, channel_options
from ebbing.client._calls import Call, Calls, Pages, Watch
from ebbing.client._errors import translate
from ebbing.client._policy import ClientOptions
from ebbing.client._stubs import AsyncStubs
from ebbing.v1.recommendation_service_pb2 import (
    RecommendItemsRequest,
    RecommendItemsResult,
    StreamRecommendItemsRequest,
)
from ebbing.v1.user_event_pb2 import UserEvent
from ebbing.v1.user_event_service_pb2 import EventAck, StreamUserEventsRequest

__all__ = ["AsyncClient"]

P = ParamSpec("P")
R = TypeVar("R")


def _unary(
    build: Callable[Concatenate[ClientBase, P], Call[R]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, R]]:
    @wraps(build)
    async def method(client: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> R:
        call = build(client, *args, **kwargs)
        return call.result(await client._answer(call))

    return method


def _many(
    build: Callable[Concatenate[ClientBase, P], Calls[R]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, R]]:
    @wraps(build)
    async def method(client: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> R:
        calls = build(client, *args, **kwargs)
        return calls.result([await client._answer(call) for call in calls.calls])

    return method


def _pages(
    build: Callable[Concatenate[ClientBase, P], Pages[R]],
) -> Callable[Concatenate[AsyncClient, P], AsyncIterator[R]]:
    @wraps(build)
    async def method(client: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[R]:
        pages, token = build(client, *args, **kwargs), ""
        while True:
            answer = await client._answer(pages.page(token))
            for row in pages.rows(answer):
                yield row
            token = answer.next_page_token
            if not token:
                return

    return method


def _watch(
    build: Callable[Concatenate[ClientBase, P], Watch[R]],
) -> Callable[Concatenate[AsyncClient, P], AsyncIterator[R]]:
    @wraps(build)
    def method(client: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[R]:
        watch = build(client, *args, **kwargs)
        if watch.resumable:
            return client._resumed(watch)
        return client._stream(watch.rpc(client.stubs), watch.request, watch.result)

    return method


class AsyncClient(ClientBase):
    """A client of the gateway for one event loop; make it where that loop runs.

    Args:
        target: address of the gateway, such as ``gateway:50051``.
        options: deadlines and retries.
        credentials: of the channel; None speaks plaintext.
        sources: where event ids, times and chance come from.
        sleep: waits between attempts, seconds.

    Attributes:
        stubs: the generated stubs, for what has no method here; they neither retry nor translate
            errors.
    """

    def __init__(
        self,
        target: str,
        *,
        options: ClientOptions | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        sources: Sources | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__(options or ClientOptions(), sources or Sources())
        self._sleep = sleep
        self._channel = (
            aio.secure_channel(target, credentials, channel_options())
            if credentials
            else aio.insecure_channel(target, channel_options())
        )
        # The same stubs serve both kinds of channel; only their types differ.
        self.stubs = AsyncStubs.over(cast(grpc.Channel, self._channel))

    async def close(self) -> None:
        """End running calls and close the channel."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    write_event = _unary(data.write_event)
    write_events = _many(data.write_events)
    write_items = _many(data.write_items)
    get_item = _unary(data.get_item)
    list_items = _pages(data.list_items)
    delete_item = _unary(data.delete_item)
    write_interests = _many(data.write_interests)
    list_interests = _pages(data.list_interests)
    write_relations = _many(data.write_relations)
    list_relations = _pages(data.list_relations)
    interest_profile = _unary(insight.interest_profile)
    interest_history = _pages(insight.interest_history)
    interest_graph = _unary(insight.interest_graph)
    explain_interest = _unary(insight.explain_interest)
    watch_forgetting = _watch(insight.watch_forgetting)
    recommend = _unary(insight.recommend)
    recommend_many = _many(insight.recommend_many)
    score = _unary(insight.score)
    list_releases = _pages(insight.list_releases)
    publish_release = _unary(insight.publish_release)
    set_release_traffic = _unary(insight.set_release_traffic)
    promote_release = _unary(insight.promote_release)
    roll_back_release = _unary(insight.roll_back_release)
    watch_releases = _watch(insight.watch_releases)
    export_user_data = _watch(data.export_user_data)
    delete_user_data = _unary(data.delete_user_data)

    def stream_events(self, events: AsyncIterable[UserEvent]) -> AsyncIterator[EventAck]:
        """Write events as they come; their acknowledgements in order. Not retried."""
        requests = (
            StreamUserEventsRequest(event=data.identified(self, event)) async for event in events
        )
        return self._stream(self.stubs.events.StreamUserEvents, requests, lambda a: a.ack)

    def stream_recommendations(
        self, requests: AsyncIterable[RecommendItemsRequest]
    ) -> AsyncIterator[RecommendItemsResult]:
        """Slates as requests come, in order. Not retried."""
        wrapped = (StreamRecommendItemsRequest(request=request) async for request in requests)
        rpc = self.stubs.recommendations.StreamRecommendItems
        return self._stream(rpc, wrapped, lambda answer: answer.result)

    async def _answer(self, call: Call[Any]) -> Any:
        """Make a call, with retries within its deadline and the budget."""
        attempts = self._attempts(call)
        rpc = cast(aio.UnaryUnaryMultiCallable[Any, Any], call.rpc(self.stubs))
        while True:
            try:
                answer = await rpc(
                    call.request,
                    timeout=attempts.time_left,
                    metadata=self.options.metadata,
                    wait_for_ready=self.options.wait_for_ready,
                )
            except grpc.RpcError as failure:
                error = translate(failure)
                pause = attempts.pause(error)
                if pause is None:
                    raise error from failure
            else:
                attempts.succeeded()
                return answer
            await self._sleep(pause)

    def _resumed(self, watch: Watch[R]) -> AsyncIterator[R]:
        """Start a stream now; where its gateway goes away it is started again from its cursor."""
        attempts = self._attempts_within(self.options.stream_deadline_s or math.inf)
        rpc = watch.rpc(self.stubs)
        first = self._begin(rpc, watch.request, attempts, self.options.wait_for_ready)

        async def answers(call: Any) -> AsyncIterator[R]:
            cursor = ""
            while True:
                try:
                    begun = dict(await call.initial_metadata())
                    if CURSOR_METADATA in begun:
                        cursor = begun[CURSOR_METADATA]
                        attempts.succeeded()
                    async for answer in call:
                        yield watch.result(answer)
                        cursor = answer.cursor
                except grpc.RpcError as failure:
                    error = translate(failure)
                    pause = attempts.pause(error)
                    if pause is None:
                        raise error from failure
                else:
                    return
                finally:
                    call.cancel()
                await self._sleep(pause)
                call = self._begin(rpc, watch.following(cursor), attempts, wait_for_ready=True)

        return answers(first)

    def _stream(
        self, rpc: Callable[..., Any], request: object, result: Callable[[Any], R]
    ) -> AsyncIterator[R]:
        """Start a stream now, and read it as it is asked for; closing the iterator ends it."""
        options = self.options
        call = rpc(
            request,
            timeout=options.stream_deadline_s,
            metadata=options.metadata,
            wait_for_ready=options.wait_for_ready,
        )

        async def answers() -> AsyncIterator[R]:
            try:
                async for answer in call:
                    yield result(answer)
            except grpc.RpcError as failure:
                raise translate(failure) from failure
            finally:
                call.cancel()

        return answers()
