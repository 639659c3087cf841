"""The store in a Redis Cluster: the suite of every store, and what only a Cluster does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import count
from typing import Any

import pytest

from ebbing.history import item_key
from server.state.redis import RedisStore
from server.state.redis_script import Script
from server.state.redis_scripts import APPEND, CLAIM, HEAT
from server.state.store import WriteOutcome
from tests.harness.redis import RedisCluster, lose_answers
from tests.harness.state import records
from tests.suites.store_suite import OpenStore, StoreSuite, deed, traces_in

ACCEPTED, DUPLICATE, ID_REUSED, _ = WriteOutcome
_names = count()


@pytest.fixture
def open_cluster(redis_cluster: RedisCluster) -> Iterator[OpenStore]:
    """Opens a store of its own, as often as is asked for."""
    url = f"{redis_cluster.url}?name=store-{next(_names)}"
    with ExitStack() as opened:

        def open_it(**kept: Any) -> RedisStore:
            return opened.enter_context(closing(RedisStore(url, records(**kept))))

        yield open_it


class TestRedisClusterStore(StoreSuite):
    @pytest.fixture
    def open_store(self, open_cluster: OpenStore) -> OpenStore:
        return open_cluster


@pytest.mark.parametrize("script", [APPEND, CLAIM])
def test_an_append_whose_answer_is_lost_is_known_for_its_own(
    open_cluster: OpenStore, monkeypatch: pytest.MonkeyPatch, script: Script
) -> None:
    store = open_cluster()
    store.append([deed("a")])
    lost = lose_answers(monkeypatch, script.sha)
    group = [deed("a"), deed("b", days=1), deed("b", days=1), deed("c", "bob")]
    assert store.append(group) == [DUPLICATE, ACCEPTED, DUPLICATE, ACCEPTED]
    assert lost
    assert store.append(group) == [DUPLICATE] * 4


def test_popularity_is_never_counted_twice(
    open_cluster: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it keep an event from being acknowledged."""
    store = open_cluster()
    store.append([deed("a", item_id="i"), deed("b", item_id="j")])
    with monkeypatch.context() as losing:
        lost = lose_answers(losing, HEAT.sha)
        assert store.append([deed("c", item_id="i")]) == [ACCEPTED]
        assert lost
    store.append([deed("d", item_id="j"), deed("e", item_id="j", weight=0.5)])
    assert store.popular(10) == [item_key("j"), item_key("i")]


def test_an_id_is_one_users_whoever_sends_it_first(open_cluster: OpenStore) -> None:
    store = open_cluster()
    pairs = [(deed(f"{n}", "ann"), deed(f"{n}", "bob", body=b"bob's")) for n in range(50)]
    outcomes = store.append([one for pair in pairs for one in pair])
    assert outcomes == [ACCEPTED, ID_REUSED] * 50


def test_a_failure_midway_leaves_ids_to_others(open_cluster: OpenStore) -> None:
    store = open_cluster()
    with pytest.raises(ValueError, match="finite"):
        store.append([deed("a"), deed("bad", weight=float("inf"))])
    assert store.append([deed("a", "bob")]) == [ACCEPTED]


def test_a_hash_slot_that_moves_is_followed(
    open_cluster: OpenStore, redis_cluster: RedisCluster
) -> None:
    """Whoever asks for keys that are being handed on, or were, finds them."""
    store = open_cluster()
    log = [deed(f"{n}", f"user-{n}", f"i{n % 3}", days=n) for n in range(100)]
    store.append(log[:50])
    partition = store._keys.of("user-0")
    store.append([deed("new", "user-0", days=200)])
    with redis_cluster.moving(partition.slot):
        known = [one for one in log[:50] if store._keys.of(one.user_id) == partition]
        for one in known:
            assert traces_in(store, one.user_id) is not None
    store.append(log[50:])
    assert store.append(log) == [DUPLICATE] * 100
    assert store.size().events == 101
