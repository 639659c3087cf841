"""Arguments become requests, answers become results; what is too long for one call is split."""

import inspect
from datetime import UTC, datetime, timedelta

import pytest

from ebbing.client import (
    AsyncClient,
    Client,
    _data,
    _insight,
    catalog_item,
    to_timestamp,
    user_event,
)
from ebbing.client._calls import batches
from ebbing.v1.catalog_service_pb2 import Item
from ebbing.v1.interest_service_pb2 import ListInterestHistoryRequest
from ebbing.v1.user_data_service_pb2 import (
    DeleteUserDataRequest,
    DeleteUserDataResponse,
    DeletionReceipt,
    ExportUserDataRequest,
)


def test_an_event_with_everything(gateway, make_client):
    make_client().write_event(
        "ada",
        "add-to-cart",
        datetime(2025, 6, 1, tzinfo=UTC),
        item_id="i1",
        event_id="mine",
        value=2.5,
        interests={"sports/football": 0.5},
        session_id="s",
        attribution_token="t",
    )
    (request,) = gateway.requests
    assert request.event == user_event(
        "ada",
        4,
        1_748_736_000.0,
        item_id="i1",
        event_id="mine",
        value=2.5,
        interests={"sports/football": 0.5},
        session_id="s",
        attribution_token="t",
    )


def test_events_are_split_identified_and_counted_together(gateway, make_client):
    events = [user_event("ada" if n else "", "view", 1.0, item_id="i") for n in range(2500)]
    result = make_client().write_events(events)
    assert [len(r.events) for r in gateway.requests] == [1000, 1000, 500]
    ids = {event.event_id for r in gateway.requests for event in r.events}
    assert len(ids) == 2500
    assert (result.accepted_count, result.rejected_count) == (2499, 1)
    assert [ack.event_id for ack in result.notable] == ["id-0"]
    assert not any(event.event_id for event in events), "arguments are left as they are"


def test_events_that_stream(gateway, make_client):
    events = (user_event("ada", "view", 1.0, event_id=f"e{n}") for n in range(3))
    assert [ack.event_id for ack in make_client().stream_events(events)] == ["e0", "e1", "e2"]


def test_pages_are_fetched_as_they_are_read(gateway, make_client):
    items = make_client().list_items(page_size=2)
    assert next(items).item_id == "i0"
    assert len(gateway.requests) == 1
    assert [item.item_id for item in items] == ["i1", "i2", "i3", "i4"]
    assert [r.page_token for r in gateway.requests] == ["", "2", "4"]
    assert {r.page_size for r in gateway.requests} == {2}


def test_items_and_many_slates(gateway, make_client):
    client = make_client()
    assert client.write_items(catalog_item(f"i{n}", ["a/b"]) for n in range(1001)) == 1001
    results = client.recommend_many([f"u{n}" for n in range(300)])
    assert [result.slate.user_id for result in results] == [f"u{n}" for n in range(300)]
    assert len(gateway.requests) == 4


def test_batches_keep_within_bytes():
    items = [Item(item_id="x" * 100) for _ in range(10)]
    assert [len(b) for b in batches(items, 1000, 330)] == [3, 3, 3, 1]
    assert [len(b) for b in batches(items, 1000, 10)] == [1] * 10
    assert [len(b) for b in batches(items, 4, 10_000)] == [4, 4, 2]
    assert list(batches([], 4, 10_000)) == []


def test_a_profile_of_a_moment(gateway, make_client):
    client = make_client()
    moment = datetime(2025, 6, 1, tzinfo=UTC)
    profile = client.interest_profile(
        "ada", moment, horizon=timedelta(days=7), roll_up=True, alpha=0.0
    )
    assert profile.at == to_timestamp(moment)
    client.interest_profile("ada")
    first, second = gateway.requests
    assert (first.horizon.seconds, first.roll_up) == (7 * 86400, True)
    assert not second.HasField("at")
    assert not second.HasField("horizon")
    assert (first.HasField("alpha"), second.HasField("alpha")) == (True, False)


