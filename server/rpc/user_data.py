"""UserDataService."""

from __future__ import annotations

from collections.abc import AsyncIterator

from ebbing.v1 import user_data_service_pb2 as pb
from ebbing.v1 import user_data_service_pb2_grpc
from server.errors import NotYetBuilt
from server.rpc import Context

__all__ = ["UserData"]

SUBJECT = "State that never loses an event"


class UserData(user_data_service_pb2_grpc.UserDataServiceServicer):
    """Gives users their data, and forgets it."""

    async def ExportUserData(
        self, request: pb.ExportUserDataRequest, context: Context
    ) -> AsyncIterator[pb.ExportUserDataResponse]:
        """Everything held on a user."""
        raise NotYetBuilt(SUBJECT)
        yield  # makes this a stream

    async def DeleteUserData(
        self, request: pb.DeleteUserDataRequest, context: Context
    ) -> pb.DeleteUserDataResponse:
        """Delete everything held on a user."""
        raise NotYetBuilt(SUBJECT)
