"""UserEventService."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable

from ebbing.v1 import user_event_service_pb2 as pb
from ebbing.v1 import user_event_service_pb2_grpc
from ebbing.v1.user_event_pb2 import UserEvent
from server.errors import EbbingError, EventIdReused, InvalidFields, UserDeleted
from server.ingest import EventResult, Ingest
from server.limits import Limits
from server.metrics import Metrics
from server.retention import RetentionPeriods
from server.rpc import Context
from server.rpc.mapping import event_ack
from server.rpc.streams import answer_in_order
from server.rpc.validation import Checks, check_event
from server.state.store import WriteOutcome

__all__ = ["UserEvents"]

_OUTCOMES = {
    WriteOutcome.ACCEPTED: pb.EVENT_OUTCOME_ACCEPTED,
    WriteOutcome.DUPLICATE: pb.EVENT_OUTCOME_DUPLICATE,
    WriteOutcome.ID_REUSED: pb.EVENT_OUTCOME_REJECTED,
    WriteOutcome.USER_DELETED: pb.EVENT_OUTCOME_REJECTED,
}


class UserEvents(user_event_service_pb2_grpc.UserEventServiceServicer):
    """Writes behaviour events."""

    def __init__(
        self,
        ingest: Ingest,
        metrics: Metrics,
        now_us: Callable[[], int],
        tolerance_us: int,
        periods: RetentionPeriods,
        limits: Limits,
    ) -> None:
        """Set up.

        Args:
            ingest: takes the good ones.
            metrics: counts the bad ones.
            now_us: microseconds since the epoch.
            tolerance_us: how far after now an event may lie, microseconds.
            periods: say how far before now an event may lie.
            limits: of what an event and a batch may hold.
        """
        self._ingest = ingest
        self._metrics = metrics
        self._now_us = now_us
        self._tolerance_us = tolerance_us
        self._periods = periods
        self._limits = limits

    async def WriteUserEvent(
        self, request: pb.WriteUserEventRequest, context: Context
    ) -> pb.WriteUserEventResponse:
        """Write one event."""
        with Checks() as checks:
            checks.present("event", request, "event")
        if invalid := self._invalid("event", request.event):
            raise invalid
        (result,) = await self._ingest.write([request.event])
        if refused := _refused(request.event, result):
            raise refused
        return pb.WriteUserEventResponse(ack=_ack(request.event, result))

    async def BatchWriteUserEvents(
        self, request: pb.BatchWriteUserEventsRequest, context: Context
    ) -> pb.BatchWriteUserEventsResponse:
        """Write many events, each by itself."""
        with Checks() as checks:
            checks.count("events", len(request.events), self._limits.events, required=True)
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
        now_us = self._now_us()
        earliest_us, latest_us = self._periods.earliest_us(now_us), now_us + self._tolerance_us
        try:
            with Checks(self._limits) as checks:
                check_event(checks, field, event, earliest_us, latest_us)
        except InvalidFields as error:
            self._metrics.user_events.labels("any", "invalid").inc()
            return error
        return None


def _ack(event: UserEvent, result: EventResult) -> pb.EventAck:
    refused = _refused(event, result)
    return event_ack(event.event_id, _OUTCOMES[result.outcome], result.unknown_item, refused)


def _refused(event: UserEvent, result: EventResult) -> EbbingError | None:
    """Why the store did not take an event; None if it did."""
    metadata = {"event_id": event.event_id}
    if result.outcome is WriteOutcome.ID_REUSED:
        return EventIdReused(
            "event_id: was used for another event; give each event an id of its own", metadata
        )
    if result.outcome is WriteOutcome.USER_DELETED:
        return UserDeleted(
            "event_time: not after the deletion of its user: drop the event; one that happens from"
            " now on begins a new user",
            metadata,
        )
    return None
