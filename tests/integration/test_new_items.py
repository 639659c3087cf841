"""A new item is recommended by models that have never seen it, on a real gateway and Triton."""

from __future__ import annotations

import time

import pytest

from ebbing.client import Client, catalog_item
from ebbing.v1 import recommendation_service_pb2 as pb
from tests.harness.release import LOG, TinyRelease

PATIENCE_S = 60


@pytest.fixture
def baker(client: Client, release: TinyRelease) -> str:
    """A user of the test's own who bakes."""
    baked = [item for item in release.simulation.log.item_ids if item.startswith("baking")]
    for n, item in enumerate(baked[:6]):
        client.write_event("newly-baker", "like", LOG.end - 86400 * (n + 1), item_id=item)
    return "newly-baker"


def test_a_new_item_is_recommended_without_training(client: Client, baker: str) -> None:
    client.write_items([catalog_item("cake-never-seen", {"cooking/baking": 1.0})])

    def sources() -> dict[str, int]:
        slate = client.recommend(baker, LOG.end, page_size=100)
        assert not slate.degraded
        return {item.item_id: item.source for item in slate.items}

    for _ in range(20 * PATIENCE_S):
        if "cake-never-seen" in (found := sources()):
            break
        time.sleep(0.05)
    else:
        pytest.fail(f"not even after {PATIENCE_S} s")
    assert found["cake-never-seen"] == pb.CANDIDATE_SOURCE_FRESH
    assert len(found) > 10
    client.delete_item("cake-never-seen")
    for _ in range(20 * PATIENCE_S):
        if "cake-never-seen" not in sources():
            return
        time.sleep(0.05)
    pytest.fail("a deleted item is still recommended")
