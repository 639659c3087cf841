"""The client for threads."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import grpc

from ebbing.client import _data as data
from ebbing.client import _insight as insight
from ebbing.client._base import CURSOR_METADATA, ClientBase, Sources, channel_options
from ebbing.client._calls import Call, Calls, Pages, Watch
from ebbing.client._errors import translate
from ebbing.client._policy import ClientOptions
from ebbing.client._stubs import Stubs
from ebbing.v1.recommendation_service_pb2 import (
    RecommendItemsRequest,
    RecommendItemsResult,
    StreamRecommendItemsRequest,
)
from ebbing.v1.user_event_pb2 import UserEvent
from ebbing.v1.user_event_service_pb2 import EventAck, StreamUserEventsRequest

__all__ = ["Client"]

P = ParamSpec("P")
R = TypeVar("R")


def _unary(
    build: Callable[Concatenate[ClientBase, P], Call[R]],
) -> Callable[Concatenate[Client, P], R]:
    @wraps(build)
    def method(client: Client, /, *args: P.args, **kwargs: P.kwargs) -> R:
        call = build(client, *args, **kwargs)
        return call.result(client._answer(call))

    return method


def _many(
    build: Callable[Concatenate[ClientBase, P], Calls[R]],
) -> Callable[Concatenate[Client, P], R]:
    @wraps(build)
    def method(client: Client, /, *args: P.args, **kwargs: P.kwargs) -> R:
        calls = build(client, *args, **kwargs)
        return calls.result([client._answer(call) for call in calls.calls])

    return method


def _pages(
    build: Callable[Concatenate[ClientBase, P], Pages[R]],
) -> Callable[Concatenate[Client, P], Iterator[R]]:
    @wraps(build)
    def method(client: Client, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
        pages, token = build(client, *args, **kwargs), ""
        while True:
            answer = client._answer(pages.page(token))
            yield from pages.rows(answer)
            token = answer.next_page_token
            if not token:
                return

    return method


def _watch(
    build: Callable[Concatenate[ClientBase, P], Watch[R]],
) -> Callable[Concatenate[Client, P], Iterator[R]]:
    @wraps(build)
    def method(client: Client, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
        watch = build(client, *args, **kwargs)
        if watch.resumable:
            return client._resumed(watch)
        return client._stream(watch.rpc(client.stubs), watch.request, watch.result)

    return method


class Client(ClientBase):
    """A client of the gateway for threads, any number of which may share it.

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
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(options or ClientOptions(), sources or Sources())
        self._sleep = sleep
        self._channel = (
            grpc.secure_channel(target, credentials, channel_options())
            if credentials
            else grpc.insecure_channel(target, channel_options())
        )
        self.stubs = Stubs.over(self._channel)

    def close(self) -> None:
        """End running calls and close the channel."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

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

    def stream_events(self, events: Iterable[UserEvent]) -> Iterator[EventAck]:
        """Write events as they come; their acknowledgements in order. Not retried."""
        requests = (StreamUserEventsRequest(event=data.identified(self, event)) for event in events)
        return self._stream(self.stubs.events.StreamUserEvents, requests, lambda a: a.ack)

    def stream_recommendations(
        self, requests: Iterable[RecommendItemsRequest]
    ) -> Iterator[RecommendItemsResult]:
        """Slates as requests come, in order. Not retried."""
        wrapped = (StreamRecommendItemsRequest(request=request) for request in requests)
        rpc = self.stubs.recommendations.StreamRecommendItems
        return self._stream(rpc, wrapped, lambda answer: answer.result)

    def _answer(self, call: Call[Any]) -> Any:
        """Make a call, with retries within its deadline and the budget."""
        attempts = self._attempts(call)
        rpc = call.rpc(self.stubs)
        while True:
            try:
                answer = rpc(
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
            self._sleep(pause)

    def _resumed(self, watch: Watch[R]) -> Iterator[R]:
        """Start a stream now; where its gateway goes away it is started again from its cursor."""
        attempts = self._attempts_within(self.options.stream_deadline_s or math.inf)
        rpc = watch.rpc(self.stubs)
        first = self._begin(rpc, watch.request, attempts, self.options.wait_for_ready)

        def answers(call: Any) -> Iterator[R]:
            cursor = ""
            while True:
                try:
                    begun = dict(call.initial_metadata() or ())
                    if CURSOR_METADATA in begun:
                        cursor = begun[CURSOR_METADATA]
                        attempts.succeeded()
                    for answer in call:
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
                self._sleep(pause)
                call = self._begin(rpc, watch.following(cursor), attempts, wait_for_ready=True)

        return answers(first)

    def _stream(
        self, rpc: Callable[..., Any], request: object, result: Callable[[Any], R]
    ) -> Iterator[R]:
        """Start a stream now, and read it as it is asked for; closing the iterator ends it."""
        options = self.options
        call = rpc(
            request,
            timeout=options.stream_deadline_s,
            metadata=options.metadata,
            wait_for_ready=options.wait_for_ready,
        )

        def answers() -> Iterator[R]:
            try:
                for answer in call:
                    yield result(answer)
            except grpc.RpcError as failure:
                raise translate(failure) from failure
            finally:
                call.cancel()

        return answers()
