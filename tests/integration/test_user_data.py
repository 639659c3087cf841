"""What is held on a user, over the wire: read out whole, deleted for good, kept for a time only."""

from __future__ import annotations

import sqlite3
import time
import urllib.request
from collections import Counter
from pathlib import Path

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from ebbing.client import Client, EbbingError, to_timestamp, user_event
from ebbing.client._errors import translate
from ebbing.v1 import user_event_service_pb2 as events_v1
from ebbing.v1.catalog_service_pb2 import Relation
from ebbing.v1.user_event_pb2 import UserEvent
from tests.harness.gateway import GatewayProcess, StartGateway, catalogue, events
from tests.harness.release import LOG, TinyRelease
from trainer.data.simulate import DAY_S, PROTAGONIST

END = LOG.end
ITEM = "jazz-01-part-1"
USER = "somebody-to-be-forgotten"


def exported(client: Client, user_id: str) -> dict[str, list]:
    """The pieces of an export by kind; it is complete by its own account."""
    pieces = list(client.export_user_data(user_id))
    found: dict[str, list] = {}
    for piece in pieces:
        kind = piece.WhichOneof("record")
        found.setdefault(kind, []).append(getattr(piece, kind))
    assert pieces[-1].WhichOneof("record") == "summary"
    (summary,) = found["summary"]
    for kind in ("event", "interest", "relation", "recent_engagement", "transition"):
        assert getattr(summary, f"{kind}_count") == len(found.get(kind, []))
    return found


def related(user_id: str, other_user_id: str) -> Relation:
    return Relation(user_id=user_id, other_user_id=other_user_id)


def refused(client: Client, event: UserEvent) -> EbbingError:
    """How a lone event is refused."""
    with pytest.raises(grpc.RpcError) as caught:
        client.stubs.events.WriteUserEvent(events_v1.WriteUserEventRequest(event=event), timeout=30)
    return translate(caught.value)


def metric(gateway: GatewayProcess, name: str) -> float:
    with urllib.request.urlopen(f"http://{gateway.metrics_address}/metrics") as reply:
        lines = reply.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def eventually(gateway: GatewayProcess, name: str, value: float) -> None:
    """Wait until a metric has a value."""
    give_up = time.monotonic() + 60
    while (found := metric(gateway, name)) != value:
        assert time.monotonic() < give_up, f"{name} is {found}, not {value}"
        time.sleep(0.1)


# --- export ---------------------------------------------------------------------------------------


def test_an_export_is_everything_that_was_written(client: Client, release: TinyRelease) -> None:
    written = [one for one in events(release.simulation) if one.user_id == PROTAGONIST]
    for event in written:
        event.user_id, event.event_id = "reader-out", f"export-{event.event_id}"
    shown = user_event("reader-out", "impression", END, item_id="nowhere", event_id="export-1")
    client.write_events([*written, shown])
    client.write_relations([related("reader-out", "friend"), related("fan", "reader-out")])
    found = exported(client, "reader-out")
    told = found["event"]
    assert {e.event_id: e for e in told} == {e.event_id: e for e in [*written, shown]}
    moments = [e.event_time.ToMicroseconds() for e in told]
    assert moments == sorted(moments)
    (summary,) = found["summary"]
    profile = client.interest_profile("reader-out", at=summary.at.ToMicroseconds() / 1e6)
    assert found["interest"] == list(profile.interests)
    assert summary.forgetting_version == profile.forgetting_version
    assert {(r.user_id, r.other_user_id) for r in found["relation"]} == {
        ("reader-out", "friend"),
        ("fan", "reader-out"),
    }
    newest = sorted(written, key=lambda e: (e.event_time.ToMicroseconds(), e.event_id))[-50:]
    recent = found["recent_engagement"]
    assert [(r.item_id, r.event_time, r.event_type) for r in recent] == [
        (e.item_id, e.event_time, e.event_type) for e in newest
    ]
    assert "deletion" not in found


def test_nothing_is_known_of_a_stranger(client: Client) -> None:
    with pytest.raises(EbbingError) as caught:
        list(client.export_user_data("stranger"))
    assert caught.value.code is grpc.StatusCode.NOT_FOUND
    assert caught.value.reason == "USER_NOT_FOUND"


def test_a_long_export_is_read_as_slowly_as_the_reader_likes(client: Client) -> None:
    count = 20_000
    query = "x" * 1000
    client.write_events(
        user_event("long", "search", END - n, query=query, event_id=f"long-{n}")
        for n in range(count)
    )
    pieces = client.export_user_data("long")
    assert next(pieces).event.event_id == f"long-{count - 1}"
    # The rest waits for this reader, and nobody waits for it.
    client.write_event("long-other", "view", END, item_id=ITEM)
    assert client.interest_profile("long-other").event_count == 1
    kinds = Counter(piece.WhichOneof("record") for piece in pieces)
    assert kinds["event"] == count - 1
    assert kinds["summary"] == 1


# --- deletion -------------------------------------------------------------------------------------


