"""Profiles through the gateway: the numbers that `ebbing.interest` computes from the events."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from ebbing.client import Client, EbbingError
from ebbing.interest.article import drift
from ebbing.interest.forgetting import ForgettingParameters, assess, half_life
from ebbing.interest.profile import interest_vectors, previous_interest_vector
from ebbing.interest.trace import TraceTable
from ebbing.v1 import interest_pb2
from ebbing.v1.interest_pb2 import UserInterest
from ebbing.v1.interest_service_pb2 import GetInterestProfileResponse
from tests.harness.release import LOG, TinyRelease
from trainer.data.simulate import DAY_S, PROTAGONIST

END = LOG.end
FORGOTTEN = interest_pb2.INTEREST_STATE_FORGOTTEN


def seconds(moment: Timestamp) -> float:
    return moment.ToMicroseconds() / 1e6


def traces_of(release: TinyRelease, user_id: str, at: float) -> TraceTable:
    """The traces of a user of the log, straight from the events."""
    log = release.simulation.log
    user = log.user_ids.index(user_id)
    return TraceTable.from_events(
        (time, 1.0, log.interests[item])
        for owner, item, time in zip(log.users, log.items, log.times.tolist(), strict=True)
        if owner == user and time <= at
    )


def check_profile(
    answer: GetInterestProfileResponse, traces: TraceTable, at: float, release: TinyRelease
) -> None:
    """Compare every number of a profile with the ones computed directly."""
    path = release.run / "forgetting.json"
    parameters = ForgettingParameters.from_json(path.read_text())
    vectors, previous = interest_vectors(traces, at), previous_interest_vector(traces, at)
    assessed, halves = assess(traces, at, parameters), half_life(traces, at, parameters)

    def close(value: float) -> object:
        return pytest.approx(value, rel=1e-9, abs=1e-9)

    assert answer.forgetting_version == parameters.version
    assert answer.horizon.ToNanoseconds() / 1e9 == parameters.horizon_s
    assert seconds(answer.at) == at
    assert answer.event_count == traces.event_count
    assert answer.drift == close(drift(vectors.blended, previous))
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
        assert shown.reason.freshness == close(assessed.freshness[i])
        assert shown.reason.text
        # Durations cross the wire in microseconds.
        assert shown.half_life.ToMicroseconds() / 1e6 == pytest.approx(halves[i], abs=1e-6)


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


def test_the_protagonists_football_is_overtaken_by_baking(client: Client) -> None:
    def shown(at: float) -> dict[str, UserInterest]:
        profile = client.interest_profile(PROTAGONIST, at)
        return {interest.interest: interest for interest in profile.interests}

    before, after = shown(END - 60 * DAY_S), shown(END)
    assert "cooking/baking" not in before
    football, baking = after["sports/football"], after["cooking/baking"]
    assert football.retention < before["sports/football"].retention
    assert football.state in {interest_pb2.INTEREST_STATE_FADING, FORGOTTEN}
    assert baking.state == interest_pb2.INTEREST_STATE_ACTIVE
    assert baking.short_term > football.short_term
    assert baking.retention > football.retention
