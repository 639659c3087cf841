"""Profiles through the gateway: the numbers that `ebbing.interest` computes from the events."""

from __future__ import annotations

import math
from datetime import timedelta

import grpc
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from ebbing.client import Client, EbbingError
from ebbing.interest.article import drift, softmax_probabilities
from ebbing.interest.assessment import assess, half_life
from ebbing.interest.course import course
from ebbing.interest.explanation import explain
from ebbing.interest.forgetting import ForgettingParameters
from ebbing.interest.graph import interest_graph
from ebbing.interest.profile import interest_vectors, previous_interest_vector
from ebbing.interest.trace import Event, TraceTable
from ebbing.v1 import interest_pb2
from ebbing.v1.interest_pb2 import UserInterest
from ebbing.v1.interest_service_pb2 import GetInterestProfileResponse
from tests.harness.messages import rounded
from tests.harness.release import LOG, TinyRelease
from trainer.data.simulate import DAY_S, PROTAGONIST

END = LOG.end
FORGOTTEN = interest_pb2.INTEREST_STATE_FORGOTTEN


def seconds(moment: Timestamp | Duration) -> float:
    return moment.ToMicroseconds() / 1e6


def events_of(release: TinyRelease, user_id: str, at: float) -> list[Event]:
    """The events of a user of the log up to a moment, oldest first."""
    log = release.simulation.log
    user = log.user_ids.index(user_id)
    return [
        (time, 1.0, log.interests[item])
        for owner, item, time in zip(log.users, log.items, log.times.tolist(), strict=True)
        if owner == user and time <= at
    ]


def traces_of(release: TinyRelease, user_id: str, at: float) -> TraceTable:
    """The traces of a user of the log, straight from the events."""
    return TraceTable.from_events(events_of(release, user_id, at))


def parameters_of(release: TinyRelease) -> ForgettingParameters:
    return ForgettingParameters.from_json((release.run / "forgetting.json").read_text())


def check_profile(
    answer: GetInterestProfileResponse, traces: TraceTable, at: float, release: TinyRelease
) -> None:
    """Compare every number of a profile with the ones computed directly."""
    parameters = parameters_of(release)
    vectors, previous = interest_vectors(traces, at), previous_interest_vector(traces, at)
    assessed, halves = assess(traces, at, parameters), half_life(traces, at, parameters)
    probabilities = softmax_probabilities(1 - assessed.retention, answer.alpha)

    def close(value: float) -> object:
        return pytest.approx(value, rel=1e-9, abs=1e-9)

    assert answer.forgetting_version == parameters.version
    assert answer.horizon.ToNanoseconds() / 1e9 == parameters.horizon_s
    assert seconds(answer.at) == at
    assert answer.event_count == traces.event_count
    assert answer.drift == close(drift(vectors.blended, previous))
    share = vectors.blended / vectors.blended.sum()
    assert answer.article_score == close(float(share @ probabilities))
    assert {shown.interest for shown in answer.interests} == set(traces.names)
    strengths = [shown.strength for shown in answer.interests]
    assert strengths == sorted(strengths, reverse=True)
    for shown in answer.interests:
        i = traces.names.index(shown.interest)
        assert shown.retention == close(assessed.retention[i])
        assert shown.forgetting_score == close(1 - assessed.retention[i])
        assert shown.state == assessed.states[i]
        assert shown.short_term == close(vectors.short_term[i])
        assert shown.long_term == close(vectors.long_term[i])
        assert shown.strength == close(vectors.blended[i])
        assert shown.previous_strength == close(previous[i])
        assert shown.event_count == traces.count[i]
        assert seconds(shown.first_event_time) == traces.first[i]
        assert seconds(shown.last_event_time) == traces.last[i]
        assert shown.article_probability == close(probabilities[i])
        assert shown.reason.freshness == close(assessed.freshness[i])
        assert shown.reason.trend == close(assessed.trend[i])
        assert shown.reason.regular == assessed.rhythm.regular[i]
        assert shown.reason.text
        # Durations and moments cross the wire in microseconds.
        for message, name, value in (
            (shown, "half_life", halves[i]),
            (shown.reason, "recency", assessed.recency_s[i]),
            (shown.reason, "typical_gap", assessed.rhythm.gap_s[i]),
            (shown.reason, "longest_gap", assessed.rhythm.longest_gap_s[i]),
            (shown.reason, "period", assessed.rhythm.period_s[i]),
            (shown.reason, "resting_after", assessed.limits.resting_s[i]),
            (shown.reason, "fading_after", assessed.limits.fading_s[i]),
            (shown.reason, "forgotten_after", assessed.limits.forgotten_s[i]),
            (shown, "next_change_time", assessed.changes[i]),
        ):
            assert message.HasField(name) == math.isfinite(value), name
            if message.HasField(name):
                assert seconds(getattr(message, name)) == pytest.approx(value, abs=1e-6), name


