"""UserDataService on a store: an export that counts itself, and a receipt."""

from __future__ import annotations

from concurrent.futures import Executor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ebbing.interest.forgetting import ForgettingParameters
from ebbing.v1 import user_data_service_pb2 as pb
from ebbing.v1.catalog_service_pb2 import Relation
from ebbing.v1.interest_pb2 import StateReason
from ebbing.v1.user_event_pb2 import EventType, InterestShare, UserEvent
from server.catalog import Catalog
from server.errors import UserNotFound
from server.inference.releases import Releases
from server.metrics import Metrics
from server.privacy import Privacy
from server.profiles import profile_of
from server.rpc.mapping import timestamp, user_interest
from server.rpc.user_data import UserData
from server.state.alarms import Settlement, Transition
from server.state.sqlite import SqliteStore
from server.state.store import RelationRecord
from server.told import Told
from tests.suites.store_suite import DAY_US, START_US, deed, item, traces_in

PARAMETERS = ForgettingParameters.builtin()
ALPHA = 5.0
NOW_US = START_US + 100 * DAY_US
CONTEXT: Any = None
EVENTS = [
    UserEvent(
        event_id=f"e{n}",
        user_id="ann",
        item_id="ball",
        event_type=EventType.EVENT_TYPE_LIKE,
        event_time=timestamp(START_US / 1e6 + n * 86400),
        value=n,
        query="a ball",
        interests=[InterestShare(interest="sports", share=2.0)],
        session_id="s",
        attribution_token="t",
    )
    for n in range(3)
]
DEEDS = [
    deed(e.event_id, item_id="ball", days=n, event_type=6, body=e.SerializeToString())
    for n, e in enumerate(EVENTS)
]
RELATION = Relation(user_id="ann", other_user_id="bob", strength=0.5)


@pytest.fixture
def service(store: SqliteStore, writer: Executor, metrics: Metrics, tmp_path: Path) -> UserData:
    releases = SimpleNamespace(get=lambda number: SimpleNamespace(forgetting=PARAMETERS))
    privacy = Privacy(store, writer, Catalog(store, writer), metrics, tmp_path)
    ids = iter(f"receipt-{n}" for n in range(9))
    return UserData(privacy, cast(Releases, releases), lambda: NOW_US, lambda: next(ids), ALPHA)


async def exported(service: UserData, user_id: str = "ann") -> list[pb.ExportUserDataResponse]:
    request = pb.ExportUserDataRequest(user_id=user_id)
    return [response async for response in service.ExportUserData(request, CONTEXT)]


async def deleted(service: UserData, user_id: str = "ann") -> pb.DeletionReceipt:
    request = pb.DeleteUserDataRequest(user_id=user_id)
    return (await service.DeleteUserData(request, CONTEXT)).receipt


async def test_every_piece_and_a_summary(service: UserData, store: SqliteStore) -> None:
    store.write_items([item("ball")])
    store.append(DEEDS)
    store.write_relations([RelationRecord("ann", "bob", RELATION.SerializeToString())])
    why = StateReason(text="why")
    told = Told(START_US / 1e6, {"sports": 2})
    faded = Transition("ann", "sports", 2, 3, START_US + 5, 0.25, why.SerializeToString())
    (alarm,) = store.alarms.due(NOW_US, 9, 9)
    settlement = Settlement(alarm.owner, alarm.version, told.encode(), NOW_US + 7, [faded])
    assert store.alarms.settle([settlement], NOW_US) == [True]

    pieces = await exported(service)
    kinds = [piece.WhichOneof("record") for piece in pieces]
    assert kinds == [
        *["event"] * 3,
        "interest",
        "relation",
        *["recent_engagement"] * 3,
        "transition",
        "told",
        "summary",
    ]
    assert [piece.event for piece in pieces[:3]] == EVENTS
    traces = traces_in(store)
    assert traces is not None
    profile = profile_of(traces, NOW_US / 1e6, PARAMETERS, ALPHA)
    assert pieces[3].interest == user_interest(profile, 0)
    assert pieces[4].relation == RELATION
    engagement = pieces[5].recent_engagement
    assert (engagement.item_id, engagement.event_type) == ("ball", EventType.EVENT_TYPE_LIKE)
    assert (engagement.item_key, engagement.event_time) == (
        DEEDS[0].item_key,
        timestamp(START_US / 1e6),
    )
    transition = pieces[8].transition
    assert (transition.user_id, transition.interest, transition.reason) == ("ann", "sports", why)
    assert pieces[9].told == pb.ToldInterests(
        told_time=timestamp(START_US / 1e6),
        states=[pb.ToldState(interest="sports", state=2)],
        due_time=timestamp((NOW_US + 7) / 1e6),
    )
    assert pieces[10].summary == pb.ExportSummary(
        user_id="ann",
        at=timestamp(NOW_US / 1e6),
        forgetting_version=PARAMETERS.version,
        event_count=3,
        interest_count=1,
        relation_count=1,
        recent_engagement_count=3,
        transition_count=1,
    )


async def test_nothing_is_held(service: UserData) -> None:
    with pytest.raises(UserNotFound) as error:
        await exported(service, "nobody")
    assert error.value.metadata == {"user_id": "nobody"}


async def test_a_deletion_and_another(service: UserData, store: SqliteStore) -> None:
    store.append(DEEDS)
    receipt = await deleted(service)
    assert receipt == pb.DeletionReceipt(
        receipt_id="receipt-0", delete_time=timestamp(NOW_US / 1e6), deleted_event_count=3
    )
    assert await deleted(service) == receipt
    first, summary = await exported(service)
    assert first.deletion == receipt
    assert summary.summary.event_count == 0
    assert (await deleted(service, "nobody")).deleted_event_count == 0
