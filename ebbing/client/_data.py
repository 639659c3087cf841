"""RPCs that keep data, described once: Python arguments in, the call to be made out.

The first argument is the client, so each function becomes a method of both clients. Meaning,
units and limits of the fields are in the contract (``protos/ebbing/v1``), where every one has its
comment. All raise ``EbbingError`` when the call is made.
"""

from __future__ import annotations

from collections.abc import Iterable

from ebbing.client._base import ClientBase
from ebbing.client._calls import MOST_BYTES, Call, Calls, Pages, Watch, batches
from ebbing.client._messages import Interests, Moment, user_event
from ebbing.events import EventType
from ebbing.v1 import catalog_service_pb2 as catalog
from ebbing.v1 import user_data_service_pb2 as user_data
from ebbing.v1 import user_event_service_pb2 as events_v1
from ebbing.v1.user_event_pb2 import UserEvent

MOST_ROWS = 1000
"""Rows of a batch, at most; more are sent as several batches."""


def identified(client: ClientBase, event: UserEvent) -> UserEvent:
    """The event with an id; a new one if it brings none. The argument is left as it is."""
    if event.event_id:
        return event
    copy = UserEvent()
    copy.CopyFrom(event)
    copy.event_id = client.sources.new_event_id()
    return copy


# --- events ---------------------------------------------------------------------------------------


def write_event(
    client: ClientBase,
    user_id: str,
    event_type: EventType | str,
    event_time: Moment | None = None,
    *,
    item_id: str = "",
    event_id: str = "",
    value: float | None = None,
    query: str = "",
    interests: Interests = (),
    session_id: str = "",
    attribution_token: str = "",
) -> Call[events_v1.EventAck]:
    """Write one event; the next recommendation and profile know it.

    Without an ``event_time`` it happened now. Without an ``event_id`` one is made, and kept across
    retries; give your own where the event may be sent again by another call.
    """
    event = user_event(
        user_id,
        event_type,
        client.sources.clock() if event_time is None else event_time,
        item_id=item_id,
        event_id=event_id or client.sources.new_event_id(),
        value=value,
        query=query,
        interests=interests,
        session_id=session_id,
        attribution_token=attribution_token,
    )
    return Call(
        lambda stubs: stubs.events.WriteUserEvent,
        events_v1.WriteUserEventRequest(event=event),
        lambda answer: answer.ack,
    )


def write_events(
    client: ClientBase, events: Iterable[UserEvent]
) -> Calls[events_v1.BatchWriteUserEventsResponse]:
    """Write any number of events, a batch at a time; counts and notable ones of all together.

    Each is accepted, found a duplicate or rejected by itself. If a batch fails those before it are
    written: send all again, and those that were written count as duplicates (if they bring ids).
    """

    def together(
        answers: list[events_v1.BatchWriteUserEventsResponse],
    ) -> events_v1.BatchWriteUserEventsResponse:
        return events_v1.BatchWriteUserEventsResponse(
            accepted_count=sum(answer.accepted_count for answer in answers),
            duplicate_count=sum(answer.duplicate_count for answer in answers),
            rejected_count=sum(answer.rejected_count for answer in answers),
            notable=[ack for answer in answers for ack in answer.notable],
        )

    named = (identified(client, event) for event in events)
    return Calls(
        (
            Call(
                lambda stubs: stubs.events.BatchWriteUserEvents,
                events_v1.BatchWriteUserEventsRequest(events=batch),
                lambda answer: answer,
                batch=True,
            )
            for batch in batches(named, MOST_ROWS, MOST_BYTES)
        ),
        together,
    )


# --- catalogue ------------------------------------------------------------------------------------


def write_items(client: ClientBase, items: Iterable[catalog.Item]) -> Calls[int]:
    """Create or replace items, a batch at a time, each batch wholly or not at all; their number."""
    return Calls(
        (
            Call(
                lambda stubs: stubs.catalog.BatchWriteItems,
                catalog.BatchWriteItemsRequest(items=batch),
                lambda answer: answer,
                batch=True,
            )
            for batch in batches(items, MOST_ROWS, MOST_BYTES)
        ),
        lambda answers: sum(answer.written_count for answer in answers),
    )