@pytest.mark.parametrize("user_id", [PROTAGONIST, "user-0001", "user-0002", "user-0059"])
@pytest.mark.parametrize("at", [END, END + 45 * DAY_S, END - 40 * DAY_S], ids=str)
def test_profiles_are_what_the_events_say(
    client: Client, release: TinyRelease, user_id: str, at: float
) -> None:
    """Now, later with nothing new, and in the past."""
    answer = client.interest_profile(user_id, at)
    check_profile(answer, traces_of(release, user_id, at), at, release)


def test_a_profile_rolled_up(client: Client, release: TinyRelease) -> None:
    answer = client.interest_profile(PROTAGONIST, END, roll_up=True)
    assert {shown.interest for shown in answer.interests} == {"sports", "cooking", "music"}
    check_profile(answer, traces_of(release, PROTAGONIST, END).roll_up(), END, release)


def test_a_profile_page_by_page(client: Client) -> None:
    whole = client.interest_profile("user-0001", END)
    assert not whole.next_page_token
    shown, token = [], ""
    while True:
        page = client.interest_profile("user-0001", END, page_size=1, page_token=token)
        assert len(page.interests) == 1
        shown += page.interests
        token = page.next_page_token
        if not token:
            break
    assert shown == list(whole.interests)
    first = client.interest_profile("user-0001", END, page_size=1)
    with pytest.raises(EbbingError) as caught:
        client.interest_profile("user-0002", END, page_size=1, page_token=first.next_page_token)
    assert [v.field for v in caught.value.violations] == ["page_token"]


def test_a_moment_before_the_newest_event_is_answered_as_it_was_then(client: Client) -> None:
    """What comes later changes nothing of what was, and nothing of it was lost on the way."""
    then, shown = END - 30 * DAY_S, {}
    for n, days in enumerate((0.0, 3.0, 8.0, 8.5, 15.0)):
        moment = then + days * DAY_S
        for letter, path in (("a", "past/one"), ("b", f"past/{n % 2}")):
            event_id = f"past-{n}-{letter}"
            client.write_event("traveller", "view", moment, interests=[path], event_id=event_id)
        shown[n] = client.interest_profile("traveller", then + (days + 0.25) * DAY_S)
    assert client.interest_profile("traveller").event_count == 10
    for n, days in enumerate((0.0, 3.0, 8.0, 8.5, 15.0)):
        again = client.interest_profile("traveller", then + (days + 0.25) * DAY_S)
        assert again.event_count == 2 * (n + 1)
        now, before = (sorted(p.interests, key=lambda i: i.interest) for p in (again, shown[n]))
        for one, other in zip(now, before, strict=True):
            assert rounded(one.reason) == rounded(other.reason)
            changes = [i.next_change_time.ToMicroseconds() for i in (one, other)]
            assert changes[0] == pytest.approx(changes[1], rel=0, abs=2)
            for name in ("retention", "strength", "previous_strength", "article_probability"):
                assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-9), name
        assert (again.HasField("drift"), again.drift) == (
            shown[n].HasField("drift"),
            pytest.approx(shown[n].drift, rel=1e-9),
        )


def test_any_horizon_of_the_family(client: Client, release: TinyRelease) -> None:
    parameters = parameters_of(release)
    traces = traces_of(release, PROTAGONIST, END)
    retentions = []
    shortest, longest = parameters.horizons_s
    for horizon_s in (shortest, (shortest + longest) / 2, longest):
        answer = client.interest_profile(PROTAGONIST, END, horizon=timedelta(seconds=horizon_s))
        assert seconds(answer.horizon) == pytest.approx(horizon_s, abs=1e-6)
        known = assess(traces, END, parameters, horizon_s=horizon_s)
        shown = {i.interest: i.retention for i in answer.interests}
        retentions.append([shown[name] for name in traces.names])
        assert retentions[-1] == pytest.approx(known.retention.tolist(), rel=1e-6)
    # The longer one waits, the more likely a return.
    assert (np.diff(retentions, axis=0) >= 0).all()


