"""The store in Redis: the suite of every store, and what only servers and several gateways do."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from ebbing.history import item_key
from server.errors import StorageFull, StoreUnavailable
from server.state import redis_append
from server.state.alarms import Settlement
from server.state.redis import RedisStore
from server.state.redis_alarms import RedisAlarms
from server.state.redis_append import Append
from server.state.redis_link import Address
from server.state.redis_scripts import APPEND
from server.state.store import (
    Deletion,
    RelationRecord,
    Tombstone,
    WriteOutcome,
    item_heat,
    tombstone_digest,
)
from tests.harness.redis import RedisCluster, RedisServer, lose_answers
from tests.harness.state import records
from tests.harness.triton import free_ports
from tests.suites.store_suite import (
    START_US,
    OpenStore,
    StoreSuite,
    assert_same_traces,
    deed,
    faded,
    some_log,
    traces_in,
    traces_of,
)

ACCEPTED, DUPLICATE, ID_REUSED, USER_DELETED = WriteOutcome
_names = count()


@pytest.fixture
def url(redis_server: RedisServer) -> str:
    """A store of its own."""
    return f"{redis_server.url}?name=store-{next(_names)}"


@pytest.fixture
def open_redis(url: str) -> Iterator[OpenStore]:
    """Opens it, as often as is asked for."""
    with ExitStack() as opened:

        def open_it(**kept: Any) -> RedisStore:
            return opened.enter_context(closing(RedisStore(url, records(**kept))))

        yield open_it


class TestRedisStore(StoreSuite):
    @pytest.fixture
    def open_store(self, open_redis: OpenStore) -> OpenStore:
        return open_redis


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Starts servers of one's own."""
    with ExitStack() as stack:

        def start_it(**options: str) -> RedisServer:
            (port,) = free_ports(1)
            return stack.enter_context(RedisServer(tmp_path / str(port), port, **options))

        yield start_it


def refused(url: str, words: str, **options: Any) -> None:
    """The store does not open, says why, and does not say where it is."""
    with pytest.raises(StoreUnavailable, match=words) as error:
        RedisStore(url, records(), patience_s=0.2, **options)
    assert "127.0.0.1" not in str(error.value)
    assert "secret" not in str(error.value)


# Servers that cannot hold a store.


@pytest.mark.parametrize(
    "url",
    [
        "",
        "redis",
        "http://127.0.0.1:1",
        "redis://",
        "redis://127.0.0.1:1,127.0.0.1:2",
        "redis+sentinel://127.0.0.1:1",
        "redis://{127.0.0.1}:1",
    ],
)
def test_addresses_that_are_none(url: str) -> None:
    refused(url, "address of the state server")


def test_an_address_is_taken_apart() -> None:
    one = Address.parse("rediss+cluster://me:secret@a:1,b:2?name=shop&ssl_ca_certs=/ca.pem")
    assert one.servers == ("a:1", "b:2")
    assert (one.cluster, one.name) == (True, "shop")
    assert one.template.format("c:3") == "rediss://me:secret@c:3?ssl_ca_certs=%2Fca.pem"


def test_a_server_that_is_not_there() -> None:
    (port,) = free_ports(1)
    refused(f"redis://127.0.0.1:{port}", "does not answer")
    refused(f"redis+cluster://127.0.0.1:{port}", "does not answer")


def test_a_server_that_forgets(start: Callable[..., RedisServer]) -> None:
    server = start(appendonly="no")
    refused(server.url, "appendonly yes")
    with closing(RedisStore(server.url, records(), volatile=True)) as store:
        assert store.append([deed("a")]) == [ACCEPTED]


def test_a_server_that_evicts(start: Callable[..., RedisServer]) -> None:
    refused(start(maxmemory_policy="allkeys-lru").url, "maxmemory-policy noeviction")


def test_a_server_that_wants_a_password(start: Callable[..., RedisServer]) -> None:
    server = start(requirepass="secret")
    refused(f"redis://127.0.0.1:{server.port}", "user, password")
    refused(f"redis://:wrong@127.0.0.1:{server.port}", "user, password")
    with closing(RedisStore(f"redis://:secret@127.0.0.1:{server.port}", records())) as store:
        assert store.append([deed("a")]) == [ACCEPTED]


def test_one_of_a_cluster_alone(redis_cluster: RedisCluster, redis_server: RedisServer) -> None:
    master, replica = redis_cluster.servers[0], redis_cluster.servers[-1]
    refused(master.url, r"redis\+cluster://")
    refused(replica.url, "replica")
    refused(f"redis+cluster://127.0.0.1:{redis_server.port}", "does not answer|refused")


