"""Stores moved into others while they are in use, and states computed anew."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from server.errors import StoreUnavailable
from server.state.alarms import Settlement, Span
from server.state.data_keys import DataKeys, MasterKeys
from server.state.keyring import SqliteKeyring
from server.state.keys import Key
from server.state.migrate import Journal, Migration, MigrationError
from server.state.pseudonyms import PseudonymousVault
from server.state.rebuilding import Rebuilt, logged_users, rebuild
from server.state.redis import RedisStore
from server.state.sealed_vault import SealedVault
from server.state.sqlite import SqliteStore
from server.state.sqlite_file import opened
from server.state.store import (
    Interaction,
    InterestRecord,
    RelationRecord,
    Rollout,
    Store,
    WriteOutcome,
)
from server.state.vault import Vault
from tests.harness.redis import RedisServer
from tests.harness.state import records
from tests.suites.store_suite import (
    DAY_US,
    START_US,
    assert_same_traces,
    deed,
    faded,
    item,
    some_log,
    traces_in,
    traces_of,
)

FOR_EVER = 2**62
NOW_US = START_US + 400 * DAY_US
USERS = [f"user-{n:02}" for n in range(30)]

Make = Callable[..., Store]
_names = count()


@pytest.fixture
def make(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes stores, each with a vault and a place of its own."""
    with ExitStack() as stack:

        def vault(kind: str, name: str) -> Vault | None:
            if kind == "plain":
                return None
            masters = MasterKeys([Key(1, bytes(range(32)))], os.urandom)
            keyring = SqliteKeyring(tmp_path / f"{name}.keys", os.urandom)
            keys = DataKeys(keyring, masters, os.urandom, time.monotonic)
            sealing = stack.enter_context(closing(SealedVault(keys, os.urandom)))
            return PseudonymousVault(sealing, Key(next(_names), os.urandom(32)))

        def make_it(engine: str = "sqlite", keys: str = "plain") -> Store:
            name = f"moved-{next(_names)}"
            kept = records(vault=vault(keys, name))
            if engine == "sqlite":
                return stack.enter_context(closing(SqliteStore(tmp_path / f"{name}.db", kept)))
            server: RedisServer = request.getfixturevalue("redis_server")
            url = f"{server.url}?name={name}"
            return stack.enter_context(closing(RedisStore(url, kept)))

        yield make_it


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.json"


def everybodys_log() -> list[Interaction]:
    """Events of all users."""
    chance = random.Random(7)
    return [
        deed(
            f"event-{n:04}",
            chance.choice(USERS),
            f"item-{chance.randrange(20)}",
            chance.uniform(0, 300),
            ((f"interest-{chance.randrange(5)}", chance.uniform(0.1, 2)), ("all", 1.0)),
            chance.choice([0.0, 1.0, 2.0]),
        )
        for n in range(600)
    ]


def fill(store: Store) -> None:
    """Everything that a store may hold."""
    for n in range(0, 600, 50):
        store.append(everybodys_log()[n : n + 50])
    alarms = store.alarms.due(START_US, 0, 20)
    settlements = [
        Settlement(
            one.owner, one.version, b"told", START_US + n, [faded(one.user_id, f"interest {n}")]
        )
        for n, one in enumerate(alarms)
    ]
    assert all(store.alarms.settle(settlements, START_US))
    assert store.alarms.prune(START_US + 1, 3) == 3
    store.write_items([item(f"item-{n}", body=b"%d" % n) for n in range(20)])
    store.write_interests([InterestRecord(f"interest-{n}", b"about") for n in range(5)])
    store.write_relations([RelationRecord(USERS[n], USERS[n + 1], b"knows") for n in range(20)])
    store.write_relations([RelationRecord(USERS[0], "nobody", b"knows")])
    for version in range(1, 4):
        assert store.write_rollout(Rollout(version, b"rollout %d" % version))
    store.delete_user(USERS[0], "receipt", START_US + 100 * DAY_US)
    store.delete_user("stranger", "another receipt", START_US)


