"""Bad input over the wire: each has its status, nothing is lost, and nothing inside shows."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ebbing.client import Client, EbbingError, Stubs, user_event
from ebbing.client._errors import translate
from ebbing.v1 import catalog_service_pb2 as catalog
from ebbing.v1 import interest_service_pb2 as interests
from ebbing.v1 import recommendation_service_pb2 as recommendation
from ebbing.v1 import user_event_service_pb2 as user_events
from ebbing.v1.user_event_pb2 import InterestShare, UserEvent
from tests.harness.gateway import GatewayProcess
from tests.harness.release import LOG

END = int(LOG.end)
LONG = "x" * 129
LONG_BYTES = "ß" * 65
"""65 characters, 130 bytes."""
NUL = "a\0b"
NAN, INF = math.nan, math.inf
BAD_TIMES = {
    "before 1970": Timestamp(seconds=-1),
    "2200": Timestamp(seconds=7_258_118_400),
    "far away": Timestamp(seconds=2**63 - 1),
    "nanos above": Timestamp(seconds=END, nanos=10**9),
    "nanos below": Timestamp(seconds=END, nanos=-1),
}
BAD_IDS = {"empty": "", "129 bytes": LONG, "130 bytes": LONG_BYTES, "with NUL": NUL}
LEAKS = re.compile(
    r"Traceback|File \"|\.py\b|site-packages|\b\w*(Error|Exception)\b|/(tmp|home|work|usr|var)\b"
)
"""What a status must not say: names of exceptions, of files, of folders."""


class Case(NamedTuple):
    """A request that is refused, and the field that is named."""

    rpc: Callable[[Stubs], Any]
    request: Any
    field: str


def event(**changes: Any) -> UserEvent:
    """A good event, then changed."""
    good = user_event("bad-input", "view", END, item_id="jazz-01-part-1", event_id="bad-input-1")
    for name, value in changes.items():
        if value is None:
            good.ClearField(name)
        elif isinstance(value, list):
            getattr(good, name).extend(value)
        elif isinstance(value, Timestamp):
            getattr(good, name).CopyFrom(value)
        else:
            setattr(good, name, value)
    return good


def bad_shares() -> Iterator[tuple[str, list[InterestShare], str]]:
    """Bad lists of interests, and where in them the fault is."""
    for name, path in {
        "no path": "",
        "257 bytes": "x" * 257,
        "empty component": "a//b",
        "leading slash": "/a",
        "NUL": NUL,
    }.items():
        yield name, [InterestShare(interest=path)], "[0].interest"
    for share in (-1.0, 1000.5, NAN, INF):
        yield f"share {share}", [InterestShare(interest="a", share=share)], "[0].share"
    yield "33 of them", [InterestShare(interest=f"a/{n}") for n in range(33)], ""
    yield "twice", [InterestShare(interest="a"), InterestShare(interest="a")], ""


def bad_events() -> Iterator[tuple[str, UserEvent, str]]:
    """Bad events, and the field at fault."""
    for name, bad in BAD_IDS.items():
        yield f"event_id {name}", event(event_id=bad), "event_id"
        yield f"user_id {name}", event(user_id=bad), "user_id"
        if bad:
            yield f"item_id {name}", event(item_id=bad), "item_id"
            yield f"session_id {name}", event(session_id=bad), "session_id"
    yield "no item, query, interests", event(item_id=""), "item_id"
    for number in (0, 14, 99, -1):
        yield f"event_type {number}", event(event_type=number), "event_type"
    yield "no event_time", event(event_time=None), "event_time"
    for name, moment in BAD_TIMES.items():
        yield f"event_time {name}", event(event_time=moment), "event_time"
    yield "future", event(event_time=Timestamp(seconds=7_000_000_000)), "event_time"
    for value in (NAN, INF, -INF):
        yield f"value {value}", event(value=value), "value"
    yield "query too long", event(query="x" * 1025), "query"
    yield "token too long", event(attribution_token="x" * 1025), "attribution_token"
    for name, shares, where in bad_shares():
        yield f"interests {name}", event(interests=shares), f"interests{where}"


def item(**changes: Any) -> catalog.Item:
    """A good item, then changed."""
    return catalog.Item(**{"item_id": "bad-input", **changes})


def bad_items() -> Iterator[tuple[str, catalog.Item, str]]:
    """Bad items, and the field at fault."""
    for name, bad in BAD_IDS.items():
        yield f"item_id {name}", item(item_id=bad), "item_id"
    for name, shares, where in bad_shares():
        yield f"interests {name}", item(interests=shares), f"interests{where}"
    yield "title", item(title="x" * 513), "title"
    yield "65 attributes", item(attributes={str(n): "" for n in range(65)}), "attributes"
    yield "long key", item(attributes={LONG: ""}), "attributes"
    yield "no key", item(attributes={"": "x"}), "attributes"
    yield "long value", item(attributes={"a": "x" * 1025}), "attributes['a']"
    vector = catalog.ContentVector(values=[1.0])
    yield "9 modalities", item(content={str(n): vector for n in range(9)}), "content"
    for name, values in {
        "no numbers": [],
        "4097 numbers": [0.0] * 4097,
        "NaN": [NAN],
        "infinity": [1.0, -INF],
    }.items():
        content = {"text": catalog.ContentVector(values=values)}
        yield f"content {name}", item(content=content), "content['text'].values"
    for name, moment in BAD_TIMES.items():
        yield f"available_time {name}", item(available_time=moment), "available_time"
        yield f"expire_time {name}", item(expire_time=moment), "expire_time"


Named = Iterator[tuple[str, Case]]


def each(
    rpc: Callable[[Stubs], Any], what: str, build: Callable[..., Any], **good: Any
) -> Callable[[str, str, Any], tuple[str, Case]]:
    """Makes cases of one RPC: a good request with one value in one field changed."""

    def case(field: str, why: str, value: Any) -> tuple[str, Case]:
        request = build(**{**good, field.partition("[")[0]: value})
        return f"{what}: {field} {why}", Case(rpc, request, field)

    return case


def write_event(stubs: Stubs) -> Any:
    return stubs.events.WriteUserEvent


def write_items(stubs: Stubs) -> Any:
    return stubs.catalog.BatchWriteItems


def event_cases() -> Named:
    yield "event: none", Case(write_event, user_events.WriteUserEventRequest(), "event")
    for name, bad, field in bad_events():
        request = user_events.WriteUserEventRequest(event=bad)
        yield f"event: {name}", Case(write_event, request, f"event.{field}")
    case = each(
        lambda s: s.events.BatchWriteUserEvents, "events", user_events.BatchWriteUserEventsRequest
    )
    yield case("events", "none", [])
    yield case("events", "1001", [event(event_id=f"many-{n}") for n in range(1001)])


def catalogue_cases() -> Named:
    for name, bad, field in bad_items():
        batch = catalog.BatchWriteItemsRequest(items=[item(item_id="fine"), bad])
        yield f"items: {name}", Case(write_items, batch, f"items[1].{field}")
    case = each(write_items, "items", catalog.BatchWriteItemsRequest)
    yield case("items", "none", [])
    yield case("items", "1001", [item(item_id=str(n)) for n in range(1001)])
    yield case("items", "twice", [item(), item()])
    case = each(
        lambda s: s.catalog.BatchWriteInterests, "interests", catalog.BatchWriteInterestsRequest
    )
    yield case("interests", "none", [])
    yield case("interests[0].path", "empty", [catalog.Interest()])
    yield case("interests[0].path", "no parent", [catalog.Interest(path="/a")])
    yield case("interests[0].title", "long", [catalog.Interest(path="a", title="x" * 513)])
    case = each(
        lambda s: s.catalog.BatchWriteRelations, "relations", catalog.BatchWriteRelationsRequest
    )
    yield case("relations", "none", [])
    for field, relation in {
        "user_id": catalog.Relation(other_user_id="b"),
        "other_user_id": catalog.Relation(user_id="a"),
        "strength": catalog.Relation(user_id="a", other_user_id="b", strength=NAN),
    }.items():
        yield case(f"relations[0].{field}", "bad", [relation])
    itself = catalog.Relation(user_id="a", other_user_id="a")
    yield case("relations[0].other_user_id", "oneself", [itself])


def reading_cases() -> Named:
    get = each(lambda s: s.catalog.GetItem, "item", catalog.GetItemRequest)
    delete = each(lambda s: s.catalog.DeleteItem, "deletion", catalog.DeleteItemRequest)
    relations = each(lambda s: s.catalog.ListRelations, "relations", catalog.ListRelationsRequest)
    items = each(lambda s: s.catalog.ListItems, "item list", catalog.ListItemsRequest)
    described = each(
        lambda s: s.catalog.ListInterests, "interest list", catalog.ListInterestsRequest
    )
    profile = each(
        lambda s: s.interests.GetInterestProfile,
        "profile",
        interests.GetInterestProfileRequest,
        user_id="ada",
    )
    for name, bad in BAD_IDS.items():
        yield get("item_id", name, bad)
        yield delete("item_id", name, bad)
        yield relations("user_id", name, bad)
        yield profile("user_id", name, bad)
    for case in (items, described, profile):
        yield case("page_size", "negative", -1)
        yield case("page_size", "1001", 1001)
        yield case("page_token", "made up", "made up")
        yield case("page_token", "base64", "bWFkZSB1cA==")
    for name, moment in BAD_TIMES.items():
        yield profile("at", name, moment)
    for length in (0, -1):
        yield profile("horizon", str(length), Duration(seconds=length))


def recommendation_cases() -> Named:
    slate = each(
        lambda s: s.recommendations.RecommendItems,
        "slate",
        recommendation.RecommendItemsRequest,
        user_id="ada",
    )
    scores = each(
        lambda s: s.recommendations.ScoreItems,
        "scores",
        recommendation.ScoreItemsRequest,
        user_id="ada",
        item_ids=["jazz-01-part-1"],
    )
    for case in (slate, scores):
        for name, bad in BAD_IDS.items():
            yield case("user_id", name, bad)
        for name, moment in BAD_TIMES.items():
            yield case("at", name, moment)
        yield case("release", "-1", -1)
        for alpha in (NAN, INF, -1.0, 1001.0):
            yield case("alpha", str(alpha), alpha)
    for size in (-1, 101):
        yield slate("page_size", str(size), size)
    for strategy in (5, 77, -1):
        yield slate("strategy", str(strategy), strategy)
    yield slate("exclude_item_ids", "1001", [str(n) for n in range(1001)])
    yield slate("exclude_item_ids[1]", "empty", ["a", ""])
    yield slate("exclude_item_ids[0]", "long", [LONG])
    for name, bad in BAD_IDS.items():
        yield scores("item_ids[0]", name, [bad])
    yield scores("item_ids", "none", [])
    yield scores("item_ids", "513", [str(n) for n in range(513)])
    yield scores("item_ids", "twice", ["a", "b", "a"])
    slates = each(
        lambda s: s.recommendations.BatchRecommendItems,
        "slates",
        recommendation.BatchRecommendItemsRequest,
    )
    one = recommendation.RecommendItemsRequest(user_id="ada")
    yield slates("requests", "none", [])
    yield slates("requests", "257", [one] * 257)


CASES = dict(
    case
    for cases in (event_cases, catalogue_cases, reading_cases, recommendation_cases)
    for case in cases()
)


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
    ],
    ids=["profile", "slate", "scores"],
)
def test_a_moment_before_the_first_event(client: Client, call: Callable[[Client], object]) -> None:
    error = refusal(lambda: call(client))
    assert error.code is grpc.StatusCode.OUT_OF_RANGE
    assert error.reason == "AT_BEFORE_FIRST_EVENT"
    earliest = int(error.metadata["earliest_us"]) / 1e6
    assert client.interest_profile("ada", earliest).event_count > 0


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
