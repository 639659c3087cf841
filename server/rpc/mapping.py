"""Domain objects as messages of the contract."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from ebbing.interest.assessment import Assessment
from ebbing.interest.explanation import Contribution
from ebbing.interest.graph import InterestGraph
from ebbing.interest.states import StateThresholds, reason_text
from ebbing.v1 import (
    interest_pb2,
    interest_service_pb2,
    recommendation_service_pb2,
    user_data_service_pb2,
    user_event_service_pb2,
)
from server.errors import EbbingError
from server.histories import HistoryPoint
from server.privacy import Receipt, RecentEngagement, ToldInterests
from server.profiles import Profile
from server.recommend.interests import InterestContext
from server.recommend.pacing import Pace
from server.recommend.slates import Slate
from server.state.alarms import Transition
from server.state.store import Interests

__all__ = [
    "contribution",
    "deletion_receipt",
    "duration",
    "event_ack",
    "failure",
    "forgetting_transition",
    "history_point",
    "interest_edges",
    "recent_engagement",
    "recommended_items",
    "slate_message",
    "state_reason",
    "timestamp",
    "told_interests",
    "user_interest",
]

Floats = NDArray[np.float64]

LONGEST_DURATION_S = 315_576_000_000
"""Ten thousand years: the longest time span a Duration holds, seconds."""
LATEST_TIMESTAMP_S = 253_402_300_799
"""The end of the year 9999: the latest moment a Timestamp holds, seconds since the epoch."""
MAX_EDGES = 4096
"""Edges of a graph told of, at most."""


def timestamp(seconds: float) -> Timestamp:
    """A moment in seconds since the epoch, to the microsecond."""
    message = Timestamp()
    message.FromMicroseconds(round(seconds * 1e6))
    return message


def duration(seconds: float) -> Duration:
    """A time span, to the microsecond."""
    message = Duration()
    message.FromMicroseconds(round(seconds * 1e6))
    return message


def _longest_duration(seconds: float) -> Duration | None:
    """A time span, or None for one so long that it is never."""
    return duration(seconds) if seconds <= LONGEST_DURATION_S else None


def state_reason(assessed: Assessment, i: int) -> interest_pb2.StateReason:
    """Why interest ``i`` is in its state."""
    rhythm, limits = assessed.rhythm, assessed.limits
    return interest_pb2.StateReason(
        recency=duration(assessed.recency_s[i]),
        typical_gap=duration(rhythm.gap_s[i]),
        longest_gap=duration(rhythm.longest_gap_s[i]),
        regular=bool(rhythm.regular[i]),
        period=_longest_duration(rhythm.period_s[i]),
        trend=float(assessed.trend[i]),
        freshness=float(assessed.freshness[i]),
        resting_after=_longest_duration(limits.resting_s[i]),
        fading_after=_longest_duration(limits.fading_s[i]),
        forgotten_after=_longest_duration(limits.forgotten_s[i]),
        text=reason_text(assessed, i, StateThresholds()),
    )


def user_interest(profile: Profile, i: int) -> interest_pb2.UserInterest:
    """Interest ``i`` of a profile."""
    traces, assessed = profile.traces, profile.assessed
    changes_s = assessed.changes[i]
    return interest_pb2.UserInterest(
        interest=traces.names[i],
        state=int(assessed.states[i]),  # type: ignore[arg-type]
        retention=float(assessed.retention[i]),
        forgetting_score=1.0 - float(assessed.retention[i]),
        half_life=_longest_duration(profile.half_life_s[i]),
        short_term=float(profile.vectors.short_term[i]),
        long_term=float(profile.vectors.long_term[i]),
        strength=float(profile.vectors.blended[i]),
        previous_strength=float(profile.previous[i]),
        event_count=int(traces.count[i]),
        first_event_time=timestamp(traces.first[i]),
        last_event_time=timestamp(traces.last[i]),
        reason=state_reason(assessed, i),
        next_change_time=timestamp(changes_s) if changes_s <= LATEST_TIMESTAMP_S else None,
        article_probability=float(profile.probabilities[i]),
    )


def history_point(point: HistoryPoint) -> interest_service_pb2.InterestHistoryPoint:
    """One moment of a user's history."""
    return interest_service_pb2.InterestHistoryPoint(
        time=timestamp(point.time_us / 1e6),
        interests=[user_interest(point.profile, i) for i in point.shown],
        forecast=point.forecast,
    )


def interest_edges(
    names: Sequence[str], graph: InterestGraph
) -> list[interest_service_pb2.InterestEdge]:
    """The edges of a graph over interests, heaviest first."""
    weights = (graph.co_occurrence + graph.succession).ravel()
    heaviest = np.argsort(-weights, kind="stable")[: min(MAX_EDGES, np.count_nonzero(weights))]
    return [
        interest_service_pb2.InterestEdge(
            from_interest=names[i],
            to_interest=names[j],
            co_occurrence=float(graph.co_occurrence[i, j]),
            succession=float(graph.succession[i, j]),
        )
        for i, j in zip(*np.unravel_index(heaviest, graph.succession.shape), strict=True)
    ]


