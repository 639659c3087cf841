"""Requests at the edges of what each field takes, on either side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from ebbing.v1 import catalog_service_pb2 as catalog_pb
from ebbing.v1 import interest_service_pb2 as interest_pb
from ebbing.v1 import recommendation_service_pb2 as recommendation_pb
from ebbing.v1 import release_service_pb2 as release_pb
from ebbing.v1 import user_data_service_pb2 as data_pb
from ebbing.v1 import user_event_service_pb2 as event_pb
from ebbing.v1.user_event_pb2 import InterestShare, UserEvent
from server.rpc.paging import write_token

NOW_US = 1_700_000_000_000_000
"""What the gateway takes for now, microseconds since the epoch."""
TOLERANCE_US = 60_000_000


def event(**fields: Any) -> UserEvent:
    made = {"event_id": "e", "user_id": "u", "item_id": "i", "event_type": 1, **fields}
    made.setdefault("event_time", Timestamp(seconds=NOW_US // 10**6))
    return UserEvent(**{name: value for name, value in made.items() if value is not None})


def write_event(**fields: Any) -> event_pb.WriteUserEventRequest:
    return event_pb.WriteUserEventRequest(event=event(**fields))


def write_items(**fields: Any) -> catalog_pb.BatchWriteItemsRequest:
    return catalog_pb.BatchWriteItemsRequest(items=[catalog_pb.Item(**{"item_id": "i", **fields})])


def write_interests(**fields: Any) -> catalog_pb.BatchWriteInterestsRequest:
    interest = catalog_pb.Interest(**{"path": "a/b", **fields})
    return catalog_pb.BatchWriteInterestsRequest(interests=[interest])


def write_relations(**fields: Any) -> catalog_pb.BatchWriteRelationsRequest:
    relation = catalog_pb.Relation(**{"user_id": "u", "other_user_id": "v", **fields})
    return catalog_pb.BatchWriteRelationsRequest(relations=[relation])


def profile(**fields: Any) -> interest_pb.GetInterestProfileRequest:
    return interest_pb.GetInterestProfileRequest(**{"user_id": "u", **fields})


def history(**fields: Any) -> interest_pb.ListInterestHistoryRequest:
    return interest_pb.ListInterestHistoryRequest(**{"user_id": "u", **fields})


def graph(**fields: Any) -> interest_pb.GetInterestGraphRequest:
    return interest_pb.GetInterestGraphRequest(**{"user_id": "u", **fields})


def explanation(**fields: Any) -> interest_pb.ExplainInterestRequest:
    return interest_pb.ExplainInterestRequest(**{"user_id": "u", "interest": "a", **fields})


def watch(**fields: Any) -> interest_pb.WatchForgettingRequest:
    return interest_pb.WatchForgettingRequest(**fields)


def recommend(**fields: Any) -> recommendation_pb.RecommendItemsRequest:
    return recommendation_pb.RecommendItemsRequest(**{"user_id": "u", **fields})


def batch(*requests: Message) -> recommendation_pb.BatchRecommendItemsRequest:
    return recommendation_pb.BatchRecommendItemsRequest(requests=requests)


def score(**fields: Any) -> recommendation_pb.ScoreItemsRequest:
    return recommendation_pb.ScoreItemsRequest(**{"user_id": "u", "item_ids": ["i"], **fields})


def shares(*paths: str, share: float = 1.0) -> list[InterestShare]:
    return [InterestShare(interest=path, share=share) for path in paths]


def vector(*values: float) -> catalog_pb.ContentVector:
    return catalog_pb.ContentVector(values=values)


Case = tuple[Message, set[str]]
BAD: list[Case] = []
"""Requests, and the fields that are wrong with them."""
GOOD: list[Message] = []
"""Requests at the edge of what is taken."""


def texts(make: Callable[[str], Message], field: str, limit: int, required: bool) -> None:
    """A text of at most so many bytes."""
    GOOD.extend(map(make, ["x" * limit, "é" * (limit // 2), "a b\t\n/'\"", "\x01"]))
    BAD.extend(
        (make(v), {field}) for v in ("x" * (limit + 1), "é" * (limit // 2 + 1), "a\0b", "\0")
    )
    if required:
        BAD.append((make(""), {field}))
    else:
        GOOD.append(make(""))


def paths(make: Callable[[str], Message], field: str) -> None:
    """A path of an interest."""
    GOOD.extend(map(make, ["x" * 256, "é" * 128, "a/b/c", " "]))
    bad = ("", "x" * 257, "é" * 129, "a\0b", "/", "/a", "a/", "a//b")
    BAD.extend((make(value), {field}) for value in bad)


def times(make: Callable[[Timestamp], Message], field: str, latest_s: int = 7_258_118_399) -> None:
    """A time from 1970 to 2200."""
    GOOD.extend(map(make, [Timestamp(), Timestamp(nanos=999_999_999), Timestamp(seconds=latest_s)]))
    bad = (
        Timestamp(seconds=-1),
        Timestamp(seconds=7_258_118_400),
        Timestamp(seconds=2**62),
        Timestamp(seconds=-(2**62)),
        Timestamp(seconds=1, nanos=-1),
        Timestamp(seconds=1, nanos=10**9),
    )
    BAD.extend((make(value), {field}) for value in bad)


def numbers(
    make: Callable[[float], Message], field: str, bad: Sequence[float], good: Sequence[float]
) -> None:
    """A number in a range, which no NaN and no infinity ever is."""
    GOOD.extend(map(make, good))
    BAD.extend((make(value), {field}) for value in (*bad, math.nan, math.inf, -math.inf))


def positives(make: Callable[[float], Message], field: str) -> None:
    numbers(make, field, [-1.0, -1e-300, 1e-300, 9e-7, 1000.5], [0.0, 1e-6, 1000.0])


def integers(make: Callable[[int], Message], field: str, limit: int) -> None:
    """A size from 0, which asks for the default."""
    GOOD.extend(map(make, [0, 1, limit]))
    BAD.extend((make(value), {field}) for value in (-1, limit + 1, -(2**31), 2**31 - 1))


def counts(make: Callable[[int], Message], field: str, limit: int, required: bool) -> None:
    """So many elements."""
    GOOD.extend(map(make, [1, limit]))
    BAD.append((make(limit + 1), {field}))
    if required:
        BAD.append((make(0), {field}))
    else:
        GOOD.append(make(0))


def tokens(make: Callable[[str], Message], own: str) -> None:
    """A page token of the very request."""
    GOOD.extend(map(make, ["", write_token(own, "5")]))
    bad = ("x", "é", "\0", "e30=", "W10=", write_token("others", "5"), "x" * 10_000)
    BAD.extend((make(value), {"page_token"}) for value in bad)


# WriteUserEvent

BAD.append((event_pb.WriteUserEventRequest(), {"event"}))
texts(lambda v: write_event(event_id=v), "event.event_id", 128, True)
texts(lambda v: write_event(user_id=v), "event.user_id", 128, True)
texts(lambda v: write_event(item_id=v, query="q"), "event.item_id", 128, False)
texts(lambda v: write_event(query=v), "event.query", 1024, False)
texts(lambda v: write_event(session_id=v), "event.session_id", 128, False)
texts(lambda v: write_event(attribution_token=v), "event.attribution_token", 1024, False)
times(lambda v: write_event(event_time=v), "event.event_time", NOW_US // 10**6 + 60)
paths(lambda v: write_event(interests=shares(v)), "event.interests[0].interest")
positives(lambda v: write_event(interests=shares("a", share=v)), "event.interests[0].share")
counts(
    lambda n: write_event(interests=shares(*(f"p{i}" for i in range(n)))),
    "event.interests",
    32,
    False,
)
numbers(lambda v: write_event(value=v), "event.value", [], [0.0, -1e308, 1e308])
GOOD.extend(write_event(event_type=kind) for kind in range(1, 14))
GOOD.extend(
    [
        write_event(item_id="", query="q"),
        write_event(item_id="", interests=shares("a")),
        write_event(event_time=Timestamp(seconds=NOW_US // 10**6 + 60)),
    ]
)
BAD.extend(
    [
        (write_event(event_time=None), {"event.event_time"}),
        (
            write_event(event_time=Timestamp(seconds=NOW_US // 10**6 + 60, nanos=1000)),
            {"event.event_time"},
        ),
        (write_event(event_time=Timestamp(seconds=7_000_000_000)), {"event.event_time"}),
        *((write_event(event_type=kind), {"event.event_type"}) for kind in (0, 14, 99, -1)),
        (write_event(item_id=""), {"event.item_id"}),
        (write_event(interests=shares("a", "b", "a")), {"event.interests"}),
        # Everything that is wrong is said at once.
        (
            event_pb.WriteUserEventRequest(event=UserEvent()),
            {f"event.{n}" for n in ("event_id", "user_id", "event_type", "event_time", "item_id")},
        ),
        (
            write_event(user_id="", interests=shares("a", "", "b/", share=-1.0)),
            {
                "event.user_id",
                "event.interests[1].interest",
                "event.interests[2].interest",
                *(f"event.interests[{i}].share" for i in range(3)),
            },
        ),
    ]
)

# BatchWriteUserEvents.

counts(lambda n: event_pb.BatchWriteUserEventsRequest(events=[event()] * n), "events", 1000, True)

# BatchWriteItems

texts(lambda v: write_items(item_id=v), "items[0].item_id", 128, True)
texts(lambda v: write_items(title=v), "items[0].title", 512, False)
texts(lambda v: write_items(attributes={v: "x"}), "items[0].attributes", 128, True)
texts(lambda v: write_items(attributes={"k": v}), "items[0].attributes['k']", 1024, False)
texts(lambda v: write_items(content={v: vector(1.0)}), "items[0].content", 128, True)
paths(lambda v: write_items(interests=shares(v)), "items[0].interests[0].interest")
positives(lambda v: write_items(interests=shares("a", share=v)), "items[0].interests[0].share")
times(lambda v: write_items(available_time=v), "items[0].available_time")
times(lambda v: write_items(expire_time=v), "items[0].expire_time")
numbers(
    lambda v: write_items(content={"text": vector(0.0, v)}),
    "items[0].content['text'].values",
    [0.0, -0.0],
    [1.0, -1.0],
)
counts(
    lambda n: catalog_pb.BatchWriteItemsRequest(
        items=[catalog_pb.Item(item_id=f"i{i}") for i in range(n)]
    ),
    "items",
    1000,
    True,
)
counts(
    lambda n: write_items(interests=shares(*(f"p{i}" for i in range(n)))),
    "items[0].interests",
    32,
    False,
)
counts(
    lambda n: write_items(attributes={f"k{i}": "" for i in range(n)}),
    "items[0].attributes",
    64,
    False,
)
counts(
    lambda n: write_items(content={f"k{i}": vector(1.0) for i in range(n)}),
    "items[0].content",
    8,
    False,
)
counts(
    lambda n: write_items(content={"text": vector(*[1.0] * n)}),
    "items[0].content['text'].values",
    4096,
    True,
)
BAD.extend(
    [
        (
            catalog_pb.BatchWriteItemsRequest(items=[catalog_pb.Item(item_id=i) for i in "aba"]),
            {"items"},
        ),
        (
            catalog_pb.BatchWriteItemsRequest(
                items=[catalog_pb.Item(item_id=i) for i in ("a", "", "b")]
            ),
            {"items[1].item_id"},
        ),
        (write_items(interests=shares("a", "a")), {"items[0].interests"}),
    ]
)

# The rest of the catalogue

texts(lambda v: catalog_pb.GetItemRequest(item_id=v), "item_id", 128, True)
texts(lambda v: catalog_pb.DeleteItemRequest(item_id=v), "item_id", 128, True)
integers(lambda v: catalog_pb.ListItemsRequest(page_size=v), "page_size", 1000)
tokens(lambda v: catalog_pb.ListItemsRequest(page_token=v), "items")
paths(lambda v: write_interests(path=v), "interests[0].path")
texts(lambda v: write_interests(title=v), "interests[0].title", 512, False)
counts(
    lambda n: catalog_pb.BatchWriteInterestsRequest(
        interests=[catalog_pb.Interest(path=f"p{i}") for i in range(n)]
    ),
    "interests",
    1000,
    True,
)
BAD.append(
    (
        catalog_pb.BatchWriteInterestsRequest(interests=[catalog_pb.Interest(path="a")] * 2),
        {"interests"},
    )
)
integers(lambda v: catalog_pb.ListInterestsRequest(page_size=v), "page_size", 1000)
tokens(lambda v: catalog_pb.ListInterestsRequest(page_token=v), "interests")
texts(lambda v: write_relations(user_id=v), "relations[0].user_id", 128, True)
texts(lambda v: write_relations(other_user_id=v), "relations[0].other_user_id", 128, True)
positives(lambda v: write_relations(strength=v), "relations[0].strength")
BAD.append((write_relations(other_user_id="u"), {"relations[0].other_user_id"}))
counts(
    lambda n: catalog_pb.BatchWriteRelationsRequest(
        relations=[catalog_pb.Relation(user_id="u", other_user_id=f"v{i}") for i in range(n)]
    ),
    "relations",
    1000,
    True,
)
texts(lambda v: catalog_pb.ListRelationsRequest(user_id=v), "user_id", 128, True)
integers(lambda v: catalog_pb.ListRelationsRequest(user_id="u", page_size=v), "page_size", 1000)
tokens(lambda v: catalog_pb.ListRelationsRequest(user_id="u", page_token=v), "relations of u")
BAD.append(
    (
        catalog_pb.ListRelationsRequest(
            user_id="u", page_token=write_token("relations of somebody else", "v")
        ),
        {"page_token"},
    )
)

# InterestService: what lies beyond the fields needs the release, so only fields are tested.

for asked in (profile, history, graph, explanation):
    texts(lambda v, asked=asked: asked(user_id=v), "user_id", 128, True)
    times(lambda v, asked=asked: asked(at=v), "at")
for asked in (profile, history, explanation):
    GOOD.extend([asked(horizon=Duration(seconds=1)), asked(horizon=Duration(nanos=1))])
    BAD.extend(
        (asked(horizon=horizon), {"horizon"})
        for horizon in (
            Duration(),
            Duration(seconds=-1),
            Duration(nanos=-1),
            Duration(seconds=1, nanos=-1),
            Duration(seconds=-(2**62)),
        )
    )
numbers(lambda v: profile(alpha=v), "alpha", [-0.1, 1000.1], [0.0, 1000.0])
paths(lambda v: explanation(interest=v), "interest")
paths(lambda v: history(interests=["a", v]), "interests[1]")
counts(lambda n: history(interests=[f"p{i}" for i in range(n)]), "interests", 64, False)
times(lambda v: history(start_time=v), "start_time")
times(lambda v: history(end_time=v), "end_time")
GOOD.extend(
    [
        history(step=Duration(seconds=60)),
        history(step=Duration(seconds=2**62)),
        history(start_time=Timestamp(seconds=5), end_time=Timestamp(seconds=5)),
        *(graph(max_nodes=n) for n in (0, 1, 256)),
    ]
)
BAD.extend(
    [
        (history(interests=["a", "b", "a"]), {"interests"}),
        (
            history(start_time=Timestamp(seconds=5), end_time=Timestamp(seconds=4)),
            {"end_time"},
        ),
        *(
            (history(step=step), {"step"})
            for step in (
                Duration(),
                Duration(seconds=59, nanos=999_999_999),
                Duration(seconds=-60),
                Duration(seconds=60, nanos=-1),
            )
        ),
        *((graph(max_nodes=n), {"max_nodes"}) for n in (-1, 257)),
    ]
)

# WatchForgetting

texts(lambda v: watch(user_ids=["u", v]), "user_ids[1]", 128, required=True)
counts(lambda n: watch(user_ids=["u"] * n), "user_ids", 1000, required=False)
counts(lambda n: watch(states=[3] * n), "states", 6, required=False)
GOOD.append(watch(states=[1, 2, 3, 4, 5, 6]))
BAD += [
    *((watch(states=[5, state]), {"states[1]"}) for state in (0, 7, -1)),
    (watch(cursor="x" * 1025), {"cursor"}),
]

# UserDataService

for wanted in (data_pb.ExportUserDataRequest, data_pb.DeleteUserDataRequest):
    texts(lambda v, wanted=wanted: wanted(user_id=v), "user_id", 128, True)

# RecommendItems

texts(lambda v: recommend(user_id=v), "user_id", 128, True)
texts(lambda v: recommend(exclude_item_ids=["a", v]), "exclude_item_ids[1]", 128, True)
counts(lambda n: recommend(exclude_item_ids=["a"] * n), "exclude_item_ids", 1000, False)
integers(lambda v: recommend(page_size=v), "page_size", 100)
times(lambda v: recommend(at=v), "at")
numbers(lambda v: recommend(alpha=v), "alpha", [-0.1, 1000.1], [0.0, 1000.0])
numbers(lambda v: recommend(diversity=v), "diversity", [-0.1, 1.1], [0.0, 1.0])
GOOD.extend([recommend(release=0), recommend(release=2**62)])
GOOD.extend(recommend(strategy=strategy) for strategy in (1, 2, 3, 4))


def attribute(name: str = "a", *values: str) -> recommendation_pb.AttributeFilter:
    return recommendation_pb.AttributeFilter(attribute=name, values=values)


for kind in ("allow", "deny"):
    texts(
        lambda v, kind=kind: recommend(**{kind: [attribute(v, "x")]}),
        f"{kind}[0].attribute",
        128,
        True,
    )
    texts(
        lambda v, kind=kind: recommend(**{kind: [attribute("a", "x", v)]}),
        f"{kind}[0].values",
        1024,
        False,
    )
    counts(
        lambda n, kind=kind: recommend(**{kind: [attribute("a", *["x"] * n)]}),
        f"{kind}[0].values",
        100,
        True,
    )
    counts(lambda n, kind=kind: recommend(**{kind: [attribute("a", "x")] * n}), kind, 16, False)
texts(lambda v: recommend(context={v: "x"}), "context", 128, True)
texts(lambda v: recommend(context={"a": v}), "context", 1024, False)
counts(lambda n: recommend(context={f"c{i}": "x" for i in range(n)}), "context", 16, False)
paths(lambda v: recommend(context_interests=["a", v]), "context_interests[1]")
counts(lambda n: recommend(context_interests=["a"] * n), "context_interests", 16, False)
BAD.extend(
    [
        (recommend(release=-1), {"release"}),
        (recommend(strategy=99), {"strategy"}),
        (recommend(strategy=-1), {"strategy"}),
        (
            recommend(user_id="", release=-1, alpha=math.nan, at=Timestamp(seconds=-1)),
            {"user_id", "release", "alpha", "at"},
        ),
    ]
)

# BatchRecommendItems.

BAD.extend([(batch(), {"requests"}), (batch(*[recommend()] * 257), {"requests"})])

# ScoreItems

texts(lambda v: score(user_id=v), "user_id", 128, True)
texts(lambda v: score(item_ids=["a", v]), "item_ids[1]", 128, True)
counts(lambda n: score(item_ids=[f"i{i}" for i in range(n)]), "item_ids", 512, True)
times(lambda v: score(at=v), "at")
numbers(lambda v: score(alpha=v), "alpha", [-0.1, 1000.1], [0.0, 1000.0])
BAD.extend([(score(release=-1), {"release"}), (score(item_ids=["a", "a"]), {"item_ids"})])

# ListReleases

integers(lambda v: release_pb.ListReleasesRequest(page_size=v), "page_size", 1000)
tokens(lambda v: release_pb.ListReleasesRequest(page_token=v), "releases")

# PublishRelease, SetReleaseTraffic, PromoteRelease, RollBackRelease


def traffic(**fields: Any) -> release_pb.SetReleaseTrafficRequest:
    canary = release_pb.RELEASE_ROLE_CANARY
    return release_pb.SetReleaseTrafficRequest(**{"release": 1, "role": canary, **fields})


for request in (
    lambda v: release_pb.PublishReleaseRequest(release=v),
    lambda v: release_pb.PromoteReleaseRequest(release=v),
    lambda v: traffic(release=v),
):
    BAD.extend((request(v), {"release"}) for v in (0, -1, -(2**63)))
    GOOD.extend(map(request, (1, 2**63 - 1)))
numbers(lambda v: traffic(traffic=v), "traffic", [-0.1, 1.01], [0.0, 1.0])
BAD.extend((traffic(role=v), {"role"}) for v in (0, 1, 2, 5, 99))
GOOD.append(traffic(role=release_pb.RELEASE_ROLE_SHADOW))
texts(lambda v: release_pb.RollBackReleaseRequest(reason=v), "reason", 1024, False)
BAD.append((release_pb.RollBackReleaseRequest(release=-1), {"release"}))
GOOD.append(release_pb.RollBackReleaseRequest(release=1))
