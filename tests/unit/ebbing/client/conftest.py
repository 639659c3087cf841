"""A gateway that says what a test tells it to, and clients whose time and chance are the test's."""

# ruff: noqa: N802 (the contract names the methods)

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from ebbing.client import Client, ClientOptions, Sources
from ebbing.v1 import catalog_service_pb2 as catalog
from ebbing.v1 import interest_service_pb2 as interests
from ebbing.v1 import recommendation_service_pb2 as recommendation
from ebbing.v1 import user_event_service_pb2 as events
from ebbing.v1.catalog_service_pb2_grpc import (
    CatalogServiceServicer,
    add_CatalogServiceServicer_to_server,
)
from ebbing.v1.interest_service_pb2_grpc import (
    InterestServiceServicer,
    add_InterestServiceServicer_to_server,
)
from ebbing.v1.recommendation_service_pb2_grpc import (
    RecommendationServiceServicer,
    add_RecommendationServiceServicer_to_server,
)
from ebbing.v1.user_event_service_pb2_grpc import (
    UserEventServiceServicer,
    add_UserEventServiceServicer_to_server,
)


@dataclass
class Failure:
    """A status the fake gateway answers with."""

    code: grpc.StatusCode
    message: str = "as the test wishes"
    details: tuple[Any, ...] = ()
    raw_details: bytes | None = None


@dataclass
class FakeGateway(
    UserEventServiceServicer,
    CatalogServiceServicer,
    InterestServiceServicer,
    RecommendationServiceServicer,
):
    """Answers every call, unless failures wait: each call uses one up."""

    failures: list[Failure] = field(default_factory=list)
    requests: list[Any] = field(default_factory=list)
    times_left: list[float] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    target: str = ""
    takes_s: float = 0.0

    def _met(self, request: Any, context: grpc.ServicerContext) -> None:
        self.requests.append(request)
        self.times_left.append(context.time_remaining())
        self.metadata.append(dict(context.invocation_metadata()))
        time.sleep(self.takes_s)
        if self.failures:
            failure = self.failures.pop(0)
            packed = []
            for detail in failure.details:
                packed.append(any_pb2.Any())
                packed[-1].Pack(detail)
            status = status_pb2.Status(
                code=failure.code.value[0], message=failure.message, details=packed
            )
            raw = failure.raw_details
            if raw is not None or packed:
                trailer = status.SerializeToString() if raw is None else raw
                context.set_trailing_metadata([("grpc-status-details-bin", trailer)])
            context.abort(failure.code, failure.message)

    def WriteUserEvent(self, request, context):
        self._met(request, context)
        ack = events.EventAck(
            event_id=request.event.event_id, outcome=events.EVENT_OUTCOME_ACCEPTED
        )
        return events.WriteUserEventResponse(ack=ack)

    def BatchWriteUserEvents(self, request, context):
        self._met(request, context)
        rejected = [e for e in request.events if not e.user_id]
        return events.BatchWriteUserEventsResponse(
            accepted_count=len(request.events) - len(rejected),
            rejected_count=len(rejected),
            notable=[events.EventAck(event_id=e.event_id, reason="INVALID") for e in rejected],
        )

    def StreamUserEvents(self, request_iterator, context):
        for request in request_iterator:
            self._met(request, context)
            yield events.StreamUserEventsResponse(
                ack=events.EventAck(event_id=request.event.event_id)
            )

    def ListItems(self, request, context):
        self._met(request, context)
        start = int(request.page_token or 0)
        rows = [catalog.Item(item_id=f"i{n}") for n in range(start, min(start + 2, 5))]
        return catalog.ListItemsResponse(
            items=rows, next_page_token=str(start + 2) if start + 2 < 5 else ""
        )

    def BatchWriteItems(self, request, context):
        self._met(request, context)
        return catalog.BatchWriteItemsResponse(written_count=len(request.items))

    def GetInterestProfile(self, request, context):
        self._met(request, context)
        return interests.GetInterestProfileResponse(user_id=request.user_id, at=request.at)

    def WatchForgetting(self, request, context):
        yield interests.WatchForgettingResponse(cursor="1")
        self._met(request, context)

    def RecommendItems(self, request, context):
        self._met(request, context)
        return recommendation.RecommendItemsResponse(
            slate=recommendation.Slate(user_id=request.user_id)
        )

    def BatchRecommendItems(self, request, context):
        self._met(request, context)
        return recommendation.BatchRecommendItemsResponse(
            results=[
                recommendation.RecommendItemsResult(slate=recommendation.Slate(user_id=one.user_id))
                for one in request.requests
            ]
        )


def unavailable(retry_after_s: float | None = None) -> Failure:
    """UNAVAILABLE, with a RetryInfo where a delay is given."""
    if retry_after_s is None:
        return Failure(grpc.StatusCode.UNAVAILABLE)
    delay = duration_pb2.Duration()
    delay.FromNanoseconds(int(retry_after_s * 1e9))
    return Failure(
        grpc.StatusCode.UNAVAILABLE,
        details=(error_details_pb2.RetryInfo(retry_delay=delay),),
    )


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    fake = FakeGateway()
    server = grpc.server(ThreadPoolExecutor(4))
    add_UserEventServiceServicer_to_server(fake, server)
    add_CatalogServiceServicer_to_server(fake, server)
    add_InterestServiceServicer_to_server(fake, server)
    add_RecommendationServiceServicer_to_server(fake, server)
    fake.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield fake
    server.stop(0).wait()


@dataclass
class Clock:
    """A monotonic clock that only sleeping moves."""

    now: float = 100.0
    slept: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sources(clock: Clock) -> Sources:
    numbers = iter(range(1_000_000))
    return Sources(
        new_event_id=lambda: f"id-{next(numbers)}",
        clock=lambda: 1_700_000_000.0,
        monotonic=clock.monotonic,
        random=lambda: 0.5,
    )


@pytest.fixture
def make_client(gateway: FakeGateway, clock: Clock, sources: Sources):
    """Makes clients of the fake gateway; closes them at the end."""
    made: list[Client] = []

    def make(**options: Any) -> Client:
        made.append(
            Client(
                gateway.target, options=ClientOptions(**options), sources=sources, sleep=clock.sleep
            )
        )
        return made[-1]

    yield make
    for client in made:
        client.close()
