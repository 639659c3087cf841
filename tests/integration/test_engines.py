"""Whole gateways on every kind of state: a Redis, a Cluster, a file whose values are sealed."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ebbing.client import Client, EbbingError
from ebbing.interest.profile import interest_vectors
from ebbing.interest.trace import TraceTable
from ebbing.v1.catalog_service_pb2 import Relation
from server.state.keys import new_key_file
from tests.harness.gateway import StartGateway, catalogue, events
from tests.harness.redis import RedisCluster, RedisServer
from tests.harness.release import LOG, TinyRelease
from trainer.data.simulate import PROTAGONIST

END = LOG.end
Kept = dict[str, Any]
"""Settings that say where and how state is kept."""


@pytest.fixture(params=["redis", "redis-cluster", "sealed-file"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Kept:
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        return {"state": f"{server.url}?name=engines"}
    if request.param == "redis-cluster":
        cluster: RedisCluster = request.getfixturevalue("redis_cluster")
        return {"state": f"{cluster.url}?name=engines"}
    for name in ("master", "pseudonym"):
        new_key_file(tmp_path / f"{name}.key", os.urandom(32))
    return {
        "state": tmp_path / "sealed.db",
        "master_key_file": tmp_path / "master.key",
        "pseudonym_key_file": tmp_path / "pseudonym.key",
    }


def together(*tasks: Callable[[], None]) -> None:
    failures: list[BaseException] = []

    def run(task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_two_gateways_on_one_state(
    start_gateway: StartGateway, release: TinyRelease, kept: Kept
) -> None:
    log = events(release.simulation)
    shuffled = random.Random(3).sample(log, len(log))
    one, other = start_gateway(**kept), start_gateway(**kept)
    with one.client() as here, other.client() as there:
        here.write_items(catalogue(release.simulation))
        half = len(log) // 2

        def write(client: Client, some: list[Any]) -> None:
            for start in range(0, len(some), 200):
                client.write_events(some[start : start + 200])

        # Out of order, by two gateways at once, a good part of it twice.
        together(
            lambda: write(here, shuffled[: half + 300]),
            lambda: write(there, shuffled[half - 300 :]),
        )
        assert there.write_events(log[:100]).duplicate_count == 100
        times = [one.event_time.ToMicroseconds() / 1e6 for one in log]
        mine = [n for n, one in enumerate(log) if one.user_id == PROTAGONIST]
        profiles = [client.interest_profile(PROTAGONIST, END) for client in (here, there)]
        assert [profile.event_count for profile in profiles] == [len(mine)] * 2
        assert profiles[0].interests == profiles[1].interests
        about = dict(
            zip(release.simulation.log.item_ids, release.simulation.log.interests, strict=True)
        )
        traces = TraceTable.from_events(
            (times[n], 1.0, dict(about[log[n].item_id]).items()) for n in mine
        )
        assert {i.interest: i.event_count for i in profiles[0].interests} == dict(
            zip(traces.names, traces.count.tolist(), strict=True)
        )
        strength = interest_vectors(traces, END).blended
        ratios = [
            i.strength / strength[traces.names.index(i.interest)] for i in profiles[0].interests
        ]
        assert ratios == pytest.approx([ratios[0]] * len(ratios), rel=1e-9)
        slate = there.recommend(PROTAGONIST, at=END)
        assert slate.items
        assert not slate.degraded

        here.write_relations([Relation(user_id=PROTAGONIST, other_user_id="friend")])
        receipt = there.delete_user_data(PROTAGONIST)
        assert receipt.deleted_event_count == len(mine)
        assert here.delete_user_data(PROTAGONIST) == receipt
        with pytest.raises(EbbingError, match="no event of this user"):
            here.interest_profile(PROTAGONIST, END)
        late = here.write_events([log[mine[0]]])
        assert late.rejected_count == 1
        assert late.notable[0].reason == "USER_DELETED"
        assert [list(client.list_relations(PROTAGONIST)) for client in (here, there)] == [[], []]
