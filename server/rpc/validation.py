"""Checks of requests: every bad field is named with its remedy, all of them at once."""

from __future__ import annotations

import math
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from ebbing.events import EventType
from ebbing.v1 import catalog_service_pb2, user_event_pb2
from server.errors import FieldViolation, InvalidFields
from server.limits import Limits

__all__ = ["Checks", "check_event", "check_interest", "check_item", "check_relation"]

CONTRACT = Limits()
TITLE_BYTES = 512
MIN_SHARE, MAX_SHARE = 1e-6, 1000.0
MAX_ATTRIBUTES = 64
MAX_MODALITIES = 8
MAX_VECTOR = 4096
MAX_ALPHA = 1000.0
LEAST_STEP_S = 60
EARLIEST_S = 0
_EVENT_TYPES = frozenset(int(kind) for kind in EventType if kind)
LATEST_S = 7_258_118_400
"""1 January 2200, seconds since the epoch."""


class Checks:
    """Gathers what is wrong with a request; raises it all when the block ends."""

    def __init__(self, limits: Limits = CONTRACT) -> None:
        """Start with nothing found; ``limits`` are stricter ones for what is written."""
        self.limits = limits
        self._violations: list[FieldViolation] = []

    def __enter__(self) -> Self:
        """Begin to check."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Raise ``InvalidFields`` with all that was found."""
        if kind is None and self._violations:
            raise InvalidFields(self._violations)

    def found(self, field: str, description: str) -> None:
        """Note a violation."""
        self._violations.append(FieldViolation(field, description))

    def text(self, field: str, value: str, limit: int, required: bool = False) -> None:
        """A text of at most ``limit`` bytes of UTF-8, without NUL."""
        if required and not value:
            self.found(field, "is required")
        elif (size := len(value.encode())) > limit:
            self.found(field, f"has {size} bytes, at most {limit} are allowed")
        elif "\0" in value:
            self.found(field, "must not contain NUL")

    def identifier(self, field: str, value: str) -> None:
        """A required id."""
        self.text(field, value, self.limits.id_bytes, required=True)

    def path(self, field: str, value: str) -> None:
        """A required interest path without empty components."""
        self.text(field, value, self.limits.path_bytes, required=True)
        if value and not all(value.split("/")):
            self.found(field, "has an empty component; write parent/child without extra slashes")

    def positive(self, field: str, value: float) -> None:
        """A weight from a millionth to 1000, or 0 for 1."""
        if value and not MIN_SHARE <= value <= MAX_SHARE:
            self.found(field, f"must be from {MIN_SHARE:g} to {MAX_SHARE:g}, or 0 for 1")

    def between(self, field: str, value: float, low: float, high: float) -> None:
        """A number in a range."""
        if not low <= value <= high:
            self.found(field, f"must be from {low:g} to {high:g}")

    def count(self, field: str, size: int, limit: int, required: bool = False) -> None:
        """A number of elements."""
        if required and not size:
            self.found(field, "is required")
        elif size > limit:
            self.found(field, f"has {size} elements, at most {limit} are allowed")

    def distinct(self, field: str, values: Iterable[str]) -> None:
        """Elements that must each occur once."""
        seen: set[str] = set()
        for i, value in enumerate(values):
            if value in seen:
                self.found(field, f"has an element twice, again at {i}")
                return
            seen.add(value)

    def present(self, field: str, message: Message, name: str) -> bool:
        """A required message field."""
        if message.HasField(name):
            return True
        self.found(field, "is required")
        return False

    def time(self, field: str, value: Timestamp) -> bool:
        """A time from 1970 to 2200."""
        valid = EARLIEST_S <= value.seconds < LATEST_S and 0 <= value.nanos < 10**9
        if not valid:
            self.found(field, "must be from 1970 to 2200, with nanos from 0 to 999999999")
        return valid

    def moment(self, message: Message, field: str = "at") -> int | None:
        """An optional moment of a request, microseconds since the epoch; None where it has none."""
        if not message.HasField(field):
            return None
        at: Timestamp = getattr(message, field)
        return at.ToMicroseconds() if self.time(field, at) else None

    def horizon(self, message: Message) -> None:
        """The optional ``horizon`` of a request, above 0."""
        if message.HasField("horizon"):
            value: Duration = message.horizon  # type: ignore[attr-defined]
            if value.seconds < 0 or value.nanos < 0 or not (value.seconds or value.nanos):
                self.found("horizon", "must be above 0; leave it out for the fitted horizon")

    def step(self, message: Message) -> None:
        """The optional ``step`` of a request, at least a minute."""
        if message.HasField("step"):
            value: Duration = message.step  # type: ignore[attr-defined]
            if value.seconds < LEAST_STEP_S or not 0 <= value.nanos < 10**9:
                self.found("step", "must be at least one minute; leave it out for a day")

    def alpha(self, message: Message) -> None:
        """The optional ``alpha`` of a request, the articles' α."""
        if message.HasField("alpha"):
            self.between("alpha", message.alpha, 0.0, MAX_ALPHA)  # type: ignore[attr-defined]