def test_a_deleted_user_is_gone_from_every_gateway_for_good(
    start_gateway: StartGateway, release: TinyRelease, tmp_path: Path
) -> None:
    one, other = start_gateway(), start_gateway()
    with one.client() as here, other.client() as there:
        here.write_items(catalogue(release.simulation))
        written = [e for e in events(release.simulation) if e.user_id == PROTAGONIST]
        for event in written:
            event.user_id = USER
        ahead = user_event(USER, "view", time.time() + 20, item_id=ITEM, event_id="ahead")
        written.append(ahead)
        here.write_events(written)
        here.write_event("bystander", "view", END, item_id=ITEM)
        here.write_relations([related(USER, "x-friend"), related("fan", USER)])
        until = time.monotonic() + 60
        while "told" not in exported(there, USER):
            assert time.monotonic() < until
            time.sleep(0.1)

        receipt = here.delete_user_data(USER)
        assert receipt.receipt_id
        assert receipt.deleted_event_count == len(written)
        assert list(receipt.trained_releases) == [release.number]
        assert abs(receipt.delete_time.ToMicroseconds() / 1e6 - time.time()) < 60

        for client in (here, there):
            with pytest.raises(EbbingError, match="no event of this user"):
                client.interest_profile(USER)
            assert exported(client, USER).keys() == {"deletion", "summary"}
            assert not list(client.list_relations(USER))
            assert not list(client.list_relations("fan"))
            assert client.interest_profile("bystander").event_count == 1
            assert client.delete_user_data(USER) == receipt

            # Replayed, late, and of the moment of the newest event, which was ahead.
            answer = client.write_events(written)
            assert (answer.accepted_count, answer.rejected_count) == (0, len(written))
            assert {ack.reason for ack in answer.notable} == {"USER_DELETED"}
            for moment in (END - 400 * DAY_S, time.time() - 1, ahead.event_time):
                at = moment if isinstance(moment, Timestamp) else to_timestamp(moment)
                late = user_event(USER, "view", 0.0, item_id=ITEM, event_id=f"late-{at}")
                late.event_time.CopyFrom(at)
                error = refused(client, late)
                assert error.code is grpc.StatusCode.FAILED_PRECONDITION
                assert error.reason == "USER_DELETED"
                assert "begins a new user" in error.message
            assert exported(client, USER)["deletion"] == [receipt]

        # Whoever comes back is new, with the same event ids if need be.
        same_id = written[0].event_id
        later = user_event(USER, "view", time.time() + 40, item_id=ITEM, event_id=same_id)
        assert there.write_events([later]).accepted_count == 1
        assert here.interest_profile(USER).event_count == 1
        found = exported(here, USER)
        assert found["event"] == [later]
        assert found["deletion"] == [receipt]
        again = here.delete_user_data(USER)
        assert again.receipt_id != receipt.receipt_id
        assert again.deleted_event_count == 1
        assert not again.trained_releases
        assert refused(there, later).reason == "USER_DELETED"

        one.kill()
        one.start()
    with one.client() as here:
        assert here.delete_user_data(USER) == again
        assert exported(here, USER)["deletion"] == [again]
    one.terminate()
    other.terminate()
    with sqlite3.connect(tmp_path / "state.db") as db:
        left = "\n".join(db.iterdump())
    assert USER not in left
    assert "x-friend" not in left
    for file in tmp_path.glob("state.db*"):
        assert USER.encode() not in file.read_bytes(), file


def test_a_user_never_known_is_deleted_all_the_same(client: Client) -> None:
    receipt = client.delete_user_data("never known")
    assert (receipt.deleted_event_count, list(receipt.trained_releases)) == (0, [])
    assert client.delete_user_data("never known") == receipt
    late = user_event("never known", "view", END, item_id=ITEM, event_id="on-its-way")
    assert refused(client, late).reason == "USER_DELETED"
    (piece,) = exported(client, "never known")["deletion"]
    assert piece == receipt


# --- retention periods ----------------------------------------------------------------------------


def test_what_is_too_old_is_forgotten(start_gateway: StartGateway, tmp_path: Path) -> None:
    now = time.time()
    first = start_gateway()
    with first.client() as client:
        for days in range(1, 61):
            client.write_event(
                "regular", "view", now - days * DAY_S, interests=["a"], event_id=f"r{days}"
            )
        client.write_event("gone", "view", now - 50 * DAY_S, interests=["a"], event_id="g")
        client.delete_user_data("deleted")
    assert first.terminate() == 0

    periods = {"events_kept_s": 35 * DAY_S, "inactive_users_kept_s": 40 * DAY_S}
    second = start_gateway(**periods, deletions_kept_s=35 * DAY_S + 60)
    eventually(second, 'ebbing_pruned_total{kind="events"}', 27)
    eventually(second, "ebbing_state_events", 34)
    assert metric(second, 'ebbing_pruned_total{kind="deletions"}') == 0
    assert metric(second, "ebbing_state_users") == 1
    assert metric(second, "ebbing_state_bytes_per_user") == metric(
        second, "ebbing_state_stored_bytes"
    )
    with second.client() as client:
        assert len(exported(client, "regular")["event"]) == 34
        # What they said of interests is kept.
        assert client.interest_profile("regular").event_count == 60
        with pytest.raises(EbbingError, match="nothing is held"):
            list(client.export_user_data("gone"))
        # What was forgotten could not be told from new, so it is refused, some days early.
        for days, taken in ((50, False), (33, False), (31, True)):
            event = user_event(
                "regular", "view", now - days * DAY_S, interests=["a"], event_id=f"r{days}"
            )
            if taken:
                assert client.write_events([event]).duplicate_count == 1
            else:
                error = refused(client, event)
                assert [v.field for v in error.violations] == ["event.event_time"]
                assert "32 days" in error.message


def test_limits_of_a_gateway_of_its_own(start_gateway: StartGateway) -> None:
    with start_gateway(max_id_bytes=20, max_batch_events=2).client() as client:
        events = [
            user_event("u" * 21, "view", END, interests=["a"], event_id=str(n)) for n in range(3)
        ]
        answer = client.write_events(events[:1])
        assert answer.rejected_count == 1
        assert "at most 20 are allowed" in answer.notable[0].message
        with pytest.raises(EbbingError, match="at most 2 are allowed"):
            client.write_events(events)
