"""The gateway as a process of its own, with a real Triton and a real state file."""

from __future__ import annotations

import re
import urllib.request

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from ebbing.client import Client, EbbingError, catalog_item, to_timestamp, user_event
from ebbing.events import DEFAULT_EVENT_WEIGHTS
from ebbing.v1 import (
    catalog_service_pb2,
    release_service_pb2,
    user_event_service_pb2,
)
from ebbing.v1 import recommendation_service_pb2 as pb
from tests.harness.gateway import GatewayProcess, StartGateway, catalogue, events
from tests.harness.release import LOG, TinyRelease
from trainer.data.simulate import DAY_S, PROTAGONIST, WEEK_S

SERVICES = (
    "CatalogService",
    "InterestService",
    "RecommendationService",
    "ReleaseService",
    "UserDataService",
    "UserEventService",
)
END = LOG.end


def seconds(moment: Timestamp) -> float:
    return moment.ToMicroseconds() / 1e6


# --- what ops see ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", *(f"ebbing.v1.{service}" for service in SERVICES)])
def test_health(gateway: GatewayProcess, name: str) -> None:
    with grpc.insecure_channel(gateway.address) as channel:
        request = health_pb2.HealthCheckRequest(service=name)
        answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=30)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection(gateway: GatewayProcess) -> None:
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    with grpc.insecure_channel(gateway.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        (answer,) = stub.ServerReflectionInfo(iter([request]), timeout=30)
    names = {service.name for service in answer.list_services_response.service}
    assert {f"ebbing.v1.{service}" for service in SERVICES} <= names
    assert "grpc.health.v1.Health" in names


def test_metrics(gateway: GatewayProcess, client: Client, release: TinyRelease) -> None:
    client.recommend(PROTAGONIST, END)
    client.interest_profile(PROTAGONIST, END)
    with pytest.raises(EbbingError):
        client.get_item("nowhere")
    with urllib.request.urlopen(f"http://{gateway.metrics_address}/metrics") as reply:
        text = reply.read().decode()
    families = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    assert {
        "grpc_server_started_total",
        "grpc_server_handled_total",
        "grpc_server_handling_seconds",
        "ebbing_user_events_total",
        "ebbing_commit_events",
        "ebbing_batch_rows",
        "ebbing_batch_queue_wait_seconds",
        "ebbing_triton_request_duration_seconds",
        "ebbing_recommend_stage_duration_seconds",
        "ebbing_slates_total",
        "ebbing_oov_items_total",
        "ebbing_state_operation_duration_seconds",
        "ebbing_retention_ratio",
        "ebbing_interest_drift_ratio",
        "ebbing_release_info",
        "ebbing_release_traffic_ratio",
    } <= families
    assert 'grpc_code="NOT_FOUND",grpc_method="GetItem"' in text
    # Neither a user nor an item, however many there are, may become a label.
    values = {value for line in text.splitlines() for value in re.findall(r'="([^"]*)"', line)}
    log = release.simulation.log
    assert not values & {*log.user_ids, *log.item_ids, "nowhere"}


# --- read your writes -----------------------------------------------------------------------------


def test_an_event_changes_the_next_recommendation_and_profile(client: Client) -> None:
    user, at = "reader", END + DAY_S
    for n in range(3):
        client.write_event(user, "view", END - n * DAY_S, item_id=f"chess-01-part-{n + 1}")
    before = client.recommend(user, at, page_size=100)
    assert not before.degraded
    assert "chess-01-part-1" not in {item.item_id for item in before.items}
    believed = {item.item_id: item.relevance for item in before.items}
    for step in range(5):
        seen = before.items[step].item_id
        ack = client.write_event(user, "like", at, item_id=seen)
        assert ack.outcome == user_event_service_pb2.EVENT_OUTCOME_ACCEPTED
        after = client.recommend(user, at, page_size=100)
        now = {item.item_id: item.relevance for item in after.items}
        assert seen not in now
        assert all(now[item] != believed[item] for item in now.keys() & believed.keys())
        believed = now
        profile = client.interest_profile(user, at)
        assert profile.event_count == 4 + step
        assert seconds(max((i.last_event_time for i in profile.interests), key=seconds)) == at
    again = client.recommend(user, at, page_size=100, include_seen=True)
    assert before.items[0].item_id in {item.item_id for item in again.items}


def test_a_late_event_counts_at_its_own_time(client: Client) -> None:
    client.write_event("late", "view", END, item_id="jazz-01-part-1")
    client.write_event("late", "view", END - 30 * DAY_S, item_id="space-01-part-1")
    past = client.interest_profile("late", END - 10 * DAY_S)
    assert past.event_count == 1
    assert "music/jazz" not in {shown.interest for shown in past.interests}
    assert client.interest_profile("late", END).event_count == 2


def test_events_without_interest_leave_no_trace(client: Client) -> None:
    client.write_event("shown", "impression", END, item_id="jazz-01-part-1")
    profile = client.interest_profile("shown", END)
    assert profile.event_count == 0
    assert not profile.interests
    assert not profile.HasField("drift")
    assert profile.drift_undefined_reason == "NO_INTEREST"


def test_duplicates_count_once(client: Client) -> None:
    event = user_event("twice", "view", END, item_id="jazz-01-part-1", event_id="twice-1")
    other = user_event("twice", "view", END, item_id="jazz-01-part-2", event_id="twice-1")
    answer = client.write_events([event, event, other])
    assert (answer.accepted_count, answer.duplicate_count, answer.rejected_count) == (1, 1, 1)
    assert [ack.reason for ack in answer.notable] == ["EVENT_ID_REUSED"]
    ack = client.write_event("twice", "view", END, item_id="jazz-01-part-1", event_id="twice-1")
    assert ack.outcome == user_event_service_pb2.EVENT_OUTCOME_DUPLICATE
    assert client.interest_profile("twice", END).event_count == 1


def test_streamed_events_are_acknowledged_in_order(client: Client) -> None:
    sent = [
        user_event("streamer", "view", END - n, item_id="jazz-01-part-1", event_id=f"streamed-{n}")
        for n in range(300)
    ]
    sent[100].user_id = ""
    sent[200].item_id = "nowhere"
    acks = list(client.stream_events([*sent, sent[0]]))
    assert [ack.event_id for ack in acks] == [*(event.event_id for event in sent), "streamed-0"]
    outcomes = {n: ack.outcome for n, ack in enumerate(acks)}
    assert outcomes.pop(100) == user_event_service_pb2.EVENT_OUTCOME_REJECTED
    assert outcomes.pop(300) == user_event_service_pb2.EVENT_OUTCOME_DUPLICATE
    assert set(outcomes.values()) == {user_event_service_pb2.EVENT_OUTCOME_ACCEPTED}
    assert acks[100].reason == "INVALID_FIELD"
    assert [n for n, ack in enumerate(acks) if ack.unknown_item] == [200]
    assert client.interest_profile("streamer", END).event_count == 299


# --- recommendations ------------------------------------------------------------------------------


def test_a_slate(client: Client, release: TinyRelease) -> None:
    slate = client.recommend(PROTAGONIST, END, page_size=20)
    assert len(slate.items) == 20
    assert slate.release == release.number
    assert not slate.degraded
    assert seconds(slate.at) == END
    scores = [item.score for item in slate.items]
    assert scores == sorted(scores, reverse=True)
    assert sum(item.probability for item in slate.items) == pytest.approx(1.0, abs=1e-9)
    weighed = sum(item.relevance * item.probability for item in slate.items)
    assert slate.article_score == pytest.approx(weighed, abs=1e-9)
    by_retention = sorted(
        client.interest_profile(PROTAGONIST, END).interests, key=lambda i: -i.retention
    )
    assert list(slate.interest_priority) == [shown.interest for shown in by_retention]
    for item in slate.items:
        assert 0 <= item.relevance <= 1
        assert item.reasons
    assert client.recommend(PROTAGONIST, END, page_size=20) == slate


def test_alpha_and_exclusions_are_the_callers(client: Client) -> None:
    even = client.recommend(PROTAGONIST, END, alpha=0.0)
    assert {round(item.probability, 9) for item in even.items} == {0.1}
    unwanted = [item.item_id for item in even.items[:3]]
    rest = client.recommend(PROTAGONIST, END, exclude_item_ids=unwanted)
    assert not set(unwanted) & {item.item_id for item in rest.items}


def test_a_stranger_gets_what_is_popular(client: Client) -> None:
    slate = client.recommend("a stranger", END)
    assert len(slate.items) == 10
    assert not slate.degraded
    assert {item.source for item in slate.items} == {pb.CANDIDATE_SOURCE_POPULAR}
    assert not slate.interest_priority


def test_many_slates_each_by_itself(client: Client) -> None:
    users = ["user-0001", "user-0002", "", "user-0003"]
    results = client.recommend_many(users, END)
    kinds = [result.WhichOneof("result") for result in results]
    assert kinds == ["slate", "slate", "failure", "slate"]
    assert results[2].failure.reason == "INVALID_FIELD"
    assert results[2].failure.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    for user, result in zip(users, results, strict=True):
        if user:
            alone = client.recommend(user, END)
            assert [i.item_id for i in result.slate.items] == [i.item_id for i in alone.items]


def test_streamed_slates_come_in_order(client: Client) -> None:
    users = [f"user-{n:04d}" for n in range(1, 60)]
    users[20] = ""
    requests = (pb.RecommendItemsRequest(user_id=user, at=to_timestamp(END)) for user in users)
    results = list(client.stream_recommendations(requests))
    assert [result.slate.user_id for result in results] == users
    assert results[20].failure.reason == "INVALID_FIELD"


def test_given_items_are_scored_as_in_the_slate(client: Client) -> None:
    slate = client.recommend(PROTAGONIST, END, page_size=5)
    asked = [item.item_id for item in reversed(slate.items)]
    answer = client.score(PROTAGONIST, [*asked, "nowhere"], END)
    assert [item.item_id for item in answer.items] == [*asked, "nowhere"]
    assert answer.release == slate.release
    for scored, shown in zip(answer.items, reversed(slate.items), strict=False):
        assert scored.relevance == pytest.approx(shown.relevance, abs=1e-6)
        assert scored.forgetting == shown.forgetting
        assert scored.source == pb.CANDIDATE_SOURCE_REQUEST
    assert not answer.items[-1].reasons


# --- catalogue and releases -----------------------------------------------------------------------


def test_the_catalogue_comes_back_as_it_was_written(client: Client, release: TinyRelease) -> None:
    whole = {item.item_id: item for item in client.list_items(page_size=70)}
    assert whole == {item.item_id: item for item in catalogue(release.simulation)}
    item = catalog_item(
        "zz-new",
        {"home/decor": 0.25, "home/repairs": 0.75},
        title="Neu",
        attributes={"brand": "ß"},
        content={"text": [0.5, -1.0]},
        available_time=END - WEEK_S,
        expire_time=END + WEEK_S,
    )
    try:
        assert client.write_items([item]) == 1
        assert client.get_item("zz-new") == item
        item.title = "Newer"
        client.write_items([item])
        assert client.get_item("zz-new") == item
    finally:
        client.delete_item("zz-new")
    client.delete_item("zz-new")
    with pytest.raises(EbbingError) as caught:
        client.get_item("zz-new")
    assert caught.value.code is grpc.StatusCode.NOT_FOUND
    assert caught.value.reason == "ITEM_NOT_FOUND"


def test_a_large_answer_arrives(client: Client) -> None:
    """Larger than the 4 MiB at which gRPC's clients stop unless told otherwise."""
    vectors = {f"modality-{n}": [n + 1.0] * 4096 for n in range(8)}
    large = [catalog_item(f"zz-large-{n:02d}", content=vectors) for n in range(40)]
    try:
        assert client.write_items(large) == len(large)
        listed = list(client.list_items(page_size=1000))
        assert sum(item.ByteSize() for item in listed) > 4 * 2**20
        assert listed[-len(large) :] == large
    finally:
        for item in large:
            client.delete_item(item.item_id)


def test_interests_and_relations_come_back(client: Client) -> None:
    interests = [
        catalog_service_pb2.Interest(path=f"sports/{n:02d}", title=f"No {n}") for n in range(25)
    ]
    assert client.write_interests(interests) == 25
    assert list(client.list_interests(page_size=10)) == interests
    relations = [
        catalog_service_pb2.Relation(user_id="ada", other_user_id=f"user-{n:04d}", strength=n)
        for n in range(1, 25)
    ]
    assert client.write_relations(relations) == 24
    assert list(client.list_relations("ada", page_size=7)) == relations
    assert not list(client.list_relations("user-0001"))


def test_an_item_that_is_no_longer_available_is_not_recommended(client: Client) -> None:
    best = client.recommend(PROTAGONIST, END).items[0].item_id
    item = client.get_item(best)
    gone = catalog_service_pb2.Item()
    gone.CopyFrom(item)
    gone.expire_time.CopyFrom(to_timestamp(END))
    try:
        client.write_items([gone])
        assert best not in {i.item_id for i in client.recommend(PROTAGONIST, END).items}
    finally:
        client.write_items([item])
    assert client.recommend(PROTAGONIST, END).items[0].item_id == best


def test_the_live_release_is_listed(client: Client, release: TinyRelease) -> None:
    (listed,) = client.list_releases()
    assert listed.release == release.number
    assert listed.role == release_service_pb2.RELEASE_ROLE_LIVE
    assert listed.traffic == 1.0
    assert 0 <= listed.metrics["retrieval.ndcg_at_10"] <= 1


# --- two gateways, one state ----------------------------------------------------------------------


def test_two_gateways_on_one_state_file_agree(
    start_gateway: StartGateway, release: TinyRelease
) -> None:
    one, other = start_gateway(), start_gateway()
    with one.client() as here, other.client() as there:
        here.write_items(catalogue(release.simulation))
        assert there.get_item("jazz-01-part-1") == here.get_item("jazz-01-part-1")
        written = [e for e in events(release.simulation) if e.user_id == PROTAGONIST]
        assert DEFAULT_EVENT_WEIGHTS[written[0].event_type]
        for n, event in enumerate(written[:20]):
            writer, reader = (here, there) if n % 2 else (there, here)
            assert writer.write_events([event]).accepted_count == 1
            assert reader.interest_profile(PROTAGONIST, END).event_count == n + 1
            assert reader.write_events([event]).duplicate_count == 1
        assert here.interest_profile(PROTAGONIST, END) == there.interest_profile(PROTAGONIST, END)
        shown = [i.item_id for i in here.recommend(PROTAGONIST, END).items]
        assert shown == [i.item_id for i in there.recommend(PROTAGONIST, END).items]
        there.delete_item(shown[0])
        assert shown[0] not in {i.item_id for i in here.recommend(PROTAGONIST, END).items}