def test_a_store_of_another_version_or_with_other_keys(
    open_redis: OpenStore, url: str, redis_server: RedisServer
) -> None:
    open_redis()
    name = url.partition("name=")[2]
    facts = f"{{{name}}}facts"
    redis_server.client.hset(facts, "vault", "sealed:other")
    refused(url, "written with other keys")
    redis_server.client.hset(facts, mapping={"vault": "plain", "schema": "99"})
    refused(url, "version 99")


def test_the_partitions_are_those_it_was_made_with(open_redis: OpenStore, url: str) -> None:
    open_redis().append([deed("a")])
    with closing(RedisStore(url, records(), partitions=3)) as other:
        assert other.append([deed("a")]) == [DUPLICATE]


# Servers in trouble.


def test_a_full_server_refuses_writes_and_reads_go_on(start: Callable[..., RedisServer]) -> None:
    server = start(maxmemory="5mb")
    log = some_log(1, 40)
    with closing(RedisStore(server.url, records())) as store:
        store.append(log)
        bulk = [deed(f"bulk-{n}", f"user-{n}", body=bytes(100_000)) for n in range(60)]
        with pytest.raises(StorageFull, match="no room"):
            for one in bulk:
                store.append([one])
        with pytest.raises(StorageFull):
            store.append(bulk)
        assert_same_traces(traces_in(store), traces_of(log))
        assert len(list(store.events_of("ann"))) == 40
        server.client.config_set("maxmemory", "100mb")
        outcomes = store.append(bulk)
        assert set(outcomes) == {ACCEPTED, DUPLICATE}
        assert {one.event_id for one in store.log("", 1000)[0]} == {
            one.event_id for one in (*log, *bulk)
        }


def test_room_is_made_by_deleting_from_a_full_server(start: Callable[..., RedisServer]) -> None:
    server = start(maxmemory="5mb")
    with closing(RedisStore(server.url, records())) as store:
        with pytest.raises(StorageFull):
            for n in range(60):
                store.append([deed(f"{n}", body=bytes(100_000))])
        assert store.delete_user("ann", "receipt", START_US).events > 0
        assert store.append([deed("new", days=1)]) == [ACCEPTED]


def test_a_server_that_comes_back_is_found_again(start: Callable[..., RedisServer]) -> None:
    server = start()
    with closing(RedisStore(server.url, records(), patience_s=0.3)) as store:
        assert store.append([deed("a")]) == [ACCEPTED]
        server.kill()
        with pytest.raises(StoreUnavailable, match="does not answer"):
            store.append([deed("b")])
        with pytest.raises(StoreUnavailable, match="does not answer"):
            store.states(["ann"])
        server.start()
        assert store.append([deed("a"), deed("b")]) == [DUPLICATE, ACCEPTED]


def test_a_server_that_hangs_holds_up_readers_for_a_moment(
    start: Callable[..., RedisServer],
) -> None:
    server = start()
    with closing(RedisStore(server.url, records())) as store:
        store.append([deed("a")])
        began = time.monotonic()
        server.signal(signal.SIGSTOP)
        try:
            with pytest.raises(StoreUnavailable):
                store.states(["ann"])
        finally:
            server.signal(signal.SIGCONT)
        assert time.monotonic() - began < 5  # of which it waits one or two
        assert traces_in(store) is not None


def test_scripts_that_were_forgotten_are_learnt_again(
    open_redis: OpenStore, redis_server: RedisServer
) -> None:
    store = open_redis()
    for n in range(3):
        redis_server.client.script_flush()
        assert store.append([deed(f"{n}")]) == [ACCEPTED]


