"""ReleaseService: what is asked for reaches the rollout, and how the releases stand is told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ebbing.manifest import Manifest
from ebbing.v1 import release_service_pb2 as pb
from server.errors import GatewayStopping
from server.rollout.plan import Plan, Role, Trial
from server.rpc.releases import ReleaseServicer
from server.watch import News
from tests.unit.server.inference.fake_triton import MODELS, publish

CONTEXT: Any = None


class FakeRollout:
    """A plan that is what was asked for."""

    def __init__(self) -> None:
        self.plan = Plan().promoted(1, 10)
        self.news = News()

    async def try_release(self, release: int, role: Role, share: float) -> Plan:
        self.plan = self.plan.tried(Trial(release, role, share))
        return self.plan

    async def promote(self, release: int) -> Plan:
        self.plan = self.plan.promoted(release, 20)
        return self.plan

    async def roll_back(self, why: str, release: int) -> Plan:
        self.plan = self.plan.rolled_back(30, why, release)
        return self.plan


@pytest.fixture
def rollout() -> FakeRollout:
    return FakeRollout()


@pytest.fixture
def service(tmp_path: Path, rollout: Any) -> ReleaseServicer:
    for model in MODELS:
        (tmp_path / model).mkdir()
    for release in (1, 2, 3):
        publish(tmp_path, release, metrics={"retrieval": {"ndcg_at_10": 0.1 * release}})
    return ReleaseServicer(tmp_path, rollout)


def stands(releases: Any) -> list[tuple[int, str, float]]:
    names = pb.ReleaseRole.Name
    return [
        (one.release, names(one.role).removeprefix("RELEASE_ROLE_"), one.traffic)
        for one in releases
    ]


async def test_releases_are_listed_newest_first_with_what_they_are_for(
    service: ReleaseServicer, rollout: FakeRollout
) -> None:
    await rollout.try_release(2, Role.CANARY, 0.25)
    first = await service.ListReleases(pb.ListReleasesRequest(page_size=2), CONTEXT)
    assert stands(first.releases) == [(3, "IDLE", 0.0), (2, "CANARY", 0.25)]
    token = first.next_page_token
    rest = await service.ListReleases(pb.ListReleasesRequest(page_token=token), CONTEXT)
    assert stands(rest.releases) == [(1, "LIVE", 0.75)]
    assert rest.next_page_token == ""
    (live,) = rest.releases
    assert dict(live.metrics) == {"retrieval.ndcg_at_10": 0.1}
    assert live.publish_time.ToJsonString() == "2026-01-02T03:04:05Z"
    assert live.reason == "promoted"


async def test_a_published_release_waits_without_traffic(service: ReleaseServicer) -> None:
    answer = await service.PublishRelease(pb.PublishReleaseRequest(release=2), CONTEXT)
    assert stands([answer.release]) == [(2, "CANARY", 0.0)]


async def test_traffic_is_split_promoted_and_rolled_back(service: ReleaseServicer) -> None:
    split = await service.SetReleaseTraffic(
        pb.SetReleaseTrafficRequest(release=3, role=pb.RELEASE_ROLE_SHADOW, traffic=0.5), CONTEXT
    )
    assert stands(split.releases) == [(3, "SHADOW", 0.5), (1, "LIVE", 1.0)]
    promoted = await service.PromoteRelease(pb.PromoteReleaseRequest(release=3), CONTEXT)
    assert stands(promoted.releases) == [(3, "LIVE", 1.0), (1, "RETIRED", 0.0)]
    back = await service.RollBackRelease(
        pb.RollBackReleaseRequest(reason="worse", release=3), CONTEXT
    )
    assert stands(back.releases) == [(3, "IDLE", 0.0), (1, "LIVE", 1.0)]
    assert back.releases[0].reason == "rolled back: worse"


async def test_what_is_no_longer_published_is_told_as_far_as_it_is_known(
    service: ReleaseServicer, rollout: FakeRollout, tmp_path: Path
) -> None:
    (Manifest.folder(tmp_path, 1) / "manifest.json").unlink()
    answer = await service.PromoteRelease(pb.PromoteReleaseRequest(release=2), CONTEXT)
    assert stands(answer.releases) == [(2, "LIVE", 1.0), (1, "RETIRED", 0.0)]
    assert not answer.releases[1].HasField("publish_time")


async def test_watchers_see_how_things_stand_and_every_change(
    service: ReleaseServicer, rollout: FakeRollout
) -> None:
    watching = service.WatchReleases(pb.WatchReleasesRequest(), CONTEXT)
    assert stands((await anext(watching)).releases) == [(1, "LIVE", 1.0)]
    coming = asyncio.ensure_future(anext(watching))
    await asyncio.sleep(0)
    await rollout.promote(2)
    rollout.news.spread()
    assert stands((await coming).releases)[0] == (2, "LIVE", 1.0)
    # A change between two looks is not missed.
    await rollout.promote(3)
    assert stands((await anext(watching)).releases)[0] == (3, "LIVE", 1.0)
    ending = asyncio.ensure_future(anext(watching))
    await asyncio.sleep(0)
    rollout.news.close()
    with pytest.raises(GatewayStopping):
        await ending
