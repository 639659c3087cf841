"""UserEventService."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable

from ebbing.v1 import user_event_service_pb2 as pb
from ebbing.v1 import user_event_service_pb2_grpc
from ebbing.v1.user_event_pb2 import UserEvent
from server.errors import EbbingError, EventIdReused, InvalidFields
from server.ingest import EventResult, Ingest
from server.metrics import Metrics
from server.rpc import Context
from server.rpc.mapping import event_ack
from server.rpc.streams import answer_in_order
from server.rpc.validation import Checks, check_event
from server.state.store import WriteOutcome

__all__ = ["UserEvents"]

MAX_EVENTS = 1000
_OUTCOMES = {
    WriteOutcome.ACCEPTED: pb.EVENT_OUTCOME_ACCEPTED,
    WriteOutcome.DUPLICATE: pb.EVENT_OUTCOME_DUPLICATE,
    WriteOutcome.ID_REUSED: pb.EVENT_OUTCOME_REJECTED,
}


class UserEvents(user_event_service_pb2_grpc.UserEventServiceServicer):
    """Writes behaviour events."""

    def __init__(
        self, ingest: Ingest, metrics: Metrics, now_us: Callable[[], int], tolerance_us: int
    ) -> None:
        """Set up; ``tolerance_us`` is how far after now an event may lie, microseconds."""
        self._ingest = ingest
        self._metrics = metrics
        self._now_us = now_us
        self._tolerance_us = tolerance_us

    async def WriteUserEvent(
        self, request: pb.WriteUserEventRequest, context: Context
    ) -> pb.WriteUserEventResponse:
        """Write one event."""
        with Checks() as checks:
            checks.present("event", request, "event")
        if invalid := self._invalid("event", request.event):
            raise invalid
        (result,) = await self._ingest.write([request.event])
        if result.outcome is WriteOutcome.ID_REUSED:
            raise _reused(request.event)
        return pb.WriteUserEventResponse(ack=_ack(request.event, result))

    async def BatchWriteUserEvents(
        self, request: pb.BatchWriteUserEventsRequest, context: Context
    ) -> pb.BatchWriteUserEventsResponse:
        """Write many events, each by itself."""
        with Checks() as checks:
            checks.count("events", len(request.events), MAX_EVENTS, required=True)
        rejected: dict[int, InvalidFields] = {}
        for i, event in enumerate(request.events):
            if invalid := self._invalid(f"events[{i}]", event):
                rejected[i] = invalid
        valid = [event for i, event in enumerate(request.events) if i not in rejected]
        results = iter(await self._ingest.write(valid))
        acks = [
            event_ack(event.event_id, pb.EVENT_OUTCOME_REJECTED, error=rejected[i])
            if i in rejected
            else _ack(event, next(results))
            for i, event in enumerate(request.events)
        ]
        counts = Counter(ack.outcome for ack in acks)
        return pb.BatchWriteUserEventsResponse(
            accepted_count=counts[pb.EVENT_OUTCOME_ACCEPTED],
            duplicate_count=counts[pb.EVENT_OUTCOME_DUPLICATE],
            rejected_count=counts[pb.EVENT_OUTCOME_REJECTED],
            notable=[ack for ack in acks if ack.reason or ack.unknown_item],
        )

    async def StreamUserEvents(
        self, request_iterator: AsyncIterator[pb.StreamUserEventsRequest], context: Context
    ) -> AsyncIterator[pb.StreamUserEventsResponse]:
        """Write events as they come; acknowledge them in order."""
        async for response in answer_in_order(request_iterator, self._write_streamed):
            yield response

    async def _write_streamed(
        self, message: pb.StreamUserEventsRequest
    ) -> pb.StreamUserEventsResponse:
        event = message.event
        if invalid := self._invalid("event", event):
            ack = event_ack(event.event_id, pb.EVENT_OUTCOME_REJECTED, error=invalid)
        else:
            (result,) = await self._ingest.write([event])
            ack = _ack(event, result)
        return pb.StreamUserEventsResponse(ack=ack)

    def _invalid(self, field: str, event: UserEvent) -> InvalidFields | None:
        try:
            with Checks() as checks:
                check_event(checks, field, event, self._now_us() + self._tolerance_us)
        except InvalidFields as error:
            self._metrics.user_events.labels("any", "invalid").inc()
            return error
        return None


def _ack(event: UserEvent, result: EventResult) -> pb.EventAck:
    reused: EbbingError | None = None
    if result.outcome is WriteOutcome.ID_REUSED:
        reused = _reused(event)
    return event_ack(event.event_id, _OUTCOMES[result.outcome], result.unknown_item, reused)


def _reused(event: UserEvent) -> EventIdReused:
    return EventIdReused(
        "event_id: was used for another event; give each event an id of its own",
        {"event_id": event.event_id},
    )