def test_a_horizon_outside_the_family(client: Client, release: TinyRelease) -> None:
    shortest, longest = parameters_of(release).horizons_s
    for horizon_s in (shortest * 0.99, longest * 1.01):
        for call in (
            lambda h: client.interest_profile(PROTAGONIST, END, horizon=h),
            lambda h: client.explain_interest(PROTAGONIST, "sports/football", END, horizon=h),
            lambda h: list(client.interest_history(PROTAGONIST, horizon=h)),
        ):
            with pytest.raises(EbbingError) as caught:
                call(timedelta(seconds=horizon_s))
            error = caught.value
            assert (error.code, error.reason) == (
                grpc.StatusCode.OUT_OF_RANGE,
                "HORIZON_OUT_OF_RANGE",
            )
            assert [int(error.metadata[f"{n}_us"]) / 1e6 for n in ("shortest", "longest")] == (
                pytest.approx([shortest, longest])
            )


def test_the_course_of_interests(client: Client, release: TinyRelease) -> None:
    """Past points are what the events say, later ones what is expected of those up to then."""
    now = END - 20 * DAY_S
    points = list(
        client.interest_history(
            PROTAGONIST,
            ["sports/football", "cooking/baking"],
            end_time=now + 60 * DAY_S,
            step=timedelta(days=5),
            at=now,
            page_size=7,
        )
    )
    events = events_of(release, PROTAGONIST, now)
    moments = [seconds(point.time) for point in points]
    assert moments[0] == pytest.approx(events[0][0], abs=1e-6)
    assert np.diff(moments) == pytest.approx([5 * DAY_S] * (len(moments) - 1), abs=1e-5)
    assert [p.forecast for p in points] == [moment > now for moment in moments]
    parameters = parameters_of(release)
    for point, traces in zip(points, course(events, moments), strict=True):
        at = seconds(point.time)
        known = assess(traces, at, parameters)
        strength = interest_vectors(traces, at).blended
        told = {one.interest: one for one in point.interests}
        assert set(told) == {"sports/football", "cooking/baking"} & set(traces.names)
        for name, one in told.items():
            i = traces.names.index(name)
            assert one.retention == pytest.approx(known.retention[i], rel=1e-6)
            assert one.strength == pytest.approx(strength[i], rel=1e-6)
            assert one.state == known.states[i]


def test_the_course_of_what_is_strongest(client: Client) -> None:
    *_, last = client.interest_history("user-0001", end_time=END)
    strongest = client.interest_profile("user-0001", END).interests[:8]
    told = [one.interest for one in last.interests]
    assert set(told) <= {one.interest for one in strongest}
    assert len(told) >= len(strongest) - 1  # the last point may lie up to a day before the end


def test_the_graph_of_interests(client: Client, release: TinyRelease) -> None:
    answer = client.interest_graph(PROTAGONIST, END)
    names = [node.interest for node in answer.nodes]
    profile = client.interest_profile(PROTAGONIST, END)
    assert list(answer.nodes) == list(profile.interests)
    graph = interest_graph(events_of(release, PROTAGONIST, END), names, END)
    assert answer.edges
    for edge in answer.edges:
        i, j = names.index(edge.from_interest), names.index(edge.to_interest)
        assert edge.co_occurrence == pytest.approx(graph.co_occurrence[i, j], rel=1e-9)
        # The log has events of one moment, of which the gateway knows only the ids.
        assert edge.succession == pytest.approx(graph.succession[i, j], rel=1e-9)


@pytest.mark.parametrize("at", [END, END + 45 * DAY_S, END - 40 * DAY_S], ids=str)
def test_an_explanation_adds_up(client: Client, release: TinyRelease, at: float) -> None:
    traces = traces_of(release, PROTAGONIST, at)
    parameters = parameters_of(release)
    for shown in client.interest_profile(PROTAGONIST, at).interests:
        answer = client.explain_interest(PROTAGONIST, shown.interest, at)
        assert answer.interest == shown
        odds = math.fsum(part.log_odds for part in answer.contributions)
        assert 1 / (1 + math.exp(-odds)) == pytest.approx(shown.retention, rel=1e-9)
        known = explain(traces, at, shown.interest, parameters)
        assert [part.name for part in answer.contributions] == [part.name for part in known]
        assert all(part.text for part in answer.contributions)


def test_the_protagonists_football_is_overtaken_by_baking(client: Client) -> None:
    def shown(at: float) -> dict[str, UserInterest]:
        profile = client.interest_profile(PROTAGONIST, at)
        return {interest.interest: interest for interest in profile.interests}

    before, after = shown(END - 60 * DAY_S), shown(END)
    assert "cooking/baking" not in before
    football, baking = after["sports/football"], after["cooking/baking"]
    assert football.retention < before["sports/football"].retention
    assert football.state in {interest_pb2.INTEREST_STATE_FADING, FORGOTTEN}
    assert baking.state in {
        interest_pb2.INTEREST_STATE_ACTIVE,
        interest_pb2.INTEREST_STATE_RESTING,
    }
    assert baking.short_term > football.short_term
    assert baking.retention > football.retention
