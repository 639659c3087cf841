"""Bad input over the wire: each has its status, nothing is lost, and nothing inside shows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ebbing.client import Client, EbbingError
from ebbing.client._errors import translate
from ebbing.v1 import catalog_service_pb2 as catalog
from ebbing.v1 import user_event_service_pb2 as user_events
from ebbing.v1.user_event_pb2 import UserEvent
from tests.harness.bad_requests import CASES, END, NAN, bad_events, event, item
from tests.harness.gateway import GatewayProcess

LEAKS = re.compile(
    r"Traceback|File \"|\.py\b|site-packages|\b\w*(Error|Exception)\b|/(tmp|home|work|usr|var)\b"
)
"""What a status must not say: names of exceptions, of files, of folders."""


def refusal(call: Callable[[], object]) -> EbbingError:
    """How a call is refused; what the client is told has nothing of the inside in it."""
    with pytest.raises((grpc.RpcError, EbbingError)) as caught:
        call()
    error = caught.value if isinstance(caught.value, EbbingError) else translate(caught.value)
    said = [error.message, *error.metadata.values(), *(v.description for v in error.violations)]
    assert not [text for text in said if LEAKS.search(text)]
    return error


@pytest.fixture(autouse=True)
def keeps_serving(gateway: GatewayProcess, client: Client) -> Iterator[None]:
    """Whatever a test sent, the gateway is as well as before."""
    yield
    assert gateway.process.poll() is None
    with grpc.insecure_channel(gateway.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        answer = health.Check(health_pb2.HealthCheckRequest(), timeout=30)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert not client.recommend("ada", END).degraded


@pytest.mark.parametrize("name", CASES)
def test_a_bad_field_is_named(client: Client, name: str) -> None:
    rpc, request, field = CASES[name]
    error = refusal(lambda: rpc(client.stubs)(request, timeout=30))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert error.reason == "INVALID_FIELD"
    assert [violation.field for violation in error.violations] == [field]
    assert error.violations[0].description in error.message


def test_every_bad_field_of_a_request_is_named(client: Client) -> None:
    bad = event(user_id="", event_type=99, value=NAN)
    error = refusal(
        lambda: client.stubs.events.WriteUserEvent(
            user_events.WriteUserEventRequest(event=bad), timeout=30
        )
    )
    fields = {violation.field for violation in error.violations}
    assert fields == {"event.user_id", "event.event_type", "event.value"}


def test_nothing_valid_in_a_batch_of_events_is_lost(client: Client) -> None:
    bad = [(name, e, field) for name, e, field in bad_events()]
    sent: list[UserEvent] = []
    for n, (_, broken, _) in enumerate(bad):
        good = event(user_id="survivor", event_id=f"survivor-{n}", event_time=Timestamp(seconds=n))
        sent += [good, broken]
    request = user_events.BatchWriteUserEventsRequest(events=sent)
    answer = client.stubs.events.BatchWriteUserEvents(request, timeout=30)
    assert answer.accepted_count == answer.rejected_count == len(bad)
    assert answer.duplicate_count == 0
    for n, (ack, (name, broken, field)) in enumerate(zip(answer.notable, bad, strict=True)):
        assert ack.outcome == user_events.EVENT_OUTCOME_REJECTED, name
        assert ack.event_id == broken.event_id
        assert ack.reason == "INVALID_FIELD"
        assert f"events[{2 * n + 1}].{field}: " in ack.message
        assert not LEAKS.search(ack.message)
    assert client.interest_profile("survivor", END).event_count == len(bad)
    refusal(lambda: client.interest_profile("bad-input", END))


def test_nothing_valid_in_a_stream_of_events_is_lost(client: Client) -> None:
    bad = [broken for _, broken, _ in bad_events() if broken.event_id]
    good = [event(user_id="swimmer", event_id=f"swimmer-{n}") for n in range(len(bad))]
    sent = [one for pair in zip(good, bad, strict=True) for one in pair]
    acks = list(client.stream_events(sent))
    assert [ack.event_id for ack in acks] == [one.event_id for one in sent]
    outcomes = [ack.outcome for ack in acks]
    assert set(outcomes[::2]) == {user_events.EVENT_OUTCOME_ACCEPTED}
    assert set(outcomes[1::2]) == {user_events.EVENT_OUTCOME_REJECTED}
    assert not [ack.message for ack in acks if LEAKS.search(ack.message)]
    assert client.interest_profile("swimmer", END).event_count == len(good)


def test_a_bad_item_keeps_its_whole_batch_out(client: Client) -> None:
    request = catalog.BatchWriteItemsRequest(items=[item(item_id="fine"), item(title="x" * 513)])
    refusal(lambda: client.stubs.catalog.BatchWriteItems(request, timeout=30))
    assert refusal(lambda: client.get_item("fine")).reason == "ITEM_NOT_FOUND"


def test_an_event_id_used_for_another_event(client: Client) -> None:
    client.write_event("ada-2", "view", END, item_id="jazz-01-part-1", event_id="reused")
    error = refusal(
        lambda: client.write_event("ada-2", "like", END, item_id="a", event_id="reused")
    )
    assert error.code is grpc.StatusCode.ALREADY_EXISTS
    assert error.reason == "EVENT_ID_REUSED"
    assert error.metadata == {"event_id": "reused"}


def test_an_unknown_item_is_taken_and_said_so(client: Client) -> None:
    ack = client.write_event("finder", "view", END, item_id="never heard of")
    assert ack.outcome == user_events.EVENT_OUTCOME_ACCEPTED
    assert ack.unknown_item
    assert client.interest_profile("finder", END).event_count == 1


@pytest.mark.parametrize(
    ("call", "code", "reason", "metadata"),
    [
        (
            lambda c: c.interest_profile("nobody", END),
            grpc.StatusCode.NOT_FOUND,
            "USER_NOT_FOUND",
            {"user_id": "nobody"},
        ),
        (
            lambda c: c.interest_graph("nobody", END),
            grpc.StatusCode.NOT_FOUND,
            "USER_NOT_FOUND",
            {"user_id": "nobody"},
        ),
        (
            lambda c: list(c.interest_history("nobody")),
            grpc.StatusCode.NOT_FOUND,
            "USER_NOT_FOUND",
            {"user_id": "nobody"},
        ),
        (
            lambda c: c.explain_interest("nobody", "sports/football", END),
            grpc.StatusCode.NOT_FOUND,
            "USER_NOT_FOUND",
            {"user_id": "nobody"},
        ),
        (
            lambda c: c.explain_interest("ada", "no/such", END),
            grpc.StatusCode.NOT_FOUND,
            "INTEREST_NOT_FOUND",
            {"user_id": "ada", "interest": "no/such"},
        ),
        (
            lambda c: list(c.interest_history("ada", ["sports/football", "no/such"])),
            grpc.StatusCode.NOT_FOUND,
            "INTEREST_NOT_FOUND",
            {"user_id": "ada", "interest": "no/such"},
        ),
        (
            lambda c: c.score("nobody", ["jazz-01-part-1"], END),
            grpc.StatusCode.NOT_FOUND,
            "USER_NOT_FOUND",
            {"user_id": "nobody"},
        ),
        (
            lambda c: c.get_item("nowhere"),
            grpc.StatusCode.NOT_FOUND,
            "ITEM_NOT_FOUND",
            {"item_id": "nowhere"},
        ),
        (
            lambda c: c.recommend("ada", END, release=99),
            grpc.StatusCode.NOT_FOUND,
            "RELEASE_NOT_FOUND",
            {"release": "99"},
        ),
        (
            lambda c: c.score("ada", ["jazz-01-part-1"], END, release=99),
            grpc.StatusCode.NOT_FOUND,
            "RELEASE_NOT_FOUND",
            {"release": "99"},
        ),
    ],
)
def test_what_is_not_there(
    client: Client,
    call: Callable[[Client], object],
    code: grpc.StatusCode,
    reason: str,
    metadata: dict[str, str],
) -> None:
    error = refusal(lambda: call(client))
    assert (error.code, error.reason, error.metadata) == (code, reason, metadata)


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.interest_profile("ada", 0.0),
        lambda c: c.recommend("ada", 0.0),
        lambda c: c.score("ada", ["jazz-01-part-1"], 0.0),
        lambda c: c.interest_graph("ada", 0.0),
        lambda c: c.explain_interest("ada", "sports/football", 0.0),
        lambda c: list(c.interest_history("ada", start_time=0.0)),
        lambda c: list(c.interest_history("ada", end_time=0.0)),
        lambda c: list(c.interest_history("ada", at=0.0)),
    ],
    ids=["profile", "slate", "scores", "graph", "explanation", "start", "end", "history"],
)
def test_a_moment_before_the_first_event(client: Client, call: Callable[[Client], object]) -> None:
    error = refusal(lambda: call(client))
    assert error.code is grpc.StatusCode.OUT_OF_RANGE
    assert error.reason == "AT_BEFORE_FIRST_EVENT"
    earliest = int(error.metadata["earliest_us"]) / 1e6
    assert client.interest_profile("ada", earliest).event_count > 0


def test_where_no_interest_is_known_nothing_is_made_up(client: Client) -> None:
    """I(u,t) = 0: drift and R(u,t) are undefined, and the answer says why."""
    client.write_event("blank", "view", END, item_id="nobody described this")
    profile = client.interest_profile("blank", END)
    assert profile.event_count == 1
    assert not profile.HasField("drift")
    assert not profile.HasField("article_score")
    assert profile.drift_undefined_reason == "NO_INTEREST"
    assert not client.interest_graph("blank", END).nodes
    points = list(client.interest_history("blank", end_time=END))
    assert [len(point.interests) for point in points] == [0]


def test_a_message_over_the_limit(client: Client) -> None:
    huge = user_events.WriteUserEventRequest(event=event(query="x" * (9 * 2**20)))
    error = refusal(lambda: client.stubs.events.WriteUserEvent(huge, timeout=60))
    assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    many = user_events.BatchWriteUserEventsRequest(
        events=[event(event_id=f"huge-{n}", query="x" * 9000) for n in range(1000)]
    )
    error = refusal(lambda: client.stubs.events.BatchWriteUserEvents(many, timeout=60))
    assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("body", [b"\xff" * 40, b"\x0a\x05abc", b"\x0a\x02\xff\xfe"], ids=range(3))
def test_bytes_that_are_no_message(gateway: GatewayProcess, body: bytes) -> None:
    with grpc.insecure_channel(gateway.address) as channel:
        for method in ("UserEventService/WriteUserEvent", "CatalogService/GetItem"):
            call = channel.unary_unary(f"/ebbing.v1.{method}")
            error = refusal(lambda call=call: call(body, timeout=30))
            assert error.code is grpc.StatusCode.INVALID_ARGUMENT
            assert error.reason == "MALFORMED_MESSAGE"
        stream = channel.stream_stream("/ebbing.v1.UserEventService/StreamUserEvents")
        error = refusal(lambda: list(stream(iter([body]), timeout=30)))
        assert error.reason == "MALFORMED_MESSAGE"


def test_a_method_that_does_not_exist(gateway: GatewayProcess) -> None:
    with grpc.insecure_channel(gateway.address) as channel:
        call = channel.unary_unary("/ebbing.v1.UserEventService/Nothing")
        assert refusal(lambda: call(b"", timeout=30)).code is grpc.StatusCode.UNIMPLEMENTED
