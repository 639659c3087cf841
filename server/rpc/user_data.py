"""UserDataService."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable

from ebbing.v1 import user_data_service_pb2 as pb
from ebbing.v1 import user_data_service_pb2_grpc
from ebbing.v1.catalog_service_pb2 import Relation
from ebbing.v1.user_event_pb2 import UserEvent
from server.errors import UserNotFound
from server.inference.releases import Releases
from server.privacy import (
    Piece,
    Privacy,
    Receipt,
    RecentEngagement,
    StandingInterest,
    ToldInterests,
)
from server.rpc import Context
from server.rpc.mapping import (
    deletion_receipt,
    forgetting_transition,
    recent_engagement,
    timestamp,
    told_interests,
    user_interest,
)
from server.rpc.validation import Checks
from server.state.alarms import Transition
from server.state.store import Interaction, RelationRecord

__all__ = ["UserData"]


class UserData(user_data_service_pb2_grpc.UserDataServiceServicer):
    """Gives users their data, and forgets it."""

    def __init__(
        self,
        privacy: Privacy,
        releases: Releases,
        now_us: Callable[[], int],
        new_id: Callable[[], str],
        alpha: float,
    ) -> None:
        """Set up.

        Args:
            privacy: reads out and deletes.
            releases: the live one's forgetting parameters say how interests stand.
            now_us: microseconds since the epoch.
            new_id: names receipts.
            alpha: the articles' α.
        """
        self._privacy = privacy
        self._releases = releases
        self._now_us = now_us
        self._new_id = new_id
        self._alpha = alpha

    async def ExportUserData(
        self, request: pb.ExportUserDataRequest, context: Context
    ) -> AsyncIterator[pb.ExportUserDataResponse]:
        """Everything held on a user, as fast as it is read."""
        with Checks() as checks:
            checks.identifier("user_id", request.user_id)
        parameters = self._releases.get(0).forgetting
        now_us = self._now_us()
        at_s, counts = now_us / 1e6, Counter[str]()
        async for piece in self._privacy.pieces(request.user_id, now_us, parameters, self._alpha):
            if isinstance(piece, StandingInterest):
                at_s = piece.at_s
            response = _response(piece)
            counts[str(response.WhichOneof("record"))] += 1
            yield response
        if not counts:
            raise UserNotFound("nothing is held on this user", {"user_id": request.user_id})
        yield pb.ExportUserDataResponse(
            summary=pb.ExportSummary(
                user_id=request.user_id,
                at=timestamp(at_s),
                forgetting_version=parameters.version,
                event_count=counts["event"],
                interest_count=counts["interest"],
                relation_count=counts["relation"],
                recent_engagement_count=counts["recent_engagement"],
                transition_count=counts["transition"],
            )
        )

    async def DeleteUserData(
        self, request: pb.DeleteUserDataRequest, context: Context
    ) -> pb.DeleteUserDataResponse:
        """Delete everything held on a user."""
        with Checks() as checks:
            checks.identifier("user_id", request.user_id)
        receipt = await self._privacy.delete(request.user_id, self._new_id(), self._now_us())
        return pb.DeleteUserDataResponse(receipt=deletion_receipt(receipt))


def _response(piece: Piece) -> pb.ExportUserDataResponse:
    response = pb.ExportUserDataResponse()
    match piece:
        case Interaction():
            response.event.CopyFrom(UserEvent.FromString(piece.body))
        case StandingInterest():
            response.interest.CopyFrom(user_interest(piece.profile, piece.number))
        case RelationRecord():
            response.relation.CopyFrom(Relation.FromString(piece.body))
        case RecentEngagement():
            response.recent_engagement.CopyFrom(recent_engagement(piece))
        case Transition():
            response.transition.CopyFrom(forgetting_transition(piece))
        case ToldInterests():
            response.told.CopyFrom(told_interests(piece))
        case Receipt():
            response.deletion.CopyFrom(deletion_receipt(piece))
    return response
