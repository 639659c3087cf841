"""Rows of logs made into events: checked and resolved by what the gateway does so with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from operator import attrgetter
from typing import TypeAlias, cast

from google.protobuf.message import DecodeError

from ebbing.events import EventType, event_type_from_name
from ebbing.history import item_key
from ebbing.v1 import user_event_pb2
from ebbing.v1.user_event_pb2 import InterestShare, UserEvent
from server.catalog import Catalog
from server.errors import InvalidFields
from server.events_rows import BadRow, Row
from server.ingest import resolve
from server.limits import Limits
from server.rpc.validation import Checks, check_event
from server.state.store import Interaction, Interests

__all__ = ["Events", "Taking", "reason", "split_paths"]

Kind: TypeAlias = "user_event_pb2.EventType.ValueType"
FIELDS = [attrgetter(name) for name in Interaction.__slots__]


@dataclass(frozen=True)
class Taking:
    """How rows become events."""

    weights: Mapping[EventType, float]
    """Interest that one event of each type shows."""
    limits: Limits
    """Of what an event may hold."""
    earliest_us: int
    """Earliest time taken, microseconds since the epoch."""
    latest_us: int
    """Latest time taken, microseconds since the epoch."""
    event_type: EventType | None = None
    """Of rows that name none."""
    anew: bool = False
    """Whether what exported events say of interest is resolved anew."""


class _Invalid(Exception):
    """A row is no event; the message is the reason."""


class Events:
    """Makes events of rows."""

    def __init__(self, taking: Taking) -> None:
        self._taking = taking
        self._types: dict[str, Kind] = {}
        self._shares: dict[Interests, None] = {}

    def prepare(
        self, rows: Sequence[Row], catalog: Catalog
    ) -> tuple[tuple[list[object], ...], list[tuple[int, int]], list[BadRow]]:
        """Events of rows, as columns; their places; and the rows that are none."""
        good: list[tuple[Row, UserEvent]] = []
        bad = []
        for row in rows:
            try:
                good.append((row, self._event(row)))
            except _Invalid as error:
                bad.append(BadRow(row.file, row.line, str(error)))
        keys = {event.item_id: item_key(event.item_id) for _, event in good if event.item_id}
        items = catalog.lookup(keys.values())
        interactions = []
        for row, event in good:
            key = keys.get(event.item_id, 0)
            item = items.get(key)
            interests = item.interests if item else ()
            weight = self._taking.weights[EventType(event.event_type)]
            if row.weight is not None and not self._taking.anew:
                interests, weight = _exported(row), row.weight
            interactions.append(resolve(event, key, interests, weight))
        columns = tuple(list(map(field, interactions)) for field in FIELDS)
        return columns, [(row.file, row.line) for row, _ in good], bad

    def _event(self, row: Row) -> UserEvent:
        try:
            event = self._sent(row)
            with Checks(self._taking.limits) as checks:
                check_event(checks, "row", event, self._taking.earliest_us, self._taking.latest_us)
                if row.weight is not None:
                    checks.between("row.weight", row.weight, 0.0, 1000.0)
            if row.weight is not None:
                self._check_exported(_exported(row))
        except InvalidFields as error:
            raise _Invalid(reason(error)) from None
        except UnicodeEncodeError:
            raise _Invalid("is not UTF-8") from None
        return event

    def _sent(self, row: Row) -> UserEvent:
        if row.body is not None:
            return _unpacked(row)
        event = UserEvent(
            event_id=row.event_id or _position_id(row),
            user_id=row.user_id or "",
            item_id=row.item_id or "",
            event_type=self._type(row.event_type),
        )
        time_us = _time_us(row.event_time)
        event.event_time.seconds, micros = divmod(time_us, 10**6)
        event.event_time.nanos = micros * 1000
        if row.value not in {None, ""}:
            event.value = _number("value", row.value)
        for name in ("query", "session_id", "attribution_token"):
            if text := getattr(row, name):
                setattr(event, name, text)
        if isinstance(row.interests, str):
            event.interests.extend(split_paths(row.interests))
        return event

    def _type(self, name: str | None) -> Kind:
        if not name:
            if self._taking.event_type is None:
                raise _Invalid("event_type is missing: name one for all such rows (--event-type)")
            return cast("Kind", int(self._taking.event_type))
        if name not in self._types:
            try:
                self._types[name] = cast("Kind", int(event_type_from_name(name)))
            except ValueError as error:
                raise _Invalid(str(error)) from None
        return self._types[name]

    def _check_exported(self, interests: Interests) -> None:
        """Raise ``InvalidFields`` if no event may hold these; each is looked at once."""
        if interests not in self._shares:
            shares = (InterestShare(interest=name, share=share) for name, share in interests)
            like = UserEvent(
                event_id="-",
                user_id="-",
                event_type=user_event_pb2.EVENT_TYPE_VIEW,
                query="-",
                interests=shares,
            )
            like.event_time.seconds = 1
            with Checks(self._taking.limits) as checks:
                check_event(checks, "row", like, 0, 2 * 10**6)
            self._shares[interests] = None


def reason(error: InvalidFields) -> str:
    """The first that is wrong with a row."""
    first = error.violations[0]
    return f"{first.field.removeprefix('row.')} {first.description}"


def _unpacked(row: Row) -> UserEvent:
    try:
        event = UserEvent.FromString(row.body or b"")
    except DecodeError:
        raise _Invalid("body is no event: leave the column out") from None
    same = (
        event.event_id == row.event_id
        and event.user_id == row.user_id
        and event.item_id == (row.item_id or "")
        and event.event_time.ToMicroseconds() == row.event_time
    )
    if not same:
        raise _Invalid("body is another event than the row: leave the column out")
    return event


def _exported(row: Row) -> Interests:
    listed = row.interests if isinstance(row.interests, list) else []
    return tuple((one["name"], one["share"]) for one in listed)


def _position_id(row: Row) -> str:
    """An id of what is in the row and where it is: the same whenever the file is read again.

    Their byte order is that of the rows, so events of one time keep the order of the file. A file
    that has grown keeps the ids of the rows it had.
    """
    told = "\x1f".join(map(str, row[2:])).encode(errors="surrogateescape")
    return f"{row.line:010d}-{blake2b(told, digest_size=8).hexdigest()}"


def _time_us(time: str | int | None) -> int:
    if isinstance(time, int):
        return time
    if time and time.isdecimal() and len(time) < 13:
        return int(time) * 10**6
    seconds = _number("event_time", time)
    if not abs(seconds) < 2**42:
        raise _Invalid("event_time is no number of seconds: write UTC seconds")
    return round(seconds * 1e6)


def _number(name: str, text: str | float | None) -> float:
    try:
        return float(text or "")
    except ValueError:
        raise _Invalid(f"{name} is not a number") from None


def split_paths(text: str) -> list[InterestShare]:
    """``a/b|c``: each path once, blanks left out."""
    paths = dict.fromkeys(path.strip() for path in text.split("|") if path.strip())
    return [InterestShare(interest=path) for path in paths]
