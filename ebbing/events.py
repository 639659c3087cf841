"""What a user can do to an item, and how much interest each deed shows."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType

__all__ = ["DEFAULT_EVENT_WEIGHTS", "EVENT_TYPE_ALIASES", "EventType", "event_type_from_name"]


class EventType(IntEnum):
    """Kinds of behaviour; numbers are those of ``ebbing.v1.EventType`` on the wire."""

    UNSPECIFIED = 0
    VIEW = 1
    CLICK = 2
    SEARCH = 3
    ADD_TO_CART = 4
    PURCHASE = 5
    LIKE = 6
    DISLIKE = 7
    SHARE = 8
    COMMENT = 9
    RATING = 10
    IMPRESSION = 11
    CHECK_IN = 12
    COMPLETE = 13


# Engagements count alike: on real logs a summed bank gains nothing from hand-set grades (they
# can be set in the gateway's settings). What shows no interest is logged but leaves no trace.
DEFAULT_EVENT_WEIGHTS: Mapping[EventType, float] = MappingProxyType(
    {
        kind: 0.0 if kind in (EventType.DISLIKE, EventType.IMPRESSION) else 1.0
        for kind in EventType
        if kind is not EventType.UNSPECIFIED
    }
)

EVENT_TYPE_ALIASES: Mapping[str, EventType] = {
    "REVIEW": EventType.RATING,
    "CHECKIN": EventType.CHECK_IN,
    "CART": EventType.ADD_TO_CART,
}


def event_type_from_name(name: str) -> EventType:
    """Read an event type as logs spell it (``"purchase"``, ``"add-to-cart"``, ``"review"``).

    Raises:
        ValueError: no such type; the message lists the known ones.
    """
    key = name.strip().upper().replace("-", "_").replace(" ", "_")
    if key in EVENT_TYPE_ALIASES:
        return EVENT_TYPE_ALIASES[key]
    if key in EventType.__members__ and key != "UNSPECIFIED":
        return EventType[key]
    known = ", ".join(kind.name.lower() for kind in EventType if kind)
    raise ValueError(f"unknown event type {name!r}: use one of {known}")
