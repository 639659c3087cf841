"""What can go wrong, and the gRPC status each failure has.

Everything below the RPC boundary raises these (or lets unforeseen exceptions pass); the boundary
alone turns them into statuses, so no other exception text can reach a client.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, NamedTuple

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

__all__ = [
    "AlreadyLive",
    "AtBeforeFirstEvent",
    "CursorExpired",
    "EbbingError",
    "EventIdReused",
    "FieldViolation",
    "GatewayStopping",
    "HorizonOutOfRange",
    "InterestNotFound",
    "InternalError",
    "InvalidFields",
    "ItemKeyCollision",
    "ItemNotFound",
    "MalformedMessage",
    "ModelsUnavailable",
    "NothingToRollBack",
    "Overloaded",
    "ReleaseNotFound",
    "ReleaseUnusable",
    "RolloutChanged",
    "StorageFull",
    "StoreUnavailable",
    "TrialUnderWay",
    "UserDeleted",
    "UserErased",
    "UserNotFound",
    "to_status",
]

DOMAIN = "ebbing"
NAMED_VIOLATIONS = 10
"""Violations that a status names; it travels in trailers, which hold a few kilobytes."""


class FieldViolation(NamedTuple):
    """A field of a request that cannot be taken, and the remedy."""

    field: str
    description: str


class EbbingError(Exception):
    """A failure with a defined status; the message is for the client."""

    code: ClassVar[grpc.StatusCode]
    reason: ClassVar[str]
    retry_after_s: ClassVar[float | None] = None

    def __init__(self, message: str, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = dict(metadata or {})
        self.violations: tuple[FieldViolation, ...] = ()


class InvalidFields(EbbingError):
    """The request has fields that cannot be taken."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "INVALID_FIELD"

    def __init__(self, violations: Iterable[FieldViolation]) -> None:
        found = tuple(violations)
        named, more = found[:NAMED_VIOLATIONS], len(found) - NAMED_VIOLATIONS
        lines = [f"{v.field}: {v.description}" for v in named]
        super().__init__("; ".join([*lines, f"and {more} more"] if more > 0 else lines))
        self.violations = named


class MalformedMessage(EbbingError):
    """The bytes sent are no message of the contract."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "MALFORMED_MESSAGE"


class EventIdReused(EbbingError):
    """The event id was used for an event with another body."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = "EVENT_ID_REUSED"


class UserDeleted(EbbingError):
    """The user was deleted after the event happened."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "USER_DELETED"


class ItemKeyCollision(EbbingError):
    """Two item ids have the same 63-bit key."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = "ITEM_KEY_COLLISION"


class UserNotFound(EbbingError):
    """Nothing is known of the user."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "USER_NOT_FOUND"


class UserErased(EbbingError):
    """The user was deleted, and the key of what is still stored somewhere with them."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "USER_ERASED"


class InterestNotFound(EbbingError):
    """The user has no such interest."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "INTEREST_NOT_FOUND"


class ItemNotFound(EbbingError):
    """The catalogue holds no such item."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "ITEM_NOT_FOUND"


class ReleaseNotFound(EbbingError):
    """No such release is in service."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "RELEASE_NOT_FOUND"


class ReleaseUnusable(EbbingError):
    """The release is damaged, or does not load; what was wrong is in the message."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "RELEASE_UNUSABLE"


class AlreadyLive(EbbingError):
    """The release has all the traffic already."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "ALREADY_LIVE"


class TrialUnderWay(EbbingError):
    """Another release is being tried."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "TRIAL_UNDER_WAY"


class NothingToRollBack(EbbingError):
    """Nothing is tried, and no release was live before."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "NOTHING_TO_ROLL_BACK"


class RolloutChanged(EbbingError):
    """Somebody else changed the rollout at the same time."""

    code = grpc.StatusCode.ABORTED
    reason = "ROLLOUT_CHANGED"


class AtBeforeFirstEvent(EbbingError):
    """Nothing is known of the user at the moment asked for."""

    code = grpc.StatusCode.OUT_OF_RANGE
    reason = "AT_BEFORE_FIRST_EVENT"


class CursorExpired(EbbingError):
    """What follows the cursor is not kept any more."""

    code = grpc.StatusCode.OUT_OF_RANGE
    reason = "CURSOR_EXPIRED"


class HorizonOutOfRange(EbbingError):
    """Retention within that time is beyond what the release was fitted for."""

    code = grpc.StatusCode.OUT_OF_RANGE
    reason = "HORIZON_OUT_OF_RANGE"


class StorageFull(EbbingError):
    """The store has no room; nothing was written."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "STORAGE_FULL"
    retry_after_s = 30.0


class Overloaded(EbbingError):
    """More work waits than is allowed to."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "OVERLOADED"
    retry_after_s = 0.1


class StoreUnavailable(EbbingError):
    """The store does not answer."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "STORE_UNAVAILABLE"
    retry_after_s = 1.0


class GatewayStopping(EbbingError):
    """The gateway is about to stop; another one, or this one in a while, goes on."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "GATEWAY_STOPPING"
    retry_after_s = 0.5


class ModelsUnavailable(EbbingError):
    """Triton does not answer, or not in time."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "MODELS_UNAVAILABLE"
    retry_after_s = 1.0


class InternalError(EbbingError):
    """Something unforeseen; what it was stands in the log, under the id in the metadata."""

    code = grpc.StatusCode.INTERNAL
    reason = "INTERNAL"


def to_status(error: EbbingError) -> status_pb2.Status:
    """The rich status of an error: ErrorInfo, and BadRequest or RetryInfo where they apply."""
    details = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    ]
    if error.violations:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=v.field, description=v.description, reason=error.reason
                    )
                    for v in error.violations
                ]
            )
        )
    if error.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_after_s * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for detail in details:
        any_detail = any_pb2.Any()
        any_detail.Pack(detail)
        packed.append(any_detail)
    return status_pb2.Status(code=error.code.value[0], message=error.message, details=packed)
