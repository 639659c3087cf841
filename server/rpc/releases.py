"""ReleaseService."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from ebbing.manifest import Manifest, ManifestError, releases
from ebbing.v1 import release_service_pb2 as pb
from ebbing.v1 import release_service_pb2_grpc
from server.errors import GatewayStopping
from server.rollout.control import RolloutControl
from server.rollout.plan import Plan, Role
from server.rpc import Context
from server.rpc.paging import page_size, read_number, write_token
from server.rpc.validation import Checks

__all__ = ["ReleaseServicer"]

REASON_BYTES = 1024
QUIET_S = 30.0
"""Longest silence of a stream of changes; then it says again how things stand."""


class ReleaseServicer(release_service_pb2_grpc.ReleaseServiceServicer):
    """Rules which release serves whom."""

    def __init__(self, repository: Path, rollout: RolloutControl) -> None:
        """Set up on the repository of releases and the rollout."""
        self._repository = repository
        self._rollout = rollout

    async def ListReleases(
        self, request: pb.ListReleasesRequest, context: Context
    ) -> pb.ListReleasesResponse:
        """List the releases of the repository, newest first."""
        size = page_size(request.page_size)
        before = read_number("releases", request.page_token, 2**62)
        numbers = [n for n in reversed(releases(self._repository)) if n < before]
        more = write_token("releases", str(numbers[size - 1])) if len(numbers) > size else ""
        page = [self._message(number, self._rollout.plan) for number in numbers[:size]]
        return pb.ListReleasesResponse(releases=page, next_page_token=more)

    async def PublishRelease(
        self, request: pb.PublishReleaseRequest, context: Context
    ) -> pb.PublishReleaseResponse:
        """Take a release into service, without traffic."""
        with Checks() as checks:
            _check_release(checks, request.release)
        plan = await self._rollout.try_release(request.release, Role.CANARY, 0.0)
        return pb.PublishReleaseResponse(release=self._message(request.release, plan))

    async def SetReleaseTraffic(
        self, request: pb.SetReleaseTrafficRequest, context: Context
    ) -> pb.SetReleaseTrafficResponse:
        """Split the traffic."""
        with Checks() as checks:
            _check_release(checks, request.release)
            if request.role not in (pb.RELEASE_ROLE_CANARY, pb.RELEASE_ROLE_SHADOW):
                checks.found(
                    "role",
                    "must be RELEASE_ROLE_CANARY or RELEASE_ROLE_SHADOW; to make a release"
                    " live, promote it",
                )
            checks.between("traffic", request.traffic, 0.0, 1.0)
        plan = await self._rollout.try_release(request.release, Role(request.role), request.traffic)
        return pb.SetReleaseTrafficResponse(releases=self._in_service(plan))

    async def PromoteRelease(
        self, request: pb.PromoteReleaseRequest, context: Context
    ) -> pb.PromoteReleaseResponse:
        """Give a release all the traffic."""
        with Checks() as checks:
            _check_release(checks, request.release)
        plan = await self._rollout.promote(request.release)
        return pb.PromoteReleaseResponse(releases=self._in_service(plan))

    async def RollBackRelease(
        self, request: pb.RollBackReleaseRequest, context: Context
    ) -> pb.RollBackReleaseResponse:
        """End what is tried, or give the release before all the traffic again."""
        with Checks() as checks:
            checks.text("reason", request.reason, REASON_BYTES)
            if request.release < 0:
                checks.found("release", "must be 1 or more, or 0 for what is tried or live")
        plan = await self._rollout.roll_back(request.reason, request.release)
        return pb.RollBackReleaseResponse(releases=self._in_service(plan))

    async def WatchReleases(
        self, request: pb.WatchReleasesRequest, context: Context
    ) -> AsyncIterator[pb.WatchReleasesResponse]:
        """How the releases stand, now and whenever that changes."""
        news = self._rollout.news
        while not news.closed:
            plan = self._rollout.plan
            yield pb.WatchReleasesResponse(releases=self._in_service(plan))
            if self._rollout.plan is plan:
                await news.wait(QUIET_S)
        raise GatewayStopping("this gateway stops: watch again, on another one if any")

    def _in_service(self, plan: Plan) -> list[pb.Release]:
        """Releases with a role, and those whose reason is remembered, newest first."""
        numbers = plan.in_service | plan.reasons.keys()
        return [self._message(number, plan) for number in sorted(numbers, reverse=True)]

    def _message(self, number: int, plan: Plan) -> pb.Release:
        role, share = plan.role_of(number)
        message = pb.Release(
            release=number,
            role=pb.ReleaseRole.ValueType(role),
            traffic=share,
            reason=plan.reasons.get(number, ""),
        )
        try:
            manifest = Manifest.read(self._repository, number)
        except ManifestError:
            # It may have been removed since; how it stands is worth telling all the same.
            return message
        message.metrics.update(_flat(manifest.metrics))
        message.publish_time.FromDatetime(datetime.fromisoformat(manifest.created))
        return message


def _check_release(checks: Checks, release: int) -> None:
    if release < 1:
        checks.found("release", "is required: the number of a release, from 1")


def _flat(metrics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Nested metrics as dotted names: retrieval.ndcg_at_10."""
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, int | float):
            yield f"{prefix}{name}", float(value)
