"""The boundary, seen from a client: statuses as they were meant, and nothing that was not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
import structlog
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from ebbing.v1 import interest_service_pb2 as interest_pb
from ebbing.v1 import interest_service_pb2_grpc as interest_grpc
from ebbing.v1 import user_event_service_pb2 as event_pb
from ebbing.v1 import user_event_service_pb2_grpc as event_grpc
from ebbing.v1.user_event_pb2 import UserEvent
from server.errors import (
    EventIdReused,
    FieldViolation,
    InvalidFields,
    Overloaded,
    StorageFull,
)
from server.metrics import Metrics
from server.rpc.boundary import Boundary

# ruff: noqa: N802 (the contract names the methods)

SECRET = "secret"
SERVICE = "ebbing.v1.UserEventService"
WATCHING = "ebbing.v1.InterestService"
FAILURES: dict[str, Exception] = {
    "reused": EventIdReused("event_id: give each event its own", {"event_id": "é"}),
    "full": StorageFull("no room"),
    "overloaded": Overloaded("too much"),
    "invalid": InvalidFields([FieldViolation("user_id", "is required")]),
    "very invalid": InvalidFields(
        FieldViolation(f"items[{i}].interests[{j}].interest", "has 1000 bytes, at most 256")
        for i in range(1000)
        for j in range(32)
    ),
    "value": ValueError(SECRET),
    "key": KeyError(SECRET),
    "assertion": AssertionError(SECRET),
    "os": OSError(2, SECRET, f"/{SECRET}/path"),
    "stop": StopAsyncIteration(SECRET),
    "recursion": RecursionError(SECRET),
}


class Failing(event_grpc.UserEventServiceServicer, interest_grpc.InterestServiceServicer):
    """Fails as the id of the event or user tells it to; "hang" never answers."""

    def __init__(self) -> None:
        self.hanging = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def _do(self, what: str) -> None:
        if what in FAILURES:
            raise FAILURES[what]
        if what == "hang":
            self.hanging.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise

    async def WriteUserEvent(self, request: Any, context: Any) -> event_pb.WriteUserEventResponse:
        await self._do(request.event.event_id)
        return event_pb.WriteUserEventResponse(ack={"event_id": request.event.event_id})

    async def StreamUserEvents(
        self, request_iterator: Any, context: Any
    ) -> AsyncIterator[event_pb.StreamUserEventsResponse]:
        async for request in request_iterator:
            await self._do(request.event.event_id)
            yield event_pb.StreamUserEventsResponse(ack={"event_id": request.event.event_id})

    async def WatchForgetting(
        self, request: Any, context: Any
    ) -> AsyncIterator[interest_pb.WatchForgettingResponse]:
        for cursor in request.user_ids:
            await self._do(cursor)
            yield interest_pb.WatchForgettingResponse(cursor=cursor)


class Client:
    """Stubs of a server whose every Ebbing service is ``Failing``."""

    def __init__(self, channel: grpc.aio.Channel, servicer: Failing) -> None:
        self.servicer = servicer
        self.channel = channel
        self._events: Any = event_grpc.UserEventServiceStub(channel)
        self._interests: Any = interest_grpc.InterestServiceStub(channel)
        self.health: Any = health_pb2_grpc.HealthStub(channel)

    def write(self, what: str, **options: Any) -> Any:
        request = event_pb.WriteUserEventRequest(event=UserEvent(event_id=what))
        return self._events.WriteUserEvent(request, **options)

    def stream(self, *what: str) -> Any:
        return self._events.StreamUserEvents(
            event_pb.StreamUserEventsRequest(event=UserEvent(event_id=one)) for one in what
        )

    def watch(self, *what: str, **options: Any) -> Any:
        request = interest_pb.WatchForgettingRequest(user_ids=what)
        return self._interests.WatchForgetting(request, **options)

    def call(self, kind: str, what: str) -> Any:
        """Has the unary method, or a stream after a first answer, do something."""
        if kind == "unary":
            return self.write(what)
        call = self.stream if kind == "stream" else self.watch
        return self.after_first(call("fine", what))

    @staticmethod
    async def after_first(stream: Any) -> None:
        """Read one answer, then the end."""
        assert await stream.read() is not grpc.aio.EOF
        assert await stream.read() is grpc.aio.EOF


@pytest.fixture
async def client(metrics: Metrics) -> AsyncIterator[Client]:
    ids = iter(f"id{n}" for n in range(100))
    boundary = Boundary(metrics, asyncio.get_running_loop().time, lambda: next(ids))
    server = grpc.aio.server(interceptors=[boundary])
    servicer = Failing()
    event_grpc.add_UserEventServiceServicer_to_server(servicer, server)
    interest_grpc.add_InterestServiceServicer_to_server(servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        yield Client(channel, servicer)
    await server.stop(1)


@pytest.fixture(autouse=True)
def logged():
    with structlog.testing.capture_logs() as entries:
        yield entries


def details(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    """The details that came with an error, by name."""
    trailers = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    assert (status.code, status.message) == (error.code().value[0], error.details())
    found = {}
    for packed in status.details:
        name = packed.TypeName().removeprefix("google.rpc.")
        found[name] = getattr(error_details_pb2, name)()
        packed.Unpack(found[name])
    return found


def everything(error: grpc.aio.AioRpcError) -> str:
    """All that a client can read in an error."""
    return f"{error!r} {error.details()} {error.trailing_metadata()} {error.initial_metadata()}"


KINDS = ("unary", "stream", "watch")
METHODS = {
    "unary": (SERVICE, "WriteUserEvent"),
    "stream": (SERVICE, "StreamUserEvents"),
    "watch": (WATCHING, "WatchForgetting"),
}


@pytest.fixture
def handled(sample) -> Callable[[str, str], float]:
    """How often a kind of method ended with a code."""

    def count(kind: str, code: str) -> float:
        service, method = METHODS[kind]
        labels = {"grpc_service": service, "grpc_method": method}
        return sample("grpc_server_handled_total", **labels, grpc_code=code)

    return count


async def ended(handled: Callable[[str, str], float], kind: str, code: str) -> None:
    """Until a call was counted; the client may know of its end a moment before."""
    async with asyncio.timeout(5):
        while not handled(kind, code):
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["reused", "full", "overloaded", "invalid"])
async def test_an_error_of_ours_arrives_as_it_was_meant(
    client: Client, handled, logged, kind: str, what: str
) -> None:
    meant: Any = FAILURES[what]
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await client.call(kind, what)
    assert error.value.code() == meant.code
    assert error.value.details() == meant.message
    found = details(error.value)
    assert found["ErrorInfo"].reason == meant.reason
    assert dict(found["ErrorInfo"].metadata) == meant.metadata
    assert ("RetryInfo" in found) == (meant.retry_after_s is not None)
    await ended(handled, kind, meant.code.name)
    assert logged == []


async def test_however_much_is_wrong_the_client_gets_to_know(client: Client) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await client.write("very invalid")
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    violations = details(error.value)["BadRequest"].field_violations
    assert violations[0].field == "items[0].interests[0].interest"
    assert "and 31990 more" in error.value.details()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["value", "key", "assertion", "os", "stop", "recursion"])
async def test_what_was_unforeseen_stays_inside(
    client: Client, handled, logged, kind: str, what: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await client.call(kind, what)
    assert error.value.code() == grpc.StatusCode.INTERNAL
    assert SECRET not in everything(error.value)
    info = details(error.value)["ErrorInfo"]
    assert (info.reason, dict(info.metadata)) == ("INTERNAL", {"error_id": "id0"})
    assert "id0" in error.value.details()
    # The operators find all of it under that id.
    (entry,) = logged
    assert entry["error_id"] == "id0"
    assert entry["method"] == METHODS[kind][1]
    assert entry["exc_info"]
    await ended(handled, kind, "INTERNAL")


async def test_failures_have_ids_of_their_own(client: Client) -> None:
    ids = []
    for _ in range(3):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await client.write("value")
        ids.append(details(error.value)["ErrorInfo"].metadata["error_id"])
    assert ids == ["id0", "id1", "id2"]


async def test_answers_pass_through(client: Client, handled) -> None:
    assert (await client.write("fine")).ack.event_id == "fine"
    assert [r.ack.event_id async for r in client.stream("a", "b")] == ["a", "b"]
    assert [r.cursor async for r in client.watch("a", "b", "c")] == ["a", "b", "c"]
    for kind in KINDS:
        await ended(handled, kind, "OK")


async def test_calls_are_measured(client: Client, sample, handled) -> None:
    for what in ("fine", "fine", "full"):
        try:
            await client.write(what)
        except grpc.aio.AioRpcError:
            assert what == "full"
    await ended(handled, "unary", "RESOURCE_EXHAUSTED")
    labels = {"grpc_service": SERVICE, "grpc_method": "WriteUserEvent"}
    assert sample("grpc_server_started_total", **labels) == 3
    assert handled("unary", "OK") == 2
    assert handled("unary", "RESOURCE_EXHAUSTED") == 1
    assert sample("grpc_server_handling_seconds_count", **labels) == 3


@pytest.mark.parametrize("kind", KINDS)
async def test_a_caller_that_goes_away(client: Client, handled, logged, kind: str) -> None:
    calls = {"unary": client.write, "stream": client.stream, "watch": client.watch}
    call = calls[kind]("hang")
    if kind != "unary":
        reading = asyncio.create_task(call.read())
    async with asyncio.timeout(5):
        await client.servicer.hanging.wait()
        call.cancel()
        await client.servicer.cancelled.wait()
    if kind != "unary":
        with pytest.raises(asyncio.CancelledError):
            await reading
    await ended(handled, kind, "CANCELLED")
    assert logged == []


async def test_a_deadline_that_passes(client: Client, handled, logged) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await client.write("hang", timeout=0.5)
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    await ended(handled, "unary", "CANCELLED")
    assert client.servicer.cancelled.is_set()
    assert logged == []


async def test_an_unknown_method_is_none_of_ours(client: Client, sample) -> None:
    call = client.channel.unary_unary(f"/{SERVICE}/Nonsense")
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call(b"")
    assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED
    labels = {"grpc_service": SERVICE, "grpc_method": "Nonsense"}
    assert sample("grpc_server_started_total", **labels) == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_bytes_that_are_no_message(client: Client, handled, logged, kind: str) -> None:
    path, garbage = "/{}/{}".format(*METHODS[kind]), b"\xff\xff\xff"
    with pytest.raises(grpc.aio.AioRpcError) as error:
        if kind == "unary":
            await client.channel.unary_unary(path)(garbage)
        elif kind == "stream":
            fine = event_pb.StreamUserEventsRequest(event=UserEvent(event_id="fine"))
            sent = [fine.SerializeToString(), garbage]
            stream = client.channel.stream_stream(path)(iter(sent))
            await client.after_first(stream)
        else:
            await client.channel.unary_stream(path)(garbage).read()
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert details(error.value)["ErrorInfo"].reason == "MALFORMED_MESSAGE"
    await ended(handled, kind, "INVALID_ARGUMENT")
    assert logged == []


async def test_health_reports_in_its_own_way(client: Client, registry) -> None:
    answer = await client.health.Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await client.health.Check(health_pb2.HealthCheckRequest(service="unknown"))
    assert error.value.code() == grpc.StatusCode.NOT_FOUND
    services = {
        sample.labels["grpc_service"]
        for metric in registry.collect()
        for sample in metric.samples
        if "grpc_service" in sample.labels
    }
    assert "grpc.health.v1.Health" not in services
