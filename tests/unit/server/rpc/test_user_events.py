"""Writing events: each is judged by itself, and each is answered."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from ebbing.v1 import user_event_service_pb2 as event_pb
from ebbing.v1.user_event_pb2 import UserEvent
from server.errors import EventIdReused, InvalidFields, UserDeleted
from server.ingest import EventResult
from server.limits import Limits
from server.metrics import Metrics
from server.retention import RetentionPeriods
from server.rpc.user_events import UserEvents
from server.state.store import WriteOutcome
from tests.unit.server.rpc.request_table import NOW_US, TOLERANCE_US, event, write_event

CONTEXT: Any = None
"""Nothing is asked of the call's context."""
OUTCOMES = {"reused": WriteOutcome.ID_REUSED, "too late": WriteOutcome.USER_DELETED}
DAY_S = 86400


class FakeIngest:
    """Takes every event but those of certain ids; only some items are known."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    async def write(self, events: Sequence[UserEvent]) -> list[EventResult]:
        self.taken += [e.event_id for e in events]
        return [
            EventResult(OUTCOMES.get(e.event_id, WriteOutcome.ACCEPTED), e.item_id == "unknown")
            for e in events
        ]


@pytest.fixture
def ingest() -> FakeIngest:
    return FakeIngest()


@pytest.fixture
def user_events(ingest: Any, metrics: Metrics) -> UserEvents:
    periods, limits = RetentionPeriods(events_s=30 * DAY_S), Limits(events=6)
    return UserEvents(ingest, metrics, lambda: NOW_US, TOLERANCE_US, periods, limits)


async def test_the_good_events_of_a_batch_are_taken(
    user_events: UserEvents, ingest: FakeIngest, sample
) -> None:
    events = [
        event(event_id="first"),
        event(event_id="second", user_id=""),
        event(event_id="reused"),
        event(event_id="", value=math.nan),
        event(event_id="last", item_id="unknown"),
    ]
    request = event_pb.BatchWriteUserEventsRequest(events=events)
    response = await user_events.BatchWriteUserEvents(request, CONTEXT)
    assert ingest.taken == ["first", "reused", "last"]
    counted = (response.accepted_count, response.duplicate_count, response.rejected_count)
    assert counted == (2, 0, 3)
    assert [(ack.event_id, ack.reason, ack.unknown_item) for ack in response.notable] == [
        ("second", "INVALID_FIELD", False),
        ("reused", "EVENT_ID_REUSED", False),
        ("", "INVALID_FIELD", False),
        ("last", "", True),
    ]
    assert response.notable[0].message == "events[1].user_id: is required"
    assert "events[3].event_id" in response.notable[2].message
    assert "events[3].value" in response.notable[2].message
    assert sample("ebbing_user_events_total", event_type="any", outcome="invalid") == 2


async def test_a_batch_of_bad_events_only(user_events: UserEvents, ingest: FakeIngest) -> None:
    request = event_pb.BatchWriteUserEventsRequest(events=[UserEvent()] * 3)
    response = await user_events.BatchWriteUserEvents(request, CONTEXT)
    assert response.rejected_count == len(response.notable) == 3
    assert ingest.taken == []


async def test_a_stream_goes_on_after_a_bad_event(
    user_events: UserEvents, ingest: FakeIngest
) -> None:
    async def sent() -> AsyncIterator[event_pb.StreamUserEventsRequest]:
        for one in (event(event_id="a"), UserEvent(), event(event_id="reused"), event()):
            yield event_pb.StreamUserEventsRequest(event=one)

    acks = [r.ack async for r in user_events.StreamUserEvents(sent(), CONTEXT)]
    assert [(ack.event_id, ack.reason) for ack in acks] == [
        ("a", ""),
        ("", "INVALID_FIELD"),
        ("reused", "EVENT_ID_REUSED"),
        ("e", ""),
    ]
    assert acks[2].outcome == event_pb.EVENT_OUTCOME_REJECTED
    assert ingest.taken == ["a", "reused", "e"]


async def test_a_lone_event_is_acknowledged(user_events: UserEvents, ingest: FakeIngest) -> None:
    response = await user_events.WriteUserEvent(write_event(item_id="unknown"), CONTEXT)
    assert response.ack == event_pb.EventAck(
        event_id="e", outcome=event_pb.EVENT_OUTCOME_ACCEPTED, unknown_item=True
    )
    assert ingest.taken == ["e"]


async def test_a_lone_event_with_a_used_id_is_an_error(user_events: UserEvents) -> None:
    with pytest.raises(EventIdReused) as error:
        await user_events.WriteUserEvent(write_event(event_id="reused"), CONTEXT)
    assert error.value.metadata == {"event_id": "reused"}


async def test_an_event_from_before_the_deletion_of_its_user(user_events: UserEvents) -> None:
    with pytest.raises(UserDeleted, match="drop the event") as error:
        await user_events.WriteUserEvent(write_event(event_id="too late"), CONTEXT)
    assert error.value.metadata == {"event_id": "too late"}
    request = event_pb.BatchWriteUserEventsRequest(events=[event(event_id="too late"), event()])
    response = await user_events.BatchWriteUserEvents(request, CONTEXT)
    assert (response.accepted_count, response.rejected_count) == (1, 1)
    assert [(ack.event_id, ack.reason) for ack in response.notable] == [
        ("too late", "USER_DELETED")
    ]


async def test_events_older_than_events_are_kept(
    user_events: UserEvents, ingest: FakeIngest
) -> None:
    # Three days less than the period: clocks may differ.
    limit_s = NOW_US // 10**6 - 27 * DAY_S
    request = event_pb.BatchWriteUserEventsRequest(
        events=[
            event(event_id="just", event_time=Timestamp(seconds=limit_s)),
            event(event_id="old", event_time=Timestamp(seconds=limit_s - 1)),
        ]
    )
    response = await user_events.BatchWriteUserEvents(request, CONTEXT)
    assert ingest.taken == ["just"]
    (ack,) = response.notable
    assert (ack.event_id, ack.reason) == ("old", "INVALID_FIELD")
    assert ack.message.startswith("events[1].event_time: is older than the 27 days")


async def test_a_gateway_may_take_fewer_events_at_once(user_events: UserEvents) -> None:
    request = event_pb.BatchWriteUserEventsRequest(events=[event()] * 7)
    with pytest.raises(InvalidFields, match="events: has 7 elements, at most 6"):
        await user_events.BatchWriteUserEvents(request, CONTEXT)
