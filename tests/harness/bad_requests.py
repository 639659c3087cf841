"""Requests a gateway refuses for one field each, and that field."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from ebbing.client import Stubs, user_event
from ebbing.v1 import catalog_service_pb2 as catalog
from ebbing.v1 import interest_service_pb2 as interests
from ebbing.v1 import recommendation_service_pb2 as recommendation
from ebbing.v1 import user_data_service_pb2 as user_data
from ebbing.v1 import user_event_service_pb2 as user_events
from ebbing.v1.user_event_pb2 import InterestShare, UserEvent
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
        "zeros": [0.0, 0.0],
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
    for name, bad in BAD_IDS.items():
        yield get("item_id", name, bad)
        yield delete("item_id", name, bad)
        yield relations("user_id", name, bad)
    for case in (items, described):
        yield from bad_pages(case)


def bad_pages(case: Callable[[str, str, Any], tuple[str, Case]]) -> Named:
    yield case("page_size", "negative", -1)
    yield case("page_size", "1001", 1001)
    yield case("page_token", "made up", "made up")
    yield case("page_token", "base64", "bWFkZSB1cA==")


def interest_cases() -> Named:
    profile = each(
        lambda s: s.interests.GetInterestProfile,
        "profile",
        interests.GetInterestProfileRequest,
        user_id="ada",
    )
    history = each(
        lambda s: s.interests.ListInterestHistory,
        "history",
        interests.ListInterestHistoryRequest,
        user_id="ada",
    )
    graph = each(
        lambda s: s.interests.GetInterestGraph,
        "graph",
        interests.GetInterestGraphRequest,
        user_id="ada",
    )
    explanation = each(
        lambda s: s.interests.ExplainInterest,
        "explanation",
        interests.ExplainInterestRequest,
        user_id="ada",
        interest="sports/football",
    )
    for case in (profile, history, graph, explanation):
        for name, bad in BAD_IDS.items():
            yield case("user_id", name, bad)
        for name, moment in BAD_TIMES.items():
            yield case("at", name, moment)
    for case in (profile, history):
        yield from bad_pages(case)
    for case in (profile, history, explanation):
        for length in (0, -1):
            yield case("horizon", str(length), Duration(seconds=length))
    for alpha in (NAN, INF, -1.0, 1001.0):
        yield profile("alpha", str(alpha), alpha)
    for name, bad in {"none": "", "long": "x" * 257, "slashes": "a//b", "NUL": NUL}.items():
        yield explanation("interest", name, bad)
        yield history("interests[0]", name, [bad])
    yield history("interests", "65", [f"a/{n}" for n in range(65)])
    yield history("interests", "twice", ["a", "b", "a"])
    for name, moment in BAD_TIMES.items():
        yield history("start_time", name, moment)
        yield history("end_time", name, moment)
    backwards = each(
        lambda s: s.interests.ListInterestHistory,
        "history",
        interests.ListInterestHistoryRequest,
        user_id="ada",
        start_time=Timestamp(seconds=END),
    )
    yield backwards("end_time", "before the start", Timestamp(seconds=END - 1))
    for seconds in (0, 59, -60):
        yield history("step", str(seconds), Duration(seconds=seconds))
    for nodes in (-1, 257):
        yield graph("max_nodes", str(nodes), nodes)


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
    for size in (-1, 101, 10_000):
        yield slate("page_size", str(size), size)
    for strategy in (5, 77, -1):
        yield slate("strategy", str(strategy), strategy)
    yield slate("exclude_item_ids", "1001", [str(n) for n in range(1001)])
    yield slate("exclude_item_ids[1]", "empty", ["a", ""])
    yield slate("exclude_item_ids[0]", "long", [LONG])
    for name, bad in BAD_IDS.items():
        yield scores("item_ids[0]", name, [bad])
    yield scores("item_ids", "none", [])
    for number in (513, 5000):
        yield scores("item_ids", str(number), [str(n) for n in range(number)])
    yield scores("item_ids", "twice", ["a", "b", "a"])
    slates = each(
        lambda s: s.recommendations.BatchRecommendItems,
        "slates",
        recommendation.BatchRecommendItemsRequest,
    )
    one = recommendation.RecommendItemsRequest(user_id="ada")
    yield slates("requests", "none", [])
    yield slates("requests", "257", [one] * 257)


def user_data_cases() -> Named:
    export = each(
        lambda s: lambda request, timeout: list(s.user_data.ExportUserData(request, timeout)),
        "export",
        user_data.ExportUserDataRequest,
    )
    deletion = each(
        lambda s: s.user_data.DeleteUserData, "user deletion", user_data.DeleteUserDataRequest
    )
    for case in (export, deletion):
        for name, bad in BAD_IDS.items():
            yield case("user_id", name, bad)


CASES = dict(
    case
    for cases in (
        event_cases,
        catalogue_cases,
        reading_cases,
        interest_cases,
        recommendation_cases,
        user_data_cases,
    )
    for case in cases()
)
