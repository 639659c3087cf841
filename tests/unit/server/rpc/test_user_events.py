"""Writing events: each is judged by itself, and each is answered."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from ebbing.v1 import user_event_service_pb2 as event_pb
from ebbing.v1.user_event_pb2 import UserEvent
from server.errors import EventIdReused
from server.ingest import EventResult
from server.metrics import Metrics
from server.rpc.user_events import UserEvents
from server.state.store import WriteOutcome
from tests.unit.server.rpc.request_table import NOW_US, TOLERANCE_US, event, write_event

CONTEXT: Any = None
"""Nothing is asked of the call's context."""


class FakeIngest:
    """Takes every event; only some items are known."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    async def write(self, events: Sequence[UserEvent]) -> list[EventResult]:
        self.taken += [e.event_id for e in events]
        return [
            EventResult(
                WriteOutcome.ID_REUSED if e.event_id == "reused" else WriteOutcome.ACCEPTED,
                e.item_id == "unknown",
            )
            for e in events
        ]


@pytest.fixture
def ingest() -> FakeIngest:
    return FakeIngest()


@pytest.fixture
def user_events(ingest: Any, metrics: Metrics) -> UserEvents:
    return UserEvents(ingest, metrics, lambda: NOW_US, TOLERANCE_US)


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
