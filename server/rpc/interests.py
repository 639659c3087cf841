"""InterestService."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from ebbing.v1 import interest_service_pb2 as pb
from ebbing.v1 import interest_service_pb2_grpc
from server.errors import NotYetBuilt, UserNotFound
from server.inference.releases import Releases
from server.metrics import Metrics
from server.profiles import profile_of
from server.rpc import Context
from server.rpc.mapping import duration, timestamp, user_interest
from server.rpc.paging import page_size, read_number, write_token
from server.rpc.validation import Checks
from server.users import Users

__all__ = ["Interests"]

SUBJECT = "The interest and forgetting engine"


class Interests(interest_service_pb2_grpc.InterestServiceServicer):
    """Tells of users' interests."""

    def __init__(
        self, users: Users, releases: Releases, metrics: Metrics, now_us: Callable[[], int]
    ) -> None:
        """Set up; ``now_us`` gives microseconds since the epoch."""
        self._users = users
        self._releases = releases
        self._metrics = metrics
        self._now_us = now_us

    async def GetInterestProfile(
        self, request: pb.GetInterestProfileRequest, context: Context
    ) -> pb.GetInterestProfileResponse:
        """A user's interests as of a moment."""
        with Checks() as checks:
            checks.identifier("user_id", request.user_id)
            at_us = checks.moment(request)
            if request.HasField("horizon"):
                checks.horizon("horizon", request.horizon)
        parameters = self._releases.get(0).forgetting
        asked_s = request.horizon.ToNanoseconds() / 1e9
        if request.HasField("horizon") and asked_s != parameters.horizon_s:
            raise NotYetBuilt(SUBJECT)
        size = page_size(request.page_size)
        listing = f"profile {request.user_id} {at_us} {request.roll_up}"
        start = read_number(listing, request.page_token, 0)
        user = self._users.view(request.user_id, at_us, self._now_us())
        if user is None:
            raise UserNotFound("no event of this user is known", {"user_id": request.user_id})
        profile = profile_of(user, request.roll_up, parameters)
        strongest = profile.strongest
        end = start + size
        if strongest:
            self._metrics.retention.observe(profile.assessed.retention[strongest[0]])
        if profile.drift is not None:
            self._metrics.drift.observe(profile.drift)
        return pb.GetInterestProfileResponse(
            user_id=user.user_id,
            at=timestamp(user.at_s),
            horizon=duration(parameters.horizon_s),
            interests=[user_interest(profile, i) for i in strongest[start:end]],
            event_count=user.traces.event_count,
            drift=profile.drift,
            drift_undefined_reason="NO_INTEREST" if profile.drift is None else "",
            forgetting_version=parameters.version,
            next_page_token=write_token(listing, str(end)) if end < len(strongest) else "",
        )

    async def ListInterestHistory(
        self, request: pb.ListInterestHistoryRequest, context: Context
    ) -> pb.ListInterestHistoryResponse:
        """The course of a user's interests over time."""
        raise NotYetBuilt(SUBJECT)

    async def GetInterestGraph(
        self, request: pb.GetInterestGraphRequest, context: Context
    ) -> pb.GetInterestGraphResponse:
        """A user's interests as a graph."""
        raise NotYetBuilt(SUBJECT)

    async def ExplainInterest(
        self, request: pb.ExplainInterestRequest, context: Context
    ) -> pb.ExplainInterestResponse:
        """What one interest's retention is made of."""
        raise NotYetBuilt(SUBJECT)

    async def WatchForgetting(
        self, request: pb.WatchForgettingRequest, context: Context
    ) -> AsyncIterator[pb.WatchForgettingResponse]:
        """Changes of state as they happen."""
        raise NotYetBuilt(SUBJECT)
        yield  # makes this a stream
