"""The status of every failure, with the details that gRPC clients read."""

from __future__ import annotations

import re
from collections.abc import Iterator

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from server import errors
from server.errors import EbbingError, FieldViolation, InvalidFields, to_status

STATUSES = {
    errors.InvalidFields: ("INVALID_ARGUMENT", "INVALID_FIELD", False),
    errors.MalformedMessage: ("INVALID_ARGUMENT", "MALFORMED_MESSAGE", False),
    errors.EventIdReused: ("ALREADY_EXISTS", "EVENT_ID_REUSED", False),
    errors.UserDeleted: ("FAILED_PRECONDITION", "USER_DELETED", False),
    errors.ItemKeyCollision: ("ALREADY_EXISTS", "ITEM_KEY_COLLISION", False),
    errors.UserNotFound: ("NOT_FOUND", "USER_NOT_FOUND", False),
    errors.UserErased: ("NOT_FOUND", "USER_ERASED", False),
    errors.InterestNotFound: ("NOT_FOUND", "INTEREST_NOT_FOUND", False),
    errors.ItemNotFound: ("NOT_FOUND", "ITEM_NOT_FOUND", False),
    errors.ReleaseNotFound: ("NOT_FOUND", "RELEASE_NOT_FOUND", False),
    errors.AtBeforeFirstEvent: ("OUT_OF_RANGE", "AT_BEFORE_FIRST_EVENT", False),
    errors.CursorExpired: ("OUT_OF_RANGE", "CURSOR_EXPIRED", False),
    errors.HorizonOutOfRange: ("OUT_OF_RANGE", "HORIZON_OUT_OF_RANGE", False),
    errors.StorageFull: ("RESOURCE_EXHAUSTED", "STORAGE_FULL", True),
    errors.Overloaded: ("RESOURCE_EXHAUSTED", "OVERLOADED", True),
    errors.StoreUnavailable: ("UNAVAILABLE", "STORE_UNAVAILABLE", True),
    errors.ModelsUnavailable: ("UNAVAILABLE", "MODELS_UNAVAILABLE", True),
    errors.GatewayStopping: ("UNAVAILABLE", "GATEWAY_STOPPING", True),
    errors.ReleaseUnusable: ("FAILED_PRECONDITION", "RELEASE_UNUSABLE", False),
    errors.AlreadyLive: ("FAILED_PRECONDITION", "ALREADY_LIVE", False),
    errors.TrialUnderWay: ("FAILED_PRECONDITION", "TRIAL_UNDER_WAY", False),
    errors.NothingToRollBack: ("FAILED_PRECONDITION", "NOTHING_TO_ROLL_BACK", False),
    errors.RolloutChanged: ("ABORTED", "ROLLOUT_CHANGED", False),
    errors.InternalError: ("INTERNAL", "INTERNAL", False),
}
"""Status code, reason, and whether a retry helps."""


def every(kind: type[EbbingError]) -> Iterator[type[EbbingError]]:
    for below in kind.__subclasses__():
        yield below
        yield from every(below)


def made(kind: type[EbbingError]) -> EbbingError:
    if kind is InvalidFields:
        return InvalidFields([FieldViolation("a.b", "is required")])
    return kind("what to do", {"key": "value"})


def details(status: status_pb2.Status) -> dict[str, object]:
    """The details by name, each of which may come once."""
    found = {}
    for packed in status.details:
        name = packed.TypeName().removeprefix("google.rpc.")
        assert name not in found
        found[name] = getattr(error_details_pb2, name)()
        assert packed.Unpack(found[name])
    return found


def test_every_error_is_in_the_table() -> None:
    assert set(every(EbbingError)) == set(STATUSES)
    assert len({reason for _, reason, _ in STATUSES.values()}) == len(STATUSES)


@pytest.mark.parametrize("kind", [*every(EbbingError)], ids=lambda kind: kind.__name__)
def test_the_status_of_an_error(kind: type[EbbingError]) -> None:
    error = made(kind)
    status = to_status(error)
    code, reason, retry = STATUSES[kind]
    assert status.code == grpc.StatusCode[code].value[0]
    assert status.message == error.message == str(error)
    found = details(status)
    info = found.pop("ErrorInfo")
    assert (info.reason, info.domain, dict(info.metadata)) == (reason, "ebbing", error.metadata)
    assert re.fullmatch(r"[A-Z][A-Z_]+[A-Z]", info.reason)
    if retry:
        wait = found.pop("RetryInfo").retry_delay
        assert 0 < wait.ToNanoseconds() / 1e9 == kind.retry_after_s
    if kind is InvalidFields:
        assert found.pop("BadRequest").field_violations
    assert found == {}


def test_every_error_says_what_it_is() -> None:
    for kind in every(EbbingError):
        assert kind.__doc__
        assert kind.__name__ in errors.__all__


def test_violations_are_named_one_by_one() -> None:
    error = InvalidFields(
        [FieldViolation("user_id", "is required"), FieldViolation("at", "must be from 1970")]
    )
    assert error.message == "user_id: is required; at: must be from 1970"
    bad = details(to_status(error))["BadRequest"]
    assert [(v.field, v.description, v.reason) for v in bad.field_violations] == [
        ("user_id", "is required", "INVALID_FIELD"),
        ("at", "must be from 1970", "INVALID_FIELD"),
    ]


def test_a_status_fits_into_trailers_however_much_is_wrong() -> None:
    attribute = ".attributes[" + "x" * 40 + "]"
    limit = "has 100000 bytes, at most 1024 are allowed"
    error = InvalidFields(FieldViolation(f"items[{i}]{attribute}", limit) for i in range(1000))
    assert error.message.endswith("; and 990 more")
    status = to_status(error)
    assert len(details(status)["BadRequest"].field_violations) == 10
    # The message travels twice, the second time within the status, in base 64.
    assert len(status.message) + len(status.SerializeToString()) * 4 / 3 < 8192
