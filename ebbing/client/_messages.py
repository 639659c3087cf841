"""Proto messages from plain Python values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import cast

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from ebbing.events import EventType, event_type_from_name
from ebbing.v1 import user_event_pb2
from ebbing.v1.catalog_service_pb2 import ContentVector, Item
from ebbing.v1.user_event_pb2 import InterestShare, UserEvent

__all__ = [
    "Interests",
    "Moment",
    "catalog_item",
    "interest_shares",
    "optional_timestamp",
    "to_duration",
    "to_timestamp",
    "user_event",
]

Moment = datetime | float
"""A datetime with a timezone, or seconds since the epoch."""
Interests = Mapping[str, float] | Iterable[str]
"""Paths of interests with their shares, or paths alone, which then share alike."""


def to_timestamp(moment: Moment) -> Timestamp:
    """A moment on the wire, to the microsecond.

    Raises:
        ValueError: a datetime without a timezone, or a moment no Timestamp can hold.
    """
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise ValueError(f"{moment} has no timezone: give one, such as tzinfo=datetime.UTC")
        moment = moment.timestamp()
    try:
        micros = round(moment * 1e6)
    except (OverflowError, ValueError):
        raise ValueError(f"{moment} is no moment: give finite seconds since the epoch") from None
    timestamp = Timestamp()
    timestamp.FromMicroseconds(micros)
    return timestamp


def optional_timestamp(moment: Moment | None) -> Timestamp | None:
    """As ``to_timestamp``; None leaves the field unset."""
    return None if moment is None else to_timestamp(moment)


def to_duration(length: timedelta | None) -> Duration | None:
    """A length of time on the wire; None leaves the field unset."""
    if length is None:
        return None
    duration = Duration()
    duration.FromTimedelta(length)
    return duration


def interest_shares(interests: Interests) -> list[InterestShare]:
    """Interests on the wire."""
    if isinstance(interests, Mapping):
        return [InterestShare(interest=path, share=share) for path, share in interests.items()]
    return [InterestShare(interest=path) for path in interests]


def user_event(
    user_id: str,
    event_type: EventType | str,
    event_time: Moment,
    *,
    item_id: str = "",
    event_id: str = "",
    value: float | None = None,
    query: str = "",
    interests: Interests = (),
    session_id: str = "",
    attribution_token: str = "",
) -> UserEvent:
    """One deed of a user; the fields are those of ``UserEvent`` in the contract.

    Give an ``event_id`` of your own where the event may be sent again by another process; with
    none, the client that sends the event makes one.

    Raises:
        ValueError: an event type that does not exist, or a moment without a timezone.
    """
    kind = event_type_from_name(event_type) if isinstance(event_type, str) else event_type
    return UserEvent(
        event_id=event_id,
        user_id=user_id,
        item_id=item_id,
        event_type=cast(user_event_pb2.EventType.ValueType, int(kind)),
        event_time=to_timestamp(event_time),
        value=value,
        query=query,
        interests=interest_shares(interests),
        session_id=session_id,
        attribution_token=attribution_token,
    )


def catalog_item(
    item_id: str,
    interests: Interests = (),
    *,
    title: str = "",
    attributes: Mapping[str, str] | None = None,
    content: Mapping[str, Iterable[float]] | None = None,
    available_time: Moment | None = None,
    expire_time: Moment | None = None,
) -> Item:
    """One thing that can be recommended; the fields are those of ``Item`` in the contract."""
    return Item(
        item_id=item_id,
        interests=interest_shares(interests),
        title=title,
        attributes=attributes,
        content={kind: ContentVector(values=values) for kind, values in (content or {}).items()},
        available_time=optional_timestamp(available_time),
        expire_time=optional_timestamp(expire_time),
    )