def test_the_course_of_interests(make_client):
    moment = datetime(2025, 6, 1, tzinfo=UTC)
    asked = _insight.interest_history(
        make_client(),
        "ada",
        ["a/b"],
        start_time=1.5,
        end_time=moment,
        step=timedelta(hours=6),
        at=2.5,
        horizon=timedelta(days=7),
        page_size=9,
    )
    request = asked.page("on").request
    assert request == ListInterestHistoryRequest(
        user_id="ada",
        interests=["a/b"],
        start_time=to_timestamp(1.5),
        end_time=to_timestamp(moment),
        step=timedelta(hours=6),
        at=to_timestamp(2.5),
        horizon=timedelta(days=7),
        page_size=9,
        page_token="on",
    )
    bare = _insight.interest_history(make_client(), "ada").page("").request
    assert bare == ListInterestHistoryRequest(user_id="ada", page_size=100)


def test_a_users_data(make_client):
    export = _data.export_user_data(make_client(), "ada")
    assert export.request == ExportUserDataRequest(user_id="ada")
    assert not export.resumable
    deletion = _data.delete_user_data(make_client(), "ada")
    assert deletion.request == DeleteUserDataRequest(user_id="ada")
    assert deletion.batch, "it may take longer than a call that concerns one event"
    receipt = DeletionReceipt(receipt_id="r")
    assert deletion.result(DeleteUserDataResponse(receipt=receipt)) == receipt


def test_metadata_goes_along(gateway, make_client):
    make_client(metadata=(("authorization", "Bearer x"),)).recommend("ada")
    assert gateway.metadata[0]["authorization"] == "Bearer x"


async def test_the_async_client_does_the_same(gateway, sources, clock):
    from .conftest import unavailable

    async def some_events():
        for n in range(2):
            yield user_event("ada", "view", 1.0, event_id=f"e{n}")

    async with AsyncClient(gateway.target, sources=sources, sleep=clock.sleep_async) as client:
        gateway.failures = [unavailable(retry_after_s=0.2)]
        ack = await client.write_event("ada", "view", item_id="i1")
        assert [r.event.event_id for r in gateway.requests] == [ack.event_id] * 2
        assert clock.slept == pytest.approx([0.25])
        assert [item.item_id async for item in client.list_items()] == [f"i{n}" for n in range(5)]
        assert [ack.event_id async for ack in client.stream_events(some_events())] == ["e0", "e1"]
        events = [user_event("ada", "view", 1.0) for _ in range(1001)]
        assert (await client.write_events(events)).accepted_count == 1001
        slate = await client.with_options(deadline_s=0.5).recommend("ada")
        assert slate.user_id == "ada"
        assert gateway.times_left[-1] <= 0.6


async def test_the_async_client_translates_errors(gateway, sources):
    import grpc

    from ebbing.client import EbbingError

    from .conftest import Failure

    async with AsyncClient(gateway.target, sources=sources) as client:
        gateway.failures = [Failure(grpc.StatusCode.NOT_FOUND, "no such user")]
        with pytest.raises(EbbingError) as caught:
            await client.recommend("ada")
        assert caught.value.message == "no such user"
        gateway.failures = [Failure(grpc.StatusCode.DATA_LOSS)]
        answers = client.watch_forgetting("0")
        assert (await anext(answers)).cursor == "1"
        with pytest.raises(EbbingError) as caught:
            await anext(answers)
        assert caught.value.code is grpc.StatusCode.DATA_LOSS


def test_both_clients_have_the_same_methods():
    def public(kind):
        return {name for name in dir(kind) if not name.startswith("_")}

    assert public(Client) == public(AsyncClient)


def test_help_shows_the_arguments():
    signature = inspect.signature(Client.recommend)
    assert list(signature.parameters)[:3] == ["client", "user_id", "at"]
    assert Client.recommend.__doc__


def test_moments():
    assert to_timestamp(1.5).ToNanoseconds() == 1_500_000_000
    assert to_timestamp(1_748_736_000.123456).nanos == 123_456_000
    with pytest.raises(ValueError, match="timezone"):
        to_timestamp(datetime(2025, 6, 1))
    for wrong in (float("nan"), float("inf"), 1e30):
        with pytest.raises(ValueError, match=r"moment|range|Timestamp"):
            to_timestamp(wrong)
    with pytest.raises(ValueError, match="event type"):
        user_event("ada", "stare", 1.0)
