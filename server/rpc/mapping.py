"""Domain objects as messages of the contract."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from ebbing.interest.forgetting import StateThresholds, reason_text
from ebbing.v1 import interest_pb2, recommendation_service_pb2, user_event_service_pb2
from server.errors import EbbingError
from server.profiles import Profile
from server.recommend.pipeline import Slate
from server.recommend.reranking import InterestContext
from server.state.store import Interests

__all__ = [
    "duration",
    "event_ack",
    "failure",
    "recommended_items",
    "slate_message",
    "timestamp",
    "user_interest",
]

Floats = NDArray[np.float64]


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


def user_interest(profile: Profile, i: int) -> interest_pb2.UserInterest:
    """Interest ``i`` of a profile."""
    traces, assessed, thresholds = profile.traces, profile.assessed, StateThresholds()
    message = interest_pb2.UserInterest(
        interest=traces.names[i],
        state=int(assessed.states[i]),  # type: ignore[arg-type]
        retention=float(assessed.retention[i]),
        forgetting_score=1.0 - float(assessed.retention[i]),
        short_term=float(profile.vectors.short_term[i]),
        long_term=float(profile.vectors.long_term[i]),
        strength=float(profile.vectors.blended[i]),
        previous_strength=float(profile.previous[i]),
        event_count=int(traces.count[i]),
        first_event_time=timestamp(traces.first[i]),
        last_event_time=timestamp(traces.last[i]),
        reason=interest_pb2.StateReason(
            recency=duration(assessed.recency_s[i]),
            typical_gap=duration(assessed.gap_s[i]),
            freshness=float(assessed.freshness[i]),
            fading_threshold=thresholds.fading,
            forgotten_threshold=thresholds.forgotten,
            resting_gaps=thresholds.resting_gaps,
            fading_gaps=thresholds.fading_gaps,
            text=reason_text(assessed, i, thresholds),
        ),
    )
    if math.isfinite(profile.half_life_s[i]):
        message.half_life.CopyFrom(duration(profile.half_life_s[i]))
    return message


def recommended_items(slate: Slate) -> list[recommendation_service_pb2.RecommendedItem]:
    """The items of a slate."""
    messages = []
    for scored, probability in zip(slate.items, slate.probabilities, strict=True):
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
        interest_priority=slate.context.priority,
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
            reason.state = int(context.assessed.states[i])  # type: ignore[assignment]
            reason.strength = float(context.strength[i])
            reason.retention = float(context.assessed.retention[i])
        reasons.append(reason)
    return sorted(reasons, key=lambda r: -r.share * r.strength)