def check_event(
    checks: Checks, field: str, event: user_event_pb2.UserEvent, earliest_us: int, latest_us: int
) -> None:
    """Check a ``UserEvent``; the times are the earliest and the latest taken, microseconds."""
    limits = checks.limits
    checks.identifier(f"{field}.event_id", event.event_id)
    checks.identifier(f"{field}.user_id", event.user_id)
    checks.text(f"{field}.item_id", event.item_id, limits.id_bytes)
    if event.event_type not in _EVENT_TYPES:
        known = ", ".join(kind.name for kind in EventType if kind)
        checks.found(f"{field}.event_type", f"is required: one of {known}")
    if checks.present(f"{field}.event_time", event, "event_time") and checks.time(
        f"{field}.event_time", event.event_time
    ):
        time_us = event.event_time.ToMicroseconds()
        if time_us > latest_us:
            checks.found(f"{field}.event_time", "is in the future: check the sender's clock")
        elif time_us < earliest_us:
            days = (latest_us - earliest_us) / 86_400e6
            checks.found(
                f"{field}.event_time",
                f"is older than the {days:.0f} days for which events are taken here: leave out"
                " older ones, or have the gateways keep events for longer",
            )
    if event.HasField("value") and not math.isfinite(event.value):
        checks.found(f"{field}.value", "must be a finite number")
    checks.text(f"{field}.query", event.query, limits.text_bytes)
    _check_shares(checks, f"{field}.interests", event.interests)
    checks.text(f"{field}.session_id", event.session_id, limits.id_bytes)
    checks.text(f"{field}.attribution_token", event.attribution_token, limits.text_bytes)
    if not (event.item_id or event.query or event.interests):
        checks.found(f"{field}.item_id", "is required without query and interests")


def check_item(checks: Checks, field: str, item: catalog_service_pb2.Item) -> None:
    """Check an ``Item``."""
    checks.identifier(f"{field}.item_id", item.item_id)
    _check_shares(checks, f"{field}.interests", item.interests)
    checks.text(f"{field}.title", item.title, TITLE_BYTES)
    checks.count(f"{field}.attributes", len(item.attributes), MAX_ATTRIBUTES)
    for key, value in item.attributes.items():
        checks.identifier(f"{field}.attributes", key)
        checks.text(f"{field}.attributes[{_shown(key)}]", value, checks.limits.text_bytes)
    checks.count(f"{field}.content", len(item.content), MAX_MODALITIES)
    for modality, vector in item.content.items():
        checks.identifier(f"{field}.content", modality)
        values = f"{field}.content[{_shown(modality)}].values"
        checks.count(values, len(vector.values), MAX_VECTOR, required=True)
        if not all(map(math.isfinite, vector.values)):
            checks.found(values, "must be finite numbers")
        elif 0 < len(vector.values) <= MAX_VECTOR and not any(vector.values):
            checks.found(values, "must not all be 0: leave out a modality the item does not have")
    for name in ("available_time", "expire_time"):
        if item.HasField(name):
            checks.time(f"{field}.{name}", getattr(item, name))


def check_interest(checks: Checks, field: str, interest: catalog_service_pb2.Interest) -> None:
    """Check an ``Interest``."""
    checks.path(f"{field}.path", interest.path)
    checks.text(f"{field}.title", interest.title, TITLE_BYTES)


def check_relation(checks: Checks, field: str, relation: catalog_service_pb2.Relation) -> None:
    """Check a ``Relation``."""
    checks.identifier(f"{field}.user_id", relation.user_id)
    checks.identifier(f"{field}.other_user_id", relation.other_user_id)
    checks.positive(f"{field}.strength", relation.strength)
    if relation.user_id and relation.user_id == relation.other_user_id:
        checks.found(f"{field}.other_user_id", "must be another user")


def _check_shares(
    checks: Checks, field: str, interests: Iterable[user_event_pb2.InterestShare]
) -> None:
    shares = list(interests)
    checks.count(field, len(shares), checks.limits.interests)
    checks.distinct(field, (share.interest for share in shares))
    for i, share in enumerate(shares):
        checks.path(f"{field}[{i}].interest", share.interest)
        checks.positive(f"{field}[{i}].share", share.share)


def _shown(key: str) -> str:
    """A key as the name of a field shows it; however long it is, it has to fit into a status."""
    return ascii(key[:40])[:40]
