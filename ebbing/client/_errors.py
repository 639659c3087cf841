"""The one place where gRPC failures become ``EbbingError``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple, Protocol, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

__all__ = ["EbbingError", "FieldViolation", "translate"]

DETAILS_KEY = "grpc-status-details-bin"


class FieldViolation(NamedTuple):
    """A field of a request that was not taken."""

    field: str
    """Path of the field, such as ``events[3].event_time``."""
    description: str
    """What is wrong with it, and the remedy."""


class EbbingError(Exception):
    """A call that failed, with everything the gateway said about it.

    Attributes:
        code: status of the call.
        message: the failure for people.
        reason: the failure for programs, a constant such as USER_NOT_FOUND; empty if the gateway
            gave none, as when it could not be reached.
        metadata: what belongs to the reason, by name.
        violations: the fields that were not taken.
        retry_delay_s: seconds after which the gateway says a retry may help; None if it does not.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: tuple[FieldViolation, ...] = (),
        retry_delay_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.violations = violations
        self.retry_delay_s = retry_delay_s

    def __str__(self) -> str:
        kind = f"{self.code.name} ({self.reason})" if self.reason else self.code.name
        fields = [
            f"{v.field}: {v.description}"
            for v in self.violations
            if v.description not in self.message
        ]
        return "; ".join([f"{kind}: {self.message}", *fields])


class _Failure(Protocol):
    """What errors of grpc and of grpc.aio have in common."""

    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...
    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...


def translate(error: grpc.RpcError) -> EbbingError:
    """Read a failed call's status and its details; details that cannot be read are left out."""
    failure = cast(_Failure, error)
    status = _status(failure)
    info = error_details_pb2.ErrorInfo()
    request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        for kind in (info, request, retry):
            if detail.Is(kind.DESCRIPTOR):
                with suppress(DecodeError):
                    detail.Unpack(kind)
    return EbbingError(
        code=failure.code(),
        message=status.message or failure.details() or "no message",
        reason=info.reason,
        metadata=info.metadata,
        violations=tuple(FieldViolation(v.field, v.description) for v in request.field_violations),
        retry_delay_s=(
            retry.retry_delay.ToTimedelta().total_seconds()
            if retry.HasField("retry_delay")
            else None
        ),
    )


def _status(failure: _Failure) -> status_pb2.Status:
    for key, value in failure.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            with suppress(DecodeError):
                return status_pb2.Status.FromString(value)
    return status_pb2.Status()
