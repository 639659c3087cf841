"""ReleaseService."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import datetime
from typing import Any

from ebbing.manifest import Manifest, releases
from ebbing.v1 import release_service_pb2 as pb
from ebbing.v1 import release_service_pb2_grpc
from server.errors import NotYetBuilt
from server.inference.releases import Releases
from server.rpc import Context
from server.rpc.paging import page_size, read_number, write_token

__all__ = ["ReleaseServicer"]

SUBJECT = "Serving: the pipeline, strategies, cold start and releases"


class ReleaseServicer(release_service_pb2_grpc.ReleaseServiceServicer):
    """Rules which release serves whom."""

    def __init__(self, in_service: Releases) -> None:
        """Set up on the releases in service."""
        self._in_service = in_service

    async def ListReleases(
        self, request: pb.ListReleasesRequest, context: Context
    ) -> pb.ListReleasesResponse:
        """List the releases of the repository, newest first."""
        size = page_size(request.page_size)
        before = read_number("releases", request.page_token, 2**62)
        repository = self._in_service.repository
        numbers = [n for n in reversed(releases(repository)) if n < before]
        page = [self._message(Manifest.read(repository, n)) for n in numbers[:size]]
        more = write_token("releases", str(numbers[size - 1])) if len(numbers) > size else ""
        return pb.ListReleasesResponse(releases=page, next_page_token=more)

    async def PublishRelease(
        self, request: pb.PublishReleaseRequest, context: Context
    ) -> pb.PublishReleaseResponse:
        """Take a release into service."""
        raise NotYetBuilt(SUBJECT)

    async def SetReleaseTraffic(
        self, request: pb.SetReleaseTrafficRequest, context: Context
    ) -> pb.SetReleaseTrafficResponse:
        """Split the traffic."""
        raise NotYetBuilt(SUBJECT)

    async def PromoteRelease(
        self, request: pb.PromoteReleaseRequest, context: Context
    ) -> pb.PromoteReleaseResponse:
        """Give a release all the traffic."""
        raise NotYetBuilt(SUBJECT)

    async def RollBackRelease(
        self, request: pb.RollBackReleaseRequest, context: Context
    ) -> pb.RollBackReleaseResponse:
        """Give the release before all the traffic again."""
        raise NotYetBuilt(SUBJECT)

    async def WatchReleases(
        self, request: pb.WatchReleasesRequest, context: Context
    ) -> AsyncIterator[pb.WatchReleasesResponse]:
        """Changes of releases as they happen."""
        raise NotYetBuilt(SUBJECT)
        yield  # makes this a stream

    def _message(self, manifest: Manifest) -> pb.Release:
        live = manifest.release == self._in_service.get(0).release
        message = pb.Release(
            release=manifest.release,
            role=pb.RELEASE_ROLE_LIVE if live else pb.RELEASE_ROLE_IDLE,
            traffic=1.0 if live else 0.0,
            metrics=dict(_flat(manifest.metrics)),
        )
        message.publish_time.FromDatetime(datetime.fromisoformat(manifest.created))
        return message


def _flat(metrics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Nested metrics as dotted names: retrieval.ndcg_at_10."""
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, int | float):
            yield f"{prefix}{name}", float(value)