def moving(
    source: Store,
    target: Store,
    journal: Path | None = None,
    told: Callable[..., None] | None = None,
) -> Migration:
    notes = Journal(journal, source.alarms.store_id, "target")
    return Migration(source, target, notes, told or (lambda *_: None), time.sleep)


def require_alike(source: Store, target: Store) -> None:
    """Fail unless both tell the same of everything."""
    assert target.alarms.store_id == source.alarms.store_id
    assert target.size()[:2] == source.size()[:2]
    for user in (*USERS, "stranger", "nobody"):
        one, other = source.user(user), target.user(user)
        assert (one is None) == (other is None)
        if one and other:
            assert_same_traces(traces_in(source, user), traces_in(target, user))
            assert (one.told, one.due_us) == (other.told, other.due_us)
        assert list(source.events_of(user)) == list(target.events_of(user))
        assert source.deletion(user) == target.deletion(user)
        relations = (store.relations_with(user) for store in (source, target))
        assert len({tuple(sorted(map(str, some))) for some in relations}) == 1
    assert source.list_items("", 99) == target.list_items("", 99)
    assert source.list_interests("", 99) == target.list_interests("", 99)
    assert source.rollout() == target.rollout()
    assert source.alarms.span() == target.alarms.span()
    assert source.alarms.transitions(0, 99) == target.alarms.transitions(0, 99)


ROUTES = [
    ("sqlite", "plain", "sqlite", "plain"),
    ("sqlite", "plain", "sqlite", "sealed"),
    ("sqlite", "sealed", "sqlite", "sealed"),
    ("sqlite", "sealed", "sqlite", "plain"),
    ("sqlite", "plain", "redis", "plain"),
    ("redis", "plain", "sqlite", "plain"),
    ("redis", "sealed", "sqlite", "sealed"),
]


@pytest.mark.parametrize("route", ROUTES, ids="-".join)
def test_a_store_moves_with_everything(make: Make, route: tuple[str, str, str, str]) -> None:
    source, target = make(*route[:2]), make(*route[2:])
    fill(source)
    move = moving(source, target)
    move.copy(NOW_US)
    assert move.verify() == source.size().users
    require_alike(source, target)
    # Deletions go on, and so do events and transitions.
    assert (
        target.append([deed("late", USERS[0]), deed("late too", "stranger")])
        == [WriteOutcome.USER_DELETED] * 2
    )
    assert target.append(everybodys_log()[-9:]) == source.append(everybodys_log()[-9:])
    (alarm,) = target.alarms.due(FOR_EVER, 1, 0)
    settlement = Settlement(alarm.owner, alarm.version, b"", None, [faded(alarm.user_id)])
    assert target.alarms.settle([settlement], NOW_US) == [True]
    assert target.alarms.transitions(source.alarms.span().newest, 9) == [
        (source.alarms.span().newest + 1, faded(alarm.user_id))
    ]


def test_items_are_as_popular_as_the_log_says(make: Make) -> None:
    source, target = make(), make()
    source.append(everybodys_log())
    moving(source, target).copy(NOW_US)
    assert target.popular(99) == source.popular(99) != []


def test_moving_again_changes_nothing(make: Make) -> None:
    source, target = make(), make()
    fill(source)
    for _ in range(2):
        moving(source, target).copy(NOW_US)
        require_alike(source, target)


class Interrupted(Exception):
    """The move is ended."""


