"""RPCs that tell of interests, recommend and rule releases, described once, as in ``_data``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from ebbing.client._base import ClientBase
from ebbing.client._calls import MOST_BYTES, Call, Calls, Pages, Watch, batches
from ebbing.client._messages import Moment, optional_timestamp, to_duration
from ebbing.v1 import interest_pb2 as interest_v1
from ebbing.v1 import interest_service_pb2 as interests_v1
from ebbing.v1 import recommendation_service_pb2 as recommendation
from ebbing.v1 import release_service_pb2 as release_v1

MOST_REQUESTS = 256
"""Requests of a batch recommendation, at most."""


# --- interests ------------------------------------------------------------------------------------


def interest_profile(
    client: ClientBase,
    user_id: str,
    at: Moment | None = None,
    *,
    horizon: timedelta | None = None,
    roll_up: bool = False,
    alpha: float | None = None,
    page_size: int = 0,
    page_token: str = "",
) -> Call[interests_v1.GetInterestProfileResponse]:
    """A user's interests as of a moment (now), the strongest first, with drift and reasons.

    A past moment is answered as it was then, a later one is a forecast. NOT_FOUND: USER_NOT_FOUND;
    OUT_OF_RANGE: AT_BEFORE_FIRST_EVENT, HORIZON_OUT_OF_RANGE; the metadata say what can be asked.
    """
    return Call(
        lambda stubs: stubs.interests.GetInterestProfile,
        interests_v1.GetInterestProfileRequest(
            user_id=user_id,
            at=optional_timestamp(at),
            horizon=to_duration(horizon),
            roll_up=roll_up,
            alpha=alpha,
            page_size=page_size,
            page_token=page_token,
        ),
        lambda answer: answer,
    )


def interest_history(
    client: ClientBase,
    user_id: str,
    interests: Iterable[str] = (),
    *,
    start_time: Moment | None = None,
    end_time: Moment | None = None,
    step: timedelta | None = None,
    at: Moment | None = None,
    horizon: timedelta | None = None,
    page_size: int = 100,
) -> Pages[interests_v1.InterestHistoryPoint]:
    """The course of a user's interests over time (the 8 strongest, by the day), oldest first.

    It goes from the first event to ``at`` (now): events after ``at`` do not count, and points after
    it are a forecast. NOT_FOUND: USER_NOT_FOUND, INTEREST_NOT_FOUND; OUT_OF_RANGE as for
    ``interest_profile``.
    """
    return Pages(
        lambda stubs: stubs.interests.ListInterestHistory,
        interests_v1.ListInterestHistoryRequest(
            user_id=user_id,
            interests=interests,
            start_time=optional_timestamp(start_time),
            end_time=optional_timestamp(end_time),
            step=to_duration(step),
            at=optional_timestamp(at),
            horizon=to_duration(horizon),
            page_size=page_size,
        ),
        lambda answer: answer.points,
    )


def interest_graph(
    client: ClientBase, user_id: str, at: Moment | None = None, *, max_nodes: int = 0
) -> Call[interests_v1.GetInterestGraphResponse]:
    """A user's interests as a graph: which come together, which follow which.

    The 64 strongest, unless ``max_nodes`` says otherwise. NOT_FOUND: USER_NOT_FOUND; OUT_OF_RANGE:
    AT_BEFORE_FIRST_EVENT.
    """
    return Call(
        lambda stubs: stubs.interests.GetInterestGraph,
        interests_v1.GetInterestGraphRequest(
            user_id=user_id, at=optional_timestamp(at), max_nodes=max_nodes
        ),
        lambda answer: answer,
    )


def explain_interest(
    client: ClientBase,
    user_id: str,
    interest: str,
    at: Moment | None = None,
    *,
    horizon: timedelta | None = None,
) -> Call[interests_v1.ExplainInterestResponse]:
    """What one interest's retention is made of: contributions whose log-odds add up to its own.

    NOT_FOUND: USER_NOT_FOUND, INTEREST_NOT_FOUND; OUT_OF_RANGE as for ``interest_profile``.
    """
    return Call(
        lambda stubs: stubs.interests.ExplainInterest,
        interests_v1.ExplainInterestRequest(
            user_id=user_id,
            interest=interest,
            at=optional_timestamp(at),
            horizon=to_duration(horizon),
        ),
        lambda answer: answer,
    )


def watch_forgetting(
    client: ClientBase,
    cursor: str = "",
    *,
    user_ids: Iterable[str] = (),
    states: Iterable[interest_v1.InterestState.ValueType] = (),
) -> Watch[interests_v1.WatchForgettingResponse]:
    """Changes of state as they happen, from a cursor on (from now on), at least once each.

    If the gateway goes away, this goes on by itself where it was as soon as one is there again.
    After any other error, or in another process, go on from the cursor of the last answer handled.
    INVALID_ARGUMENT: the cursor is of another store; OUT_OF_RANGE: CURSOR_EXPIRED.
    """
    return Watch(
        lambda stubs: stubs.interests.WatchForgetting,
        interests_v1.WatchForgettingRequest(cursor=cursor, user_ids=user_ids, states=states),
        lambda answer: answer,
        resumable=True,
    )


# --- recommendations ------------------------------------------------------------------------------


def recommend(
    client: ClientBase,
    user_id: str,
    at: Moment | None = None,
    *,
    page_size: int = 0,
    strategy: recommendation.Strategy.ValueType = recommendation.STRATEGY_FOLLOW,
    include_seen: bool = False,
    exclude_item_ids: Iterable[str] = (),
    release: int = 0,
    alpha: float | None = None,
    allow: Mapping[str, Iterable[str]] | None = None,
    deny: Mapping[str, Iterable[str]] | None = None,
    context: Mapping[str, str] | None = None,
    context_interests: Iterable[str] = (),
    diversity: float | None = None,
) -> Call[recommendation.Slate]:
    """A slate for one user as of a moment (now), best first; an unknown user gets a cold start.

    ``allow`` and ``deny`` name the values that an attribute of an item must, or must not, have.
    """
    return Call(
        lambda stubs: stubs.recommendations.RecommendItems,
        recommendation.RecommendItemsRequest(
            user_id=user_id,
            at=optional_timestamp(at),
            page_size=page_size,
            strategy=strategy,
            include_seen=include_seen,
            exclude_item_ids=exclude_item_ids,
            release=release,
            alpha=alpha,
            allow=_attribute_filters(allow),
            deny=_attribute_filters(deny),
            context=context,
            context_interests=context_interests,
            diversity=diversity,
        ),
        lambda answer: answer.slate,
    )


def _attribute_filters(
    values: Mapping[str, Iterable[str]] | None,
) -> list[recommendation.AttributeFilter]:
    return [
        recommendation.AttributeFilter(attribute=attribute, values=allowed)
        for attribute, allowed in (values or {}).items()
    ]


def recommend_many(
    client: ClientBase,
    user_ids: Iterable[str],
    at: Moment | None = None,
    *,
    page_size: int = 0,
    strategy: recommendation.Strategy.ValueType = recommendation.STRATEGY_FOLLOW,
    include_seen: bool = False,
    release: int = 0,
    alpha: float | None = None,
) -> Calls[list[recommendation.RecommendItemsResult]]:
    """Slates for many users, a batch at a time; each is a slate or a failure by itself."""
    requests = (
        recommendation.RecommendItemsRequest(
            user_id=user_id,
            at=optional_timestamp(at),
            page_size=page_size,
            strategy=strategy,
            include_seen=include_seen,
            release=release,
            alpha=alpha,
        )
        for user_id in user_ids
    )
    return Calls(
        (
            Call(
                lambda stubs: stubs.recommendations.BatchRecommendItems,
                recommendation.BatchRecommendItemsRequest(requests=batch),
                lambda answer: answer,
                batch=True,
            )
            for batch in batches(requests, MOST_REQUESTS, MOST_BYTES)
        ),
        lambda answers: [result for answer in answers for result in answer.results],
    )


def score(
    client: ClientBase,
    user_id: str,
    item_ids: Iterable[str],
    at: Moment | None = None,
    *,
    release: int = 0,
    alpha: float | None = None,
) -> Call[recommendation.ScoreItemsResponse]:
    """Score given items for one user, in their order. UNAVAILABLE: Triton does not answer."""
    return Call(
        lambda stubs: stubs.recommendations.ScoreItems,
        recommendation.ScoreItemsRequest(
            user_id=user_id,
            item_ids=item_ids,
            at=optional_timestamp(at),
            release=release,
            alpha=alpha,
        ),
        lambda answer: answer,
        batch=True,
    )


# --- releases -------------------------------------------------------------------------------------


def list_releases(client: ClientBase, *, page_size: int = 100) -> Pages[release_v1.Release]:
    """The complete releases of the repository, newest first, and what each is for."""
    return Pages(
        lambda stubs: stubs.releases.ListReleases,
        release_v1.ListReleasesRequest(page_size=page_size),
        lambda answer: answer.releases,
    )


def watch_releases(client: ClientBase) -> Watch[release_v1.WatchReleasesResponse]:
    """Changes of releases as they happen."""
    return Watch(
        lambda stubs: stubs.releases.WatchReleases,
        release_v1.WatchReleasesRequest(),
        lambda answer: answer,
    )


def publish_release(client: ClientBase, release: int) -> Call[release_v1.Release]:
    """Take a release into service, without traffic."""
    return Call(
        lambda stubs: stubs.releases.PublishRelease,
        release_v1.PublishReleaseRequest(release=release),
        lambda answer: answer.release,
        batch=True,
    )


def set_release_traffic(
    client: ClientBase, release: int, role: release_v1.ReleaseRole.ValueType, traffic: float
) -> Call[Sequence[release_v1.Release]]:
    """Try a release as the canary or the shadow of a share of the users, from 0 to 1."""
    return Call(
        lambda stubs: stubs.releases.SetReleaseTraffic,
        release_v1.SetReleaseTrafficRequest(release=release, role=role, traffic=traffic),
        lambda answer: answer.releases,
        batch=True,
    )


def promote_release(client: ClientBase, release: int) -> Call[Sequence[release_v1.Release]]:
    """Give a release all the traffic."""
    return Call(
        lambda stubs: stubs.releases.PromoteRelease,
        release_v1.PromoteReleaseRequest(release=release),
        lambda answer: answer.releases,
        batch=True,
    )


def roll_back_release(
    client: ClientBase, reason: str = "", *, release: int = 0
) -> Call[Sequence[release_v1.Release]]:
    """End what is tried; or, where nothing is, make the release before live again.

    Name the ``release`` that is to be rolled back: a call that is tried again, or made by two
    people at once, then never rolls back another one.
    """
    return Call(
        lambda stubs: stubs.releases.RollBackRelease,
        release_v1.RollBackReleaseRequest(reason=reason, release=release),
        lambda answer: answer.releases,
        batch=True,
    )