def get_item(client: ClientBase, item_id: str) -> Call[catalog.Item]:
    """Read one item. NOT_FOUND: ITEM_NOT_FOUND."""
    return Call(
        lambda stubs: stubs.catalog.GetItem,
        catalog.GetItemRequest(item_id=item_id),
        lambda answer: answer.item,
    )


def list_items(client: ClientBase, *, page_size: int = MOST_ROWS) -> Pages[catalog.Item]:
    """All items by id, fetched page by page as they are asked for."""
    return Pages(
        lambda stubs: stubs.catalog.ListItems,
        catalog.ListItemsRequest(page_size=page_size),
        lambda answer: answer.items,
    )


def delete_item(client: ClientBase, item_id: str) -> Call[None]:
    """Delete one item; events about it stay. Deleting what is not there succeeds."""
    return Call(
        lambda stubs: stubs.catalog.DeleteItem,
        catalog.DeleteItemRequest(item_id=item_id),
        lambda _: None,
    )


def write_interests(client: ClientBase, interests: Iterable[catalog.Interest]) -> Calls[int]:
    """Create or replace descriptions of interests, a batch at a time; their number."""
    return Calls(
        (
            Call(
                lambda stubs: stubs.catalog.BatchWriteInterests,
                catalog.BatchWriteInterestsRequest(interests=batch),
                lambda answer: answer,
                batch=True,
            )
            for batch in batches(interests, MOST_ROWS, MOST_BYTES)
        ),
        lambda answers: sum(answer.written_count for answer in answers),
    )


def list_interests(client: ClientBase, *, page_size: int = MOST_ROWS) -> Pages[catalog.Interest]:
    """All described interests by path."""
    return Pages(
        lambda stubs: stubs.catalog.ListInterests,
        catalog.ListInterestsRequest(page_size=page_size),
        lambda answer: answer.interests,
    )


def write_relations(client: ClientBase, relations: Iterable[catalog.Relation]) -> Calls[int]:
    """Create or replace relations between users, a batch at a time; their number."""
    return Calls(
        (
            Call(
                lambda stubs: stubs.catalog.BatchWriteRelations,
                catalog.BatchWriteRelationsRequest(relations=batch),
                lambda answer: answer,
                batch=True,
            )
            for batch in batches(relations, MOST_ROWS, MOST_BYTES)
        ),
        lambda answers: sum(answer.written_count for answer in answers),
    )


def list_relations(
    client: ClientBase, user_id: str, *, page_size: int = MOST_ROWS
) -> Pages[catalog.Relation]:
    """A user's relations by the other user's id."""
    return Pages(
        lambda stubs: stubs.catalog.ListRelations,
        catalog.ListRelationsRequest(user_id=user_id, page_size=page_size),
        lambda answer: answer.relations,
    )


# --- user data ------------------------------------------------------------------------------------


def export_user_data(client: ClientBase, user_id: str) -> Watch[user_data.ExportUserDataResponse]:
    """Everything held on a user, piece by piece, and last the summary. NOT_FOUND: USER_NOT_FOUND.

    Read as slowly as need be; an export that is cut short raises.
    """
    return Watch(
        lambda stubs: stubs.user_data.ExportUserData,
        user_data.ExportUserDataRequest(user_id=user_id),
        lambda answer: answer,
    )


def delete_user_data(client: ClientBase, user_id: str) -> Call[user_data.DeletionReceipt]:
    """Delete everything held on a user, for good, whether anything was; the receipt.

    Events that are not newer are refused from then on. Again gives the same receipt.
    """
    return Call(
        lambda stubs: stubs.user_data.DeleteUserData,
        user_data.DeleteUserDataRequest(user_id=user_id),
        lambda answer: answer.receipt,
        batch=True,
    )