@pytest.mark.parametrize("with_journal", [True, False])
def test_a_move_that_was_ended_goes_on(
    make: Make, journal: Path, with_journal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it was: nothing is lost, nothing counted twice."""
    monkeypatch.setattr("server.state.migrate.EVENTS_AT_ONCE", 70)
    monkeypatch.setattr("server.state.migrate.USERS_AT_ONCE", 7)
    source, target = make(), make()
    fill(source)
    chance, ended, read = random.Random(3), 0, []

    def end(*_: object) -> None:
        if chance.random() < 0.2:
            raise Interrupted

    while True:
        move = moving(source, target, journal if with_journal else None, end)
        try:
            move.copy(NOW_US)
        except Interrupted:
            ended += 1
            continue
        finally:
            read.append(move.events)
        break
    assert ended > 2
    if with_journal:
        assert sum(read) == source.size().events
    require_alike(source, target)


def test_the_journal_of_another_target_counts_for_nothing(make: Make, journal: Path) -> None:
    source, first, second = make(), make(), make()
    fill(source)
    moving(source, first, journal).copy(NOW_US)
    moving(source, second, journal).copy(NOW_US)
    require_alike(source, second)


def test_events_come_while_it_moves(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every step of it; each is counted once, and told states are those of the log."""
    monkeypatch.setattr("server.state.migrate.EVENTS_AT_ONCE", 50)
    monkeypatch.setattr("server.state.migrate.USERS_AT_ONCE", 3)
    source, target = make(), make()
    fill(source)
    # What they count the log has lost in part.
    source.prune_events(START_US + 150 * DAY_US, 1000)
    chance, numbers = random.Random(5), count()

    def write(*_: object) -> None:
        user = chance.choice(USERS)
        source.append([deed(f"live-{next(numbers)}", user, "item-1", chance.uniform(300, 350))])
        for one in source.alarms.due(FOR_EVER, 1, 1):
            settlement = Settlement(
                one.owner, one.version, b"new", START_US, [faded(one.user_id, "live")]
            )
            source.alarms.settle([settlement], START_US)

    moving(source, target, told=write).copy(NOW_US)
    assert next(numbers) > 10
    in_step = [u for u in USERS if list(source.events_of(u)) == list(target.events_of(u))]
    assert len(in_step) > len(USERS) - 5
    for user in in_step:
        if source.user(user) is not None:
            assert_same_traces(traces_in(source, user), traces_in(target, user))
    last = moving(source, target)
    last.copy(NOW_US)
    last.verify()
    require_alike(source, target)


def test_users_are_deleted_while_it_moves(make: Make) -> None:
    source, target = make(), make("sqlite", "sealed")
    fill(source)
    move = moving(source, target)
    move.copy(NOW_US)
    gone, back = USERS[3], USERS[4]
    source.write_relations([RelationRecord("only related", USERS[5], b"")])
    move.copy(NOW_US)
    for user in (gone, back, "only related"):
        source.delete_user(user, f"receipt of {user}", START_US + 310 * DAY_US)
    # The id of an event of someone who was deleted is taken again.
    reused = next(one.event_id for one in everybodys_log() if one.user_id == gone)
    source.append([deed("returned", back, days=320), deed(reused, back, days=330, body=b"new")])
    move.copy(NOW_US)
    assert target.user(gone) is None
    assert [one.event_id for one in target.events_of(back)] == ["returned", reused]
    move.verify()
    require_alike(source, target)


def test_what_the_catalogue_has_lost_goes(make: Make) -> None:
    source, target = make(), make()
    fill(source)
    move = moving(source, target)
    move.copy(NOW_US)
    source.delete_item("item-7")
    source.write_items([item("item-8", body=b"new")])
    source.write_rollout(Rollout(4, b"newest"))
    move.copy(NOW_US)
    require_alike(source, target)


def test_all_transitions_may_be_forgotten(make: Make) -> None:
    source, target = make(), make()
    fill(source)
    source.alarms.prune(FOR_EVER, 1000)
    moving(source, target).copy(NOW_US)
    assert target.alarms.span() == source.alarms.span() == Span(21, 20)


def test_a_target_that_holds_something_else(make: Make) -> None:
    source, target = make(), make()
    source.append([deed("a")])
    target.append([deed("b", "bob")])
    with pytest.raises(StoreUnavailable, match="not empty"):
        moving(source, target)
    assert traces_in(target, "bob") is not None


def test_what_differs_is_found(make: Make, journal: Path) -> None:
    source, target = make(), make()
    fill(source)
    move = moving(source, target, journal)
    move.copy(NOW_US)
    source.append([deed("more", days=500)])
    with pytest.raises(MigrationError, match="run it again"):
        move.verify()
    move.copy(NOW_US)
    move.verify()
    record = target.user(USERS[3])
    assert record is not None
    target.write_users([record._replace(told=b"otherwise")])
    with pytest.raises(MigrationError, match="a user differs"):
        move.verify()


def test_events_the_target_has_lost_are_missed(make: Make, journal: Path) -> None:
    source, target = make(), make()
    fill(source)
    move = moving(source, target, journal)
    move.copy(NOW_US)
    target.prune_events(START_US + 30 * DAY_US, 1000)
    with pytest.raises(MigrationError):
        move.verify()


# States computed anew.


def damage(path: Path, chance: random.Random) -> tuple[set[str], set[str]]:
    """Damage states of users, and remove some; which are damaged, and which are gone."""
    with closing(opened(path)) as db:
        owners = [str(owner) for (owner,) in db.execute("SELECT owner FROM users")]
        chosen = chance.sample(owners, 12)
        for owner in chosen[:6]:
            state = bytearray(
                next(db.execute("SELECT state FROM users WHERE owner = ?", (owner,)))[0]
            )
            state[chance.randrange(len(state))] ^= 1 << chance.randrange(8)
            db.execute("UPDATE users SET state = ? WHERE owner = ?", (bytes(state), owner))
        for owner in chosen[6:]:
            db.execute("DELETE FROM users WHERE owner = ?", (owner,))
    return set(chosen[:6]), set(chosen[6:])


@pytest.mark.parametrize("seed", range(3))
def test_states_are_computed_anew_from_the_log(tmp_path: Path, seed: int) -> None:
    path, chance = tmp_path / "state.db", random.Random(seed)
    logs = {
        user: [
            replace(one, event_id=f"{user}-{one.event_id}", user_id=user)
            for one in some_log(100 * seed + n, 40)
        ]
        for n, user in enumerate(USERS)
    }
    with closing(SqliteStore(path, records())) as store:
        for log in logs.values():
            store.append(log)
        for one in store.alarms.due(FOR_EVER, 0, 99):
            store.alarms.settle([Settlement(one.owner, one.version, b"told", 5)], START_US)
    damaged, gone = damage(path, chance)
    with closing(SqliteStore(path, records())) as store:
        for user in damaged:
            with pytest.raises(StoreUnavailable):
                store.states([user])
        told: list[int] = []
        done = rebuild(store, logged_users(store), lambda so_far: told.append(so_far.users))
        assert done == Rebuilt(users=30, differed=12)
        assert told == list(range(1, 31))
        for user, log in logs.items():
            assert_same_traces(traces_in(store, user), traces_of(log))
            record = store.user(user)
            assert record is not None
            assert record.told == (b"" if user in gone else b"told")
        assert rebuild(store, logged_users(store)) == Rebuilt(users=30)
        assert store.check().whole
        assert store.size().users == 30 + len(gone)  # rows were removed behind its back


def test_states_that_count_what_the_log_has_lost_are_left(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "state.db", records())) as store:
        log = [deed(f"e{n}", days=n) for n in range(6)]
        store.append([*log, deed("young", "bob", days=5)])
        store.prune_events(log[3].time_us, 10)
        assert rebuild(store, ["ann", "bob", "nobody"]) == Rebuilt(users=3, left=1)
        assert_same_traces(traces_in(store), traces_of(log))


def test_users_whose_events_cannot_be_read_are_left(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with closing(SqliteStore(path, records())) as store:
        store.append([deed("a"), deed("b", "bob"), deed("c", "bob", days=1)])
        before = store.user("bob")
    with closing(opened(path)) as db:
        db.execute("UPDATE events SET value = x'00' WHERE event_id = 'b'")
    with closing(SqliteStore(path, records())) as store:
        assert rebuild(store, logged_users(store)) == Rebuilt(users=2, unreadable=1)
        assert store.user("bob") == before
