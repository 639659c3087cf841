"""Every bad field of every request: a violation names it, before anything else is touched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import Message

from ebbing.v1 import (
    catalog_service_pb2,
    interest_service_pb2,
    recommendation_service_pb2,
    release_service_pb2,
    user_data_service_pb2,
    user_event_service_pb2,
)
from server.errors import InvalidFields
from server.limits import Limits
from server.metrics import Metrics
from server.retention import RetentionPeriods
from server.rpc.catalog import CatalogServicer
from server.rpc.interests import Interests
from server.rpc.recommendations import Recommendations
from server.rpc.releases import ReleaseServicer
from server.rpc.user_data import UserData
from server.rpc.user_events import UserEvents
from server.rpc.watching import Watching
from tests.unit.server.rpc.request_table import BAD, GOOD, NOW_US, TOLERANCE_US, Case

SERVICES = {
    module.DESCRIPTOR.services_by_name[name]
    for module, name in (
        (user_event_service_pb2, "UserEventService"),
        (catalog_service_pb2, "CatalogService"),
        (interest_service_pb2, "InterestService"),
        (recommendation_service_pb2, "RecommendationService"),
        (release_service_pb2, "ReleaseService"),
        (user_data_service_pb2, "UserDataService"),
    )
}
UNCHECKED = {"WatchReleases"}
"""There is nothing in these that could be wrong."""
STREAMED = {"StreamUserEvents", "StreamRecommendItems"}
"""These answer a bad message within their stream; see the tests of their services."""


class Reached(Exception):
    """The request was found valid and went on."""


class Beyond:
    """What lies behind the checks: whatever is asked of it, it was reached."""

    def __getattr__(self, name: str) -> Any:
        raise Reached

    def __truediv__(self, name: str) -> Any:
        raise Reached


class FakeContext:
    def time_remaining(self) -> float | None:
        return None


@pytest.fixture
def methods(metrics: Metrics) -> dict[str, Callable[..., Any]]:
    """Every method of every service, with nothing behind it."""
    beyond: Any = Beyond()
    servicers = (
        UserEvents(beyond, metrics, lambda: NOW_US, TOLERANCE_US, RetentionPeriods(), Limits()),
        CatalogServicer(beyond, Limits()),
        Interests(beyond, beyond, metrics, lambda: NOW_US, 5.0, Watching(beyond, beyond, 1.0)),
        Recommendations(beyond, lambda: NOW_US, 5.0),
        ReleaseServicer(beyond, beyond),
        UserData(beyond, beyond, lambda: NOW_US, lambda: "id", 5.0),
    )
    names = [method.name for service in SERVICES for method in service.methods]
    return {n: getattr(s, n) for s in servicers for n in names if hasattr(s, n)}


def method_of(request: Message) -> str:
    return request.DESCRIPTOR.name.removesuffix("Request")


async def answered(call: Any) -> Any:
    """The answer, or the first of a stream."""
    return await (anext(call) if hasattr(call, "__aiter__") else call)


def shown(case: Case | Message) -> str:
    """A short name for a case; most requests are too long for one."""
    request, fields = case if isinstance(case, tuple) else (case, set())
    return "-".join([method_of(request), *sorted(fields)])


@pytest.mark.parametrize("case", BAD, ids=shown)
async def test_bad_fields_are_named(methods: dict[str, Callable[..., Any]], case: Case) -> None:
    request, fields = case
    with pytest.raises(InvalidFields) as error:
        await answered(methods[method_of(request)](request, FakeContext()))
    assert {v.field for v in error.value.violations} == fields
    assert all(v.description for v in error.value.violations)
    # The remedy fits into a trailer, however large the value was.
    assert len(error.value.message) < 2000


@pytest.mark.parametrize("request_", GOOD, ids=shown)
async def test_what_is_at_the_edge_is_taken(
    methods: dict[str, Callable[..., Any]], request_: Message
) -> None:
    with pytest.raises(Reached):
        await answered(methods[method_of(request_)](request_, FakeContext()))


def test_every_request_is_in_the_table() -> None:
    every = {method.name for service in SERVICES for method in service.methods}
    assert {method_of(request) for request, _ in BAD} == every - UNCHECKED - STREAMED
