"""Domain objects as messages: every field set, and set to what it says."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from ebbing.history import encode_history, item_key
from ebbing.interest.forgetting import ForgettingParameters
from ebbing.interest.graph import InterestGraph
from ebbing.interest.states import InterestState
from ebbing.interest.trace import TraceTable
from ebbing.v1 import interest_pb2, recommendation_service_pb2
from ebbing.v1 import user_event_service_pb2 as event_pb
from server.errors import EventIdReused, UserNotFound
from server.profiles import Profile, profile_of
from server.recommend.candidates import Candidate, Source
from server.recommend.interests import InterestContext
from server.recommend.pacing import Pace
from server.recommend.reranking import Scored
from server.recommend.slates import ColdStart, Slate
from server.rpc.mapping import (
    duration,
    event_ack,
    failure,
    interest_edges,
    recommended_items,
    slate_message,
    timestamp,
    user_interest,
)
from server.state.store import Interests, ItemRecord
from server.users import UserView

DAY_S = 86400.0
AT_S = 1_700_000_000.25
PARAMETERS = ForgettingParameters.builtin()
TRACES = TraceTable.from_events(
    [
        *((AT_S - d * DAY_S, 1.0, [("music/jazz", 1.0)]) for d in (0, 3, 6, 9)),
        (AT_S - 200 * DAY_S, 1.0, [("sports", 2.0)]),
    ]
)
USER = UserView("ann", AT_S, TRACES, encode_history([], [], [], AT_S))
CONTEXT = InterestContext.of(TRACES, AT_S, PARAMETERS)


@pytest.fixture
def profile() -> Profile:
    return profile_of(TRACES, AT_S, PARAMETERS, 5.0)


def made(item_id: str, interests: Interests, source: Source, **scores: float | None) -> Scored:
    item = ItemRecord(item_id, item_key(item_id), interests, 0, 0, b"")
    candidate = Candidate(item, source, scores.get("retrieval"))
    return Scored(candidate, 0.5, scores.get("relevance"), 0.25)


def slate(*items: Scored, degraded: str = "") -> Slate:
    probabilities = np.full(len(items), 1 / max(len(items), 1))
    return Slate(USER, list(items), probabilities, 0.75, CONTEXT, 7, degraded)


@pytest.mark.parametrize("seconds", [0.0, 1e-6, 0.1, 1.7e9, 1_700_000_000.123456, 7_258_118_399.0])
def test_moments_and_spans_are_kept_to_the_microsecond(seconds: float) -> None:
    assert timestamp(seconds).ToMicroseconds() == round(seconds * 1e6)
    assert duration(seconds).ToMicroseconds() == round(seconds * 1e6)


def test_an_interest_with_all_that_is_said_of_it(profile: Profile) -> None:
    message = user_interest(profile, 0)
    assert message.interest == "music/jazz"
    assert message.state == interest_pb2.INTEREST_STATE_ACTIVE == InterestState.ACTIVE
    assert message.retention == profile.assessed.retention[0]
    assert message.retention + message.forgetting_score == 1.0
    assert message.strength == profile.vectors.blended[0]
    assert message.short_term == profile.vectors.short_term[0]
    assert message.long_term == profile.vectors.long_term[0]
    assert message.previous_strength == profile.previous[0]
    assert message.event_count == 4
    assert message.first_event_time == timestamp(AT_S - 9 * DAY_S)
    assert message.last_event_time == timestamp(AT_S)
    assert message.half_life == duration(profile.half_life_s[0])
    assert message.article_probability == profile.probabilities[0]
    reason, assessed = message.reason, profile.assessed
    assert reason.recency == duration(0.0)
    assert reason.typical_gap == duration(assessed.rhythm.gap_s[0])
    assert reason.longest_gap == duration(assessed.rhythm.longest_gap_s[0])
    assert reason.regular == assessed.rhythm.regular[0]
    assert reason.trend == assessed.trend[0]
    assert reason.freshness == assessed.freshness[0]
    assert reason.text


def with_times(profile: Profile, seconds: float) -> Profile:
    """A profile whose limits, periods and changes are all the same."""
    everywhere = np.full(len(profile.traces.names), seconds)
    limits = replace(
        profile.assessed.limits,
        resting_s=everywhere,
        fading_s=everywhere,
        forgotten_s=everywhere,
    )
    rhythm = replace(profile.assessed.rhythm, period_s=everywhere)
    assessed = replace(profile.assessed, limits=limits, rhythm=rhythm, changes=AT_S + everywhere)
    return replace(profile, assessed=assessed, half_life_s=everywhere)


def test_times_that_will_come_are_set(profile: Profile) -> None:
    message = user_interest(with_times(profile, 7 * DAY_S), 0)
    week = duration(7 * DAY_S)
    assert message.half_life == message.reason.period == week
    reason = message.reason
    assert reason.resting_after == reason.fading_after == reason.forgotten_after == week
    assert message.next_change_time == timestamp(AT_S + 7 * DAY_S)


@pytest.mark.parametrize("never", [math.inf, math.nan, 1e13])
def test_times_that_never_come_are_not_set(profile: Profile, never: float) -> None:
    message = user_interest(with_times(profile, never), 0)
    assert not message.HasField("half_life")
    assert not message.HasField("next_change_time")
    for field in ("period", "resting_after", "fading_after", "forgotten_after"):
        assert not message.reason.HasField(field)


def test_every_number_of_an_interest_is_one(profile: Profile) -> None:
    for i in range(len(profile.traces.names)):
        message = user_interest(profile, i)
        for descriptor, value in (*message.ListFields(), *message.reason.ListFields()):
            if descriptor.cpp_type == descriptor.CPPTYPE_DOUBLE:
                assert math.isfinite(value), descriptor.name


def test_edges_come_heaviest_first_and_only_where_there_are_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    together = np.array([[0.0, 0.5, 0.0], [0.5, 0.0, 0.0], [0.0, 0.0, 0.0]])
    after = np.array([[0.0, 0.0, 2.0], [0.25, 0.0, 0.0], [0.0, 0.0, 0.0]])
    edges = interest_edges(["a", "b", "c"], InterestGraph(together, after))
    assert [(e.from_interest, e.to_interest, e.co_occurrence, e.succession) for e in edges] == [
        ("a", "c", 0.0, 2.0),
        ("b", "a", 0.5, 0.25),
        ("a", "b", 0.5, 0.0),
    ]
    monkeypatch.setattr("server.rpc.mapping.MAX_EDGES", 2)
    assert interest_edges(["a", "b", "c"], InterestGraph(together, after)) == edges[:2]
    assert interest_edges([], InterestGraph(np.zeros((0, 0)), np.zeros((0, 0)))) == []


def test_states_have_the_numbers_of_the_contract() -> None:
    wire = {n.removeprefix("INTEREST_STATE_"): v for n, v in interest_pb2.InterestState.items()}
    assert wire == {state.name: state.value for state in InterestState}


def test_sources_have_the_numbers_of_the_contract() -> None:
    wire = recommendation_service_pb2.CandidateSource
    assert all(wire.Value(f"CANDIDATE_SOURCE_{s.name}") == s for s in Source)


def test_an_item_of_a_slate() -> None:
    interests = (("sports", 1.0), ("music/jazz", 2.0), ("unknown", 1.0))
    scored = made("i", interests, Source.RETRIEVAL, relevance=0.125, retrieval=0.0)
    (message,) = recommended_items(slate(scored))
    assert (message.item_id, message.score, message.relevance) == ("i", 0.5, 0.125)
    assert message.HasField("retrieval_score")
    assert (message.forgetting, message.probability) == (0.25, 1.0)
    assert message.source == recommendation_service_pb2.CANDIDATE_SOURCE_RETRIEVAL
    reasons = {reason.interest: reason for reason in message.reasons}
    assert {name: reason.share for name, reason in reasons.items()} == {
        "sports": 0.25,
        "music/jazz": 0.5,
        "unknown": 0.25,
    }
    jazz = CONTEXT.index["music/jazz"]
    assert reasons["music/jazz"].strength == CONTEXT.strength[jazz]
    assert reasons["music/jazz"].retention == CONTEXT.retention[jazz]
    assert reasons["music/jazz"].state == CONTEXT.states[jazz]
    # What was never engaged has no state, and comes last.
    assert [r.interest for r in message.reasons] == ["music/jazz", "sports", "unknown"]
    never = reasons["unknown"]
    assert (never.state, never.strength, never.retention) == (0, 0.0, 0.0)


def test_what_no_model_said_is_not_set() -> None:
    (message,) = recommended_items(slate(made("i", (), Source.POPULAR)))
    assert not message.HasField("relevance")
    assert not message.HasField("retrieval_score")
    assert list(message.reasons) == []


def test_a_slate() -> None:
    items = [made(i, (), Source.POPULAR) for i in "ab"]
    pace = Pace("sports", True, AT_S, 86400.0, 2)
    given = replace(
        slate(*items),
        priority=["music/jazz", "sports"],
        cold_start=ColdStart.SOCIAL,
        paces=[pace],
        because=[["x", "y"], []],
    )
    message = slate_message(given)
    assert [list(item.because_item_ids) for item in message.items] == [["x", "y"], []]
    assert message.cold_start == recommendation_service_pb2.COLD_START_SOCIAL
    (paced,) = message.paces
    assert (paced.interest, paced.due, paced.in_vain_count) == ("sports", True, 2)
    assert (paced.next_time, paced.interval.seconds) == (timestamp(AT_S), 86400)
    assert (message.user_id, message.release) == ("ann", 7)
    assert [item.item_id for item in message.items] == ["a", "b"]
    assert [item.probability for item in message.items] == [0.5, 0.5]
    assert message.at == timestamp(AT_S)
    assert (message.degraded, message.degraded_reason) == (False, "")
    assert message.article_score == 0.75
    assert message.attribution_token == given.attribution_token
    assert list(message.interest_priority) == ["music/jazz", "sports"]


def test_a_degraded_slate_says_why() -> None:
    message = slate_message(slate(degraded="TRITON_UNAVAILABLE"))
    assert (message.degraded, message.degraded_reason) == (True, "TRITON_UNAVAILABLE")
    assert list(message.items) == []


def test_acknowledgements() -> None:
    ack = event_ack("e", event_pb.EVENT_OUTCOME_ACCEPTED, unknown_item=True)
    assert ack == event_pb.EventAck(
        event_id="e", outcome=event_pb.EVENT_OUTCOME_ACCEPTED, unknown_item=True
    )
    error = EventIdReused("give each event its own")
    refused = event_ack("e", event_pb.EVENT_OUTCOME_REJECTED, error=error)
    assert (refused.reason, refused.message) == ("EVENT_ID_REUSED", "give each event its own")


def test_a_failure_of_many() -> None:
    message = failure(UserNotFound("no event"))
    assert (message.code, message.reason, message.message) == (5, "USER_NOT_FOUND", "no event")
