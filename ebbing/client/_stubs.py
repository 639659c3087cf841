"""The generated stubs of every service, over one channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from ebbing.v1.catalog_service_pb2_grpc import CatalogServiceStub
from ebbing.v1.interest_service_pb2_grpc import InterestServiceStub
from ebbing.v1.recommendation_service_pb2_grpc import RecommendationServiceStub
from ebbing.v1.release_service_pb2_grpc import ReleaseServiceStub
from ebbing.v1.user_data_service_pb2_grpc import UserDataServiceStub
from ebbing.v1.user_event_service_pb2_grpc import UserEventServiceStub

if TYPE_CHECKING:
    import grpc

    # These exist for the type checker alone: at run time the same stub serves both channels.
    from ebbing.v1.catalog_service_pb2_grpc import CatalogServiceAsyncStub
    from ebbing.v1.interest_service_pb2_grpc import InterestServiceAsyncStub
    from ebbing.v1.recommendation_service_pb2_grpc import RecommendationServiceAsyncStub
    from ebbing.v1.release_service_pb2_grpc import ReleaseServiceAsyncStub
    from ebbing.v1.user_data_service_pb2_grpc import UserDataServiceAsyncStub
    from ebbing.v1.user_event_service_pb2_grpc import UserEventServiceAsyncStub


@dataclass(frozen=True)
class Stubs:
    """Stubs of the six services."""

    events: UserEventServiceStub
    """Behaviour events."""
    catalog: CatalogServiceStub
    """Items, interests and relations."""
    interests: InterestServiceStub
    """Profiles and forgetting."""
    recommendations: RecommendationServiceStub
    """Slates and scores."""
    releases: ReleaseServiceStub
    """Releases and traffic."""
    user_data: UserDataServiceStub
    """Export and deletion."""

    @classmethod
    def over(cls, channel: grpc.Channel) -> Self:
        """The stubs over a channel, of grpc or of grpc.aio."""
        return cls(
            UserEventServiceStub(channel),
            CatalogServiceStub(channel),
            InterestServiceStub(channel),
            RecommendationServiceStub(channel),
            ReleaseServiceStub(channel),
            UserDataServiceStub(channel),
        )


@dataclass(frozen=True)
class AsyncStubs(Stubs):
    """The same, over a channel of grpc.aio."""

    events: UserEventServiceAsyncStub
    catalog: CatalogServiceAsyncStub
    interests: InterestServiceAsyncStub
    recommendations: RecommendationServiceAsyncStub
    releases: ReleaseServiceAsyncStub
    user_data: UserDataServiceAsyncStub
