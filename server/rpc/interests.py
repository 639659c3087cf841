"""InterestService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from ebbing.interest.explanation import explain
from ebbing.interest.forgetting import ForgettingParameters
from ebbing.interest.graph import MAX_ENGAGEMENTS, interest_graph
from ebbing.v1 import interest_service_pb2 as pb
from ebbing.v1 import interest_service_pb2_grpc
from server.errors import HorizonOutOfRange, UserNotFound
from server.histories import Histories, HistoryRequest, interest_not_found
from server.inference.releases import Releases
from server.metrics import Metrics
from server.profiles import profile_of
from server.rpc import Context
from server.rpc.mapping import (
    contribution,
    duration,
    history_point,
    interest_edges,
    timestamp,
    user_interest,
)
from server.rpc.paging import page_size, read_number, read_numbers, write_token
from server.rpc.validation import Checks
from server.rpc.watching import Watching
from server.state.store import DAY_US
from server.users import Users, UserView

__all__ = ["Interests"]

MAX_HISTORY_INTERESTS = 64
MAX_NODES, DEFAULT_NODES = 256, 64


class Interests(interest_service_pb2_grpc.InterestServiceServicer):
    """Tells of users' interests."""

    def __init__(
        self,
        users: Users,
        releases: Releases,
        metrics: Metrics,
        now_us: Callable[[], int],
        alpha: float,
        watching: Watching,
    ) -> None:
        """Set up; ``now_us`` gives microseconds since the epoch, ``alpha`` is the articles' α."""
        self._users = users
        self._histories = Histories(users)
        self._releases = releases
        self._metrics = metrics
        self._now_us = now_us
        self._alpha = alpha
        self._watching = watching

    async def GetInterestProfile(
        self, request: pb.GetInterestProfileRequest, context: Context
    ) -> pb.GetInterestProfileResponse:
        """A user's interests as of a moment."""
        with Checks() as checks:
            checks.identifier("user_id", request.user_id)
            at_us = checks.moment(request)
            checks.horizon(request)
            checks.alpha(request)
        parameters = self._releases.get(0).forgetting
        horizon_s = _horizon_s(request, parameters)
        alpha = request.alpha if request.HasField("alpha") else self._alpha
        size = page_size(request.page_size)
        listing = f"profile {request.user_id} {at_us} {request.roll_up}"
        start = read_number(listing, request.page_token, 0)
        user = await self._user(request.user_id, at_us)
        traces = user.traces.roll_up() if request.roll_up else user.traces
        profile = profile_of(traces, user.at_s, parameters, alpha, horizon_s)
        strongest = profile.strongest
        end = start + size
        if strongest:
            self._metrics.retention.observe(profile.assessed.retention[strongest[0]])
        if profile.drift is not None:
            self._metrics.drift.observe(profile.drift)
        return pb.GetInterestProfileResponse(
            user_id=user.user_id,
            at=timestamp(user.at_s),
            horizon=duration(horizon_s),
            interests=[user_interest(profile, i) for i in strongest[start:end]],
            event_count=user.traces.event_count,
            drift=profile.drift,
            drift_undefined_reason="NO_INTEREST" if profile.drift is None else "",
            forgetting_version=parameters.version,
            next_page_token=write_token(listing, str(end)) if end < len(strongest) else "",
            article_score=profile.article_score,
            alpha=alpha,
        )

    async def ListInterestHistory(
        self, request: pb.ListInterestHistoryRequest, context: Context
    ) -> pb.ListInterestHistoryResponse:
        """The course of a user's interests over time."""
        with Checks() as checks:
            checks.identifier("user_id", request.user_id)
            checks.count("interests", len(request.interests), MAX_HISTORY_INTERESTS)
            checks.distinct("interests", request.interests)
            for i, path in enumerate(request.interests):
                checks.path(f"interests[{i}]", path)
            start_us, end_us, at_us = (
                checks.moment(request, field) for field in ("start_time", "end_time", "at")
            )
            if start_us is not None and end_us is not None and end_us < start_us:
                checks.found("end_time", "is before start_time: swap them")
            checks.step(request)
            checks.horizon(request)
        parameters = self._releases.get(0).forgetting
        horizon_s = _horizon_s(request, parameters)
        size = page_size(request.page_size)
        step_us = request.step.ToMicroseconds() if request.HasField("step") else DAY_US
        listing = " ".join(
            ["history", request.user_id, *request.interests, f"{start_us} {end_us} {at_us}"]
        )
        listing += f" {step_us} {horizon_s}"
        place = read_numbers(listing, request.page_token, 2)
        # Later pages go on from the moment that was now for the first one.
        at_us, next_us = place if place else (at_us, None)
        page = await self._histories.page(
            HistoryRequest(
                user_id=request.user_id,
                interests=tuple(request.interests),
                start_us=start_us,
                end_us=end_us,
                at_us=at_us,
                step_us=step_us,
                horizon_s=horizon_s,
                size=size,
                next_us=next_us,
            ),
            parameters,
            self._alpha,
            self._now_us(),
        )
        points = []
        for point in page.points:
            points.append(history_point(point))
            await asyncio.sleep(0)
        more = page.next_us is not None
        return pb.ListInterestHistoryResponse(
            points=points,
            next_page_token=write_token(listing, f"{page.at_us} {page.next_us}") if more else "",
        )

    async def GetInterestGraph(
        self, request: pb.GetInterestGraphRequest, context: Context
    ) -> pb.GetInterestGraphResponse:
        """A user's interests as a graph."""
        with Checks() as checks:
            checks.identifier("user_id", request.user_id)
            at_us = checks.moment(request)
            checks.between("max_nodes", request.max_nodes, 0, MAX_NODES)
        parameters = self._releases.get(0).forgetting
        user = await self._user(request.user_id, at_us)
        profile = profile_of(user.traces, user.at_s, parameters, self._alpha)
        strongest = profile.strongest[: request.max_nodes or DEFAULT_NODES]
        names = [user.traces.names[i] for i in strongest]
        at_us = round(user.at_s * 1e6)
        events = await self._users.newest(user.user_id, at_us, MAX_ENGAGEMENTS)
        # Matrix products of some hundred interests take long enough to hold up other calls.
        graph = await asyncio.to_thread(interest_graph, events, names, user.at_s)
        return pb.GetInterestGraphResponse(
            nodes=[user_interest(profile, i) for i in strongest],
            edges=interest_edges(names, graph),
            at=timestamp(user.at_s),
        )

    async def ExplainInterest(
        self, request: pb.ExplainInterestRequest, context: Context
    ) -> pb.ExplainInterestResponse:
        """What one interest's retention is made of."""
        with Checks() as checks:
            checks.identifier("user_id", request.user_id)
            checks.path("interest", request.interest)
            at_us = checks.moment(request)
            checks.horizon(request)
        parameters = self._releases.get(0).forgetting
        horizon_s = _horizon_s(request, parameters)
        user = await self._user(request.user_id, at_us)
        if request.interest not in user.traces.names:
            raise interest_not_found(request.user_id, request.interest)
        profile = profile_of(user.traces, user.at_s, parameters, self._alpha, horizon_s)
        parts = explain(user.traces, user.at_s, request.interest, parameters, horizon_s)
        return pb.ExplainInterestResponse(
            interest=user_interest(profile, user.traces.names.index(request.interest)),
            contributions=[contribution(part) for part in parts],
            at=timestamp(user.at_s),
            horizon=duration(horizon_s),
            forgetting_version=parameters.version,
        )

    async def WatchForgetting(
        self, request: pb.WatchForgettingRequest, context: Context
    ) -> AsyncIterator[pb.WatchForgettingResponse]:
        """Changes of state as they happen."""
        async for response in self._watching.responses(request, context):
            yield response

    async def _user(self, user_id: str, at_us: int | None) -> UserView:
        user = await self._users.view(user_id, at_us, self._now_us())
        if user is None:
            raise UserNotFound("no event of this user is known", {"user_id": user_id})
        return user


def _horizon_s(request: Any, parameters: ForgettingParameters) -> float:
    """The horizon of retention a request asks for, seconds.

    Raises:
        HorizonOutOfRange: it is outside the family the release was fitted for.
    """
    if not request.HasField("horizon"):
        return parameters.horizon_s
    asked_s: float = request.horizon.ToNanoseconds() / 1e9
    shortest_s, longest_s = parameters.horizons_s
    if not shortest_s <= asked_s <= longest_s:
        raise HorizonOutOfRange(
            f"horizon: this release was fitted for {shortest_s / 86400:g} to"
            f" {longest_s / 86400:g} days; ask for one of these",
            {"shortest_us": str(round(shortest_s * 1e6)), "longest_us": str(int(longest_s * 1e6))},
        )
    return asked_s