def test_an_append_whose_answer_is_lost_is_known_for_its_own(
    open_redis: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_redis()
    store.append([deed("a")])
    lost = lose_answers(monkeypatch, APPEND.sha)
    group = [deed("a"), deed("b", days=1), deed("b", days=1), deed("c", "bob")]
    assert store.append(group) == [DUPLICATE, ACCEPTED, DUPLICATE, ACCEPTED]
    assert lost
    assert_same_traces(traces_in(store), traces_of([deed("a"), deed("b", days=1)]))
    assert store.append(group) == [DUPLICATE] * 4


def test_popularity_is_counted_with_the_event(
    open_redis: OpenStore, url: str, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, name = open_redis(), url.partition("name=")[2]
    lost = lose_answers(monkeypatch, APPEND.sha)
    assert store.append([deed("a", item_id="i")]) == [ACCEPTED]
    assert lost
    heat = redis_server.client.zscore(f"{{{name}:heat}}items", str(item_key("i")))
    assert heat == pytest.approx(item_heat(START_US / 1e6, 1.0))


# Several gateways.


def test_gateways_lose_none_of_each_others_updates(open_redis: OpenStore) -> None:
    log = some_log(3, 300)
    stores = [open_redis() for _ in range(3)]

    def write(store: RedisStore, mine: Sequence[Any]) -> list[WriteOutcome]:
        return [
            outcome for n in range(0, len(mine), 3) for outcome in store.append(mine[n : n + 3])
        ]

    # Each third goes through two gateways at once.
    shares = [log[0:200], log[100:300], log[200:300] + log[0:100]]
    with ThreadPoolExecutor(3) as pool:
        outcomes = [one for done in pool.map(write, stores, shares) for one in done]
    assert outcomes.count(ACCEPTED) == 300
    assert outcomes.count(DUPLICATE) == 300
    assert_same_traces(traces_in(stores[0]), traces_of(log))
    assert len(list(stores[0].events_of("ann"))) == 300


def test_an_id_that_two_users_send_at_once_is_one_users(open_redis: OpenStore) -> None:
    stores = [open_redis() for _ in range(2)]

    def write(n: int) -> list[WriteOutcome]:
        group = [deed(f"{i}", f"user-{n}", body=b"%d" % n) for i in range(200)]
        return [outcome for one in group for outcome in stores[n].append([one])]

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(write, range(2))
    assert {frozenset(pair) for pair in zip(one, other, strict=True)} == {
        frozenset([ACCEPTED, ID_REUSED])
    }


def between(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """Have something happen once, between reading and writing of an append."""
    write, happened = Append._write, []

    def late(self: Append, planned: Any) -> Any:
        if not happened:
            happened.append(True)
            happens()
        return write(self, planned)

    monkeypatch.setattr(Append, "_write", late)


def test_an_event_that_came_between_is_counted_too(
    open_redis: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = open_redis(), open_redis()
    between(monkeypatch, lambda: other.append([deed("b", days=1), deed("c", "bob")]))
    group = [deed("a"), deed("b", days=1), deed("d", "eve")]
    assert one.append(group) == [ACCEPTED, DUPLICATE, ACCEPTED]
    assert_same_traces(traces_in(one), traces_of(group[:2]))


@pytest.mark.parametrize("known", [True, False])
def test_a_deletion_that_came_between_holds(
    open_redis: OpenStore, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    one, other = open_redis(), open_redis()
    if known:
        one.append([deed("first")])
    between(monkeypatch, lambda: other.delete_user("ann", "receipt", START_US + 5))
    group = [deed("old"), deed("new", days=1), deed("bob's", "bob")]
    assert one.append(group) == [USER_DELETED, ACCEPTED, ACCEPTED]
    assert_same_traces(traces_in(one), traces_of([deed("new", days=1)]))
    # The id of what was refused is free.
    assert one.append([deed("old", "bob")]) == [ACCEPTED]


def test_who_comes_back_while_idle_users_go_is_kept(
    open_redis: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = open_redis(), open_redis()
    one.append([deed("old")])
    forget = RedisAlarms.forget

    def late(self: RedisAlarms, owner: str) -> bool:
        other.append([deed("new", days=100)])
        return forget(self, owner)

    monkeypatch.setattr(RedisAlarms, "forget", late)
    one.prune_users(START_US + 50 * 86_400_000_000, 10)
    assert_same_traces(traces_in(one), traces_of([deed("old"), deed("new", days=100)]))


def test_an_erasure_that_was_abandoned_is_finished(
    open_redis: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_append, "ABANDONED_S", 0.1)
    one = open_redis()
    one.append([deed("a")])
    vault = one._records.vault

    def dies(owner: str) -> None:
        raise StoreUnavailable("lost at this moment")

    monkeypatch.setattr(vault, "erase", dies)
    with pytest.raises(StoreUnavailable, match="lost at this moment"):
        one.delete_user("ann", "receipt", START_US)
    erased: list[str] = []
    other = open_redis()
    monkeypatch.setattr(other._records.vault, "erase", erased.append)
    assert other.append([deed("a"), deed("b", days=1)]) == [USER_DELETED, ACCEPTED]
    assert erased == ["ann"]


def test_a_deletion_that_was_abandoned_is_finished_by_deleting_again(
    open_redis: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_redis()
    store.append([deed("a")])
    vault = store._records.vault
    erased: list[str] = []

    def dies(owner: str) -> None:
        raise StoreUnavailable("lost at this moment")

    monkeypatch.setattr(vault, "erase", dies)
    with pytest.raises(StoreUnavailable):
        store.delete_user("ann", "first", START_US)
    monkeypatch.setattr(vault, "erase", erased.append)
    assert store.delete_user("ann", "second", START_US + 1).receipt_id == "first"
    assert store.delete_user("ann", "third", START_US + 2).receipt_id == "first"
    assert erased == ["ann"]


def test_what_one_gateway_told_and_did_not_number_another_one_does(
    open_redis: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = open_redis(), open_redis()
    with monkeypatch.context() as lost:
        lost.setattr(RedisAlarms, "_take", lambda *_, **__: False)
        for n in range(3):
            one.append([deed(f"{n}", days=n)])
            (ann,) = one.alarms.due(START_US, 10, 10)
            told = [faded(interest=f"{n}-{i}") for i in range(2)]
            assert one.alarms.settle([Settlement("ann", ann.version, b"", None, told)], 1) == [True]
        assert one.alarms.transitions(0, 100) == []
    seen = other.alarms.transitions(0, 100)
    assert [number for number, _ in seen] == [1, 2, 3, 4, 5, 6]
    assert [told.interest for _, told in seen] == ["0-0", "0-1", "1-0", "1-1", "2-0", "2-1"]
    for store in (one, other, open_redis()):
        assert store.alarms.transitions(0, 100) == seen
    assert other.alarms.transitions_of("ann") == [told for _, told in seen]


def test_gateways_that_number_at_once_number_each_once(open_redis: OpenStore) -> None:
    stores = [open_redis() for _ in range(3)]
    users = [f"user-{n}" for n in range(60)]
    stores[0].append([deed(user, user) for user in users])
    alarms = stores[0].alarms.due(START_US, 100, 100)

    def settle(n: int) -> None:
        for one in alarms[n::3]:
            told = [faded(one.user_id, f"{i}") for i in range(3)]
            settlement = Settlement(one.owner, one.version, b"", None, told)
            assert stores[n].alarms.settle([settlement], 1) == [True]
            stores[n].alarms.transitions(0, 1000)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(settle, range(3)))
    seen = stores[0].alarms.transitions(0, 1000)
    assert [number for number, _ in seen] == list(range(1, 181))
    told = [(one.user_id, one.interest) for _, one in seen]
    for user in users:
        assert [interest for whose, interest in told if whose == user] == ["0", "1", "2"]


# What is kept where.


def test_a_refused_body_leaves_the_id_to_its_owner(open_redis: OpenStore) -> None:
    store = open_redis()
    assert store.append([deed("a"), deed("a", body=b"other")]) == [ACCEPTED, ID_REUSED]
    assert store.append([deed("a", "bob")]) == [ID_REUSED]


def test_nothing_of_a_deleted_user_is_left(
    open_redis: OpenStore, url: str, redis_server: RedisServer
) -> None:
    store, user = open_redis(), "nobody-else"
    store.append([deed("bob's", "bob")])
    store.append([deed(f"{user}-{n}", user, "i", days=n, weight=n % 2) for n in range(5)])
    store.write_relations([RelationRecord(user, "bob", b""), RelationRecord("bob", user, b"")])
    (_, one) = store.alarms.due(START_US, 10, 10)
    told = [Settlement(one.owner, one.version, b"told", 5, [faded(user)])]
    assert store.alarms.settle(told, START_US) == [True]
    name = url.partition("name=")[2]

    def naming_the_user() -> set[bytes]:
        with closing(Redis("127.0.0.1", redis_server.port)) as client:
            keys = client.scan_iter(f"{{{name}:*", count=1000)
            return {key for key in keys if user.encode() in key + (client.dump(key) or b"")}

    kinds = {key.partition(b"}")[2].partition(b":")[0] for key in naming_the_user()}
    assert {b"user", b"events", b"ids", b"log", b"relations", b"from", b"of", b"newest"} < kinds
    store.delete_user(user, "receipt", START_US + 9 * 86_400_000_000)
    assert naming_the_user() == set()


def test_deletions_that_moved_here_are_known_wherever_the_user_would_be(
    open_redis: OpenStore,
) -> None:
    store = open_redis()
    users = [f"user-{n}" for n in range(20)]
    moved = [
        Tombstone(
            tombstone_digest(user, store.alarms.store_id),
            START_US + 10,
            Deletion(f"receipt of {user}", START_US + 5, 3, 1, 2),
        )
        for user in users
    ]
    store.write_deletions(moved)
    by_digest = sorted(moved)
    assert sorted(store.deletions("", 100)[0]) == by_digest
    assert store.append([deed(user, user) for user in users]) == [USER_DELETED] * 20
    assert [store.deletion(user) for user in users] == [one.deletion for one in moved]
    assert store.delete_user(users[0], "again", START_US + 20) == moved[0].deletion
    # Who comes back and is deleted once more has one deletion still, here or moved here.
    assert store.append([deed("back", users[1], days=1)]) == [ACCEPTED]
    newer = store.delete_user(users[1], "newer", START_US + 5)
    assert (newer.receipt_id, newer.events) == ("newer", 1)
    assert len(store.deletions("", 100)[0]) == 20
    store.write_deletions(moved)
    assert sorted(store.deletions("", 100)[0]) == by_digest
    met, after = [], ""
    while page := store.deletions(after, 3):
        if page[1] == after:
            break
        met += page[0]
        after = page[1]
    assert sorted(met) == by_digest
    assert store.prune_deletions(START_US + 6, 100) == 20
    assert store.deletions("", 100)[0] == []
