"""Failures become ``EbbingError``, with all the gateway said about them."""

import grpc
import pytest
from google.rpc import error_details_pb2 as details

from ebbing.client import Client, ClientOptions, EbbingError, FieldViolation

from .conftest import Failure, unavailable


def test_every_detail_is_read(gateway, make_client):
    gateway.failures = [
        Failure(
            grpc.StatusCode.INVALID_ARGUMENT,
            "the request has fields that cannot be taken",
            (
                details.ErrorInfo(reason="INVALID_FIELD", metadata={"limit": "128"}),
                details.BadRequest(
                    field_violations=[
                        details.BadRequest.FieldViolation(
                            field="event.user_id", description="must not be empty"
                        )
                    ]
                ),
            ),
        )
    ]
    with pytest.raises(EbbingError) as caught:
        make_client().write_event("", "view")
    error = caught.value
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert error.reason == "INVALID_FIELD"
    assert error.metadata == {"limit": "128"}
    assert error.violations == (FieldViolation("event.user_id", "must not be empty"),)
    assert error.retry_delay_s is None
    assert str(error) == (
        "INVALID_ARGUMENT (INVALID_FIELD): the request has fields that cannot be taken; "
        "event.user_id: must not be empty"
    )


def test_the_retry_delay_is_read(gateway, make_client):
    gateway.failures = [unavailable(retry_after_s=1.5)]
    with pytest.raises(EbbingError) as caught:
        make_client(max_attempts=1).recommend("ada")
    assert caught.value.retry_delay_s == 1.5


@pytest.mark.parametrize("raw", [b"", b"\xff\xff\xff"])
def test_details_that_cannot_be_read_leave_the_status(gateway, make_client, raw):
    gateway.failures = [Failure(grpc.StatusCode.NOT_FOUND, "no such user", raw_details=raw)]
    with pytest.raises(EbbingError) as caught:
        make_client().recommend("ada")
    assert (caught.value.code, caught.value.message) == (grpc.StatusCode.NOT_FOUND, "no such user")


def test_a_method_the_gateway_lacks(make_client):
    with pytest.raises(EbbingError) as caught:
        list(make_client().list_releases())
    assert caught.value.code is grpc.StatusCode.UNIMPLEMENTED


def test_a_stream_that_fails_under_way(gateway, make_client):
    gateway.failures = [Failure(grpc.StatusCode.DATA_LOSS)]
    answers = make_client().watch_forgetting("0")
    assert next(answers).cursor == "1"
    with pytest.raises(EbbingError) as caught:
        next(answers)
    assert caught.value.code is grpc.StatusCode.DATA_LOSS


def test_nobody_listens():
    with (
        Client("127.0.0.1:1", options=ClientOptions(max_attempts=1)) as client,
        pytest.raises(EbbingError) as caught,
    ):
        client.recommend("ada")
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.UNAVAILABLE, "")


def test_an_error_can_pass_a_context_manager(gateway, make_client):
    gateway.failures = [Failure(grpc.StatusCode.NOT_FOUND)]
    with pytest.raises(EbbingError), make_client() as client:
        client.recommend("ada")