def contribution(part: Contribution) -> interest_service_pb2.RetentionContribution:
    """One part of the log-odds of retention."""
    return interest_service_pb2.RetentionContribution(
        name=part.name, value=part.value, log_odds=part.log_odds, text=part.text
    )


def forgetting_transition(transition: Transition) -> interest_service_pb2.ForgettingTransition:
    """A change of state that was told."""
    return interest_service_pb2.ForgettingTransition(
        user_id=transition.user_id,
        interest=transition.interest,
        from_state=transition.from_state,  # type: ignore[arg-type]
        to_state=transition.to_state,  # type: ignore[arg-type]
        transition_time=timestamp(transition.time_us / 1e6),
        retention=transition.retention,
        reason=interest_pb2.StateReason.FromString(transition.reason),
    )


def recent_engagement(engagement: RecentEngagement) -> user_data_service_pb2.RecentEngagement:
    """An engagement of a user's history."""
    return user_data_service_pb2.RecentEngagement(
        item_id=engagement.item_id,
        item_key=engagement.item_key,
        event_type=engagement.event_type,  # type: ignore[arg-type]
        event_time=timestamp(engagement.time_s),
    )


def told_interests(last: ToldInterests) -> user_data_service_pb2.ToldInterests:
    """What was told last."""
    told, due_us = last
    return user_data_service_pb2.ToldInterests(
        told_time=timestamp(told.at) if math.isfinite(told.at) else None,
        states=[
            user_data_service_pb2.ToldState(interest=name, state=state)  # type: ignore[arg-type]
            for name, state in told.states.items()
        ],
        due_time=None if due_us is None else timestamp(due_us / 1e6),
    )


def deletion_receipt(receipt: Receipt) -> user_data_service_pb2.DeletionReceipt:
    """Proof of a deletion."""
    deletion = receipt.deletion
    return user_data_service_pb2.DeletionReceipt(
        receipt_id=deletion.receipt_id,
        delete_time=timestamp(deletion.time_us / 1e6),
        deleted_event_count=deletion.events,
        trained_releases=receipt.trained_releases,
    )


def recommended_items(slate: Slate) -> list[recommendation_service_pb2.RecommendedItem]:
    """The items of a slate."""
    messages = []
    because = slate.because or [()] * len(slate.items)
    for scored, probability, speaking in zip(
        slate.items, slate.probabilities, because, strict=True
    ):
        candidate = scored.candidate
        messages.append(
            recommendation_service_pb2.RecommendedItem(
                item_id=candidate.item.item_id,
                score=scored.score,
                relevance=scored.relevance,
                retrieval_score=candidate.retrieval_score,
                forgetting=scored.forgetting,
                probability=float(probability),
                source=int(candidate.source),  # type: ignore[arg-type]
                reasons=_reasons(candidate.item.interests, slate.context),
                because_item_ids=speaking,
            )
        )
    return messages


def slate_message(slate: Slate) -> recommendation_service_pb2.Slate:
    """A slate."""
    return recommendation_service_pb2.Slate(
        user_id=slate.user.user_id,
        items=recommended_items(slate),
        at=timestamp(slate.user.at_s),
        release=slate.release,
        degraded=bool(slate.degraded_reason),
        degraded_reason=slate.degraded_reason,
        article_score=slate.article_score,
        attribution_token=slate.attribution_token,
        interest_priority=slate.priority,
        cold_start=int(slate.cold_start),  # type: ignore[arg-type]
        paces=[_pace(pace) for pace in slate.paces],
    )


def _pace(pace: Pace) -> recommendation_service_pb2.InterestPace:
    return recommendation_service_pb2.InterestPace(
        interest=pace.interest,
        due=pace.due,
        next_time=timestamp(pace.next_s),
        interval=duration(pace.interval_s),
        in_vain_count=pace.in_vain,
    )


def event_ack(
    event_id: str, outcome: int, unknown_item: bool = False, error: EbbingError | None = None
) -> user_event_service_pb2.EventAck:
    """What became of one event; ``error`` says why it was rejected."""
    return user_event_service_pb2.EventAck(
        event_id=event_id,
        outcome=outcome,  # type: ignore[arg-type]
        reason=error.reason if error else "",
        message=error.message if error else "",
        unknown_item=unknown_item,
    )


def failure(error: EbbingError) -> recommendation_service_pb2.RecommendItemsFailure:
    """Why one request of many has no slate."""
    return recommendation_service_pb2.RecommendItemsFailure(
        code=error.code.value[0], reason=error.reason, message=error.message
    )


def _reasons(
    interests: Interests, context: InterestContext
) -> Sequence[recommendation_service_pb2.InterestReason]:
    total = sum(share for _, share in interests)
    reasons = []
    for name, share in interests:
        reason = recommendation_service_pb2.InterestReason(interest=name, share=share / total)
        i = context.index.get(name)
        if i is not None:
            reason.state = int(context.states[i])  # type: ignore[assignment]
            reason.strength = float(context.strength[i])
            reason.retention = float(context.retention[i])
        reasons.append(reason)
    return sorted(reasons, key=lambda r: -r.share * r.strength)
