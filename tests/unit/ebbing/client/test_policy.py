"""Deadlines, and retries: only where allowed, within deadline and budget, with the same ids."""

import grpc
import pytest

from ebbing.client import ClientOptions, EbbingError, catalog_item

from .conftest import Failure, unavailable


def test_every_call_has_a_deadline(gateway, make_client):
    client = make_client()
    client.recommend("ada")
    client.with_options(deadline_s=0.5).recommend("ada")
    client.write_items([catalog_item("i1")])
    client.recommend_many(["ada"])
    usual, short, batch, _ = gateway.times_left
    assert 4 < usual <= 5.1
    assert short <= 0.6
    assert 25 < batch <= 30.1


def test_a_deadline_that_passes(gateway, make_client):
    gateway.takes_s = 0.3
    with pytest.raises(EbbingError) as caught:
        make_client(deadline_s=0.05).recommend("ada")
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_unavailable_is_tried_again_with_doubling_waits(gateway, make_client, clock):
    gateway.failures = [unavailable() for _ in range(4)]
    assert make_client(max_backoff_s=0.3).recommend("ada").user_id == "ada"
    assert clock.slept == pytest.approx([0.05, 0.1, 0.15, 0.15])
    assert gateway.times_left[-1] <= 5.1 - sum(clock.slept)


def test_the_gateways_delay_comes_on_top(gateway, make_client, clock):
    gateway.failures = [unavailable(retry_after_s=1.0)]
    make_client().recommend("ada")
    assert clock.slept == pytest.approx([1.05])


def test_no_wait_beyond_the_deadline(gateway, make_client, clock):
    gateway.failures = [unavailable(retry_after_s=10.0)]
    with pytest.raises(EbbingError):
        make_client().recommend("ada")
    assert clock.slept == []


def test_attempts_end(gateway, make_client):
    gateway.failures = [unavailable() for _ in range(9)]
    with pytest.raises(EbbingError):
        make_client(max_attempts=3).recommend("ada")
    assert len(gateway.requests) == 3


@pytest.mark.parametrize(
    "code",
    [
        code
        for code in grpc.StatusCode
        if code not in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE)
    ],
)
def test_nothing_else_is_tried_again(gateway, make_client, code):
    gateway.failures = [Failure(code)]
    with pytest.raises(EbbingError) as caught:
        make_client().recommend("ada")
    assert caught.value.code is code
    assert len(gateway.requests) == 1


def test_the_budget_ends_and_successes_refill_it(gateway, make_client):
    client = make_client(retry_budget=2.0, retry_refund=0.5)
    gateway.failures = [unavailable() for _ in range(3)]
    with pytest.raises(EbbingError):
        client.recommend("ada")
    assert len(gateway.requests) == 3

    gateway.failures = [unavailable()]
    with pytest.raises(EbbingError):
        client.recommend("ada")
    assert len(gateway.requests) == 4, "an empty budget pays for no retry"

    client.recommend("ada")
    client.recommend("ada")
    gateway.failures = [unavailable()]
    client.with_options(deadline_s=3.0).recommend("ada")
    assert len(gateway.requests) == 8


def test_an_event_keeps_its_id_across_retries(gateway, make_client):
    gateway.failures = [unavailable(), unavailable()]
    ack = make_client().write_event("ada", "view", item_id="i1")
    assert [r.event.event_id for r in gateway.requests] == ["id-0"] * 3
    assert ack.event_id == "id-0"
    assert {r.event.event_time.seconds for r in gateway.requests} == {1_700_000_000}


@pytest.mark.parametrize(
    "wrong",
    [
        {"deadline_s": 0},
        {"batch_deadline_s": -1},
        {"stream_deadline_s": 0},
        {"max_attempts": 0},
        {"initial_backoff_s": -1},
        {"max_backoff_s": 0.01},
    ],
)
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="s"):
        ClientOptions(**wrong)
