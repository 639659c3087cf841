"""``ebbing state`` beside real gateways: what an operator does on good and on bad days."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from ebbing.client import user_event
from ebbing.v1.user_event_pb2 import UserEvent
from server.state.sqlite import SqliteStore
from server.state.sqlite_wal import read_wal, wal_of
from tests.harness.gateway import (
    GatewayProcess,
    StartGateway,
    ran,
)
from tests.harness.redis import RedisServer
from tests.harness.release import LOG
from tests.harness.state import records
from tests.suites.store_suite import deed, some_log


def said(*arguments: object, **settings: object) -> str:
    """What a command says that succeeds."""
    done = ran(*arguments, **settings)
    assert done.returncode == 0, done.stderr
    return done.stdout


def complaint(*arguments: object, **settings: object) -> str:
    """The last line of a command that fails, which says why."""
    done = ran(*arguments, **settings)
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr + done.stdout
    line = done.stderr.splitlines()[-1]
    assert line.startswith("ebbing: ")
    return line.removeprefix("ebbing: ")


def event(n: int, body: str = "") -> UserEvent:
    return user_event(
        f"user-{n % 11}", "view", LOG.end - n, interests=["a"], query=body, event_id=f"e{n:06}"
    )


def written(gateway: GatewayProcess, numbers: range, body: str = "") -> None:
    with gateway.client() as client:
        answer = client.write_events([event(n, body) for n in numbers])
        assert answer.accepted_count == len(numbers)


def profiles(gateway: GatewayProcess) -> list[object]:
    """What a gateway tells of everybody."""
    with gateway.client() as client:
        told = [client.interest_profile(f"user-{n}", LOG.end + 60) for n in range(11)]
    return [
        (p.event_count, [(i.interest, round(i.retention, 9)) for i in p.interests]) for p in told
    ]


@contextmanager
def writing(gateway: GatewayProcess, start: int) -> Iterator[list[int]]:
    """Events are written all the while; their numbers."""
    over, acknowledged = threading.Event(), list[int]()

    def write() -> None:
        with gateway.client() as client:
            n = start
            while not over.is_set():
                assert client.write_events([event(n + k) for k in range(10)]).accepted_count == 10
                acknowledged.extend(range(n, n + 10))
                n += 10

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield acknowledged
    finally:
        over.set()
        writer.join()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


def test_a_bad_day(start_gateway: StartGateway, state: Path, tmp_path: Path) -> None:
    """A backup while events come; a crash and a damaged log; back from the backup."""
    gateway, backup = start_gateway(), tmp_path / "backup.db"
    written(gateway, range(500))
    with writing(gateway, 1000) as acknowledged:
        before = len(acknowledged)
        told = said("state", "backup", "--state", state, "--out", backup)
        after = len(acknowledged)
    assert "whole" in told
    with closing(SqliteStore(backup, records())) as copy:
        assert 500 + before <= copy.size().events <= 500 + after + 10
        count = copy.size().events
    assert "stop its gateways" in complaint("state", "restore", backup, "--state", state)

    numbers = iter(range(100_000, 10**6, 10))
    commits = 0
    while commits < 60 or read_wal(state, 4096).end < 400_000:
        written(gateway, range(n := next(numbers), n + 10), "x" * 900)
        commits += 1
    gateway.kill()
    log = bytearray(wal_of(state).read_bytes())
    log[read_wal(state, 4096).end - 200_000] ^= 1  # in some commit since the backup
    wal_of(state).write_bytes(log)
    refusal = complaint("serve", state=state, port=0, metrics_port=0)
    assert refusal.startswith(f"{state}: the write-ahead log of the state file is damaged")
    assert "damaged" in complaint("state", "check", "--state", state)
    assert wal_of(state).read_bytes() == log

    told = said("state", "restore", backup, "--state", state)
    assert f"{count:,} events restored" in told
    assert "it is not known who was deleted" in told
    (aside,) = (p for p in tmp_path.glob("state.db.replaced-*") if not p.name.endswith("-wal"))
    assert wal_of(aside).read_bytes() == log
    gateway.start()
    with gateway.client() as client:  # clients send again what they have
        again = client.write_events([event(n) for n in range(500)])
        assert again.duplicate_count == 500
    assert gateway.terminate() == 0

    assert "bytes of its write-ahead log cut" in said("state", "check", "--state", aside, "--cut")
    with closing(SqliteStore(aside, records())) as old:
        assert old.size().events >= count


def test_a_move_to_another_file_and_back_into_service(
    start_gateway: StartGateway, state: Path, tmp_path: Path
) -> None:
    gateway, target = start_gateway(), tmp_path / "target.db"
    moved = ("state", "migrate", "--from", state, "--to", target)
    moved = (*moved, "--journal", tmp_path / "journal.json")
    written(gateway, range(2000))
    with writing(gateway, 5000) as acknowledged:
        told = said(*moved)
        assert "run it again until little is new" in told
    assert "stop its gateways" in complaint(*moved, "--final")
    before = profiles(gateway)
    assert gateway.terminate() == 0
    last = said(*moved, "--final")
    assert "moved: 11 users are the same in both" in last
    assert not (tmp_path / "journal.json").exists()
    served = start_gateway(state=target)
    assert profiles(served) == before
    with served.client() as client:
        again = client.write_events([event(n) for n in acknowledged[-10:]])
        assert again.duplicate_count == 10
        assert client.write_events([event(9999)]).accepted_count == 1
    assert served.terminate() == 0


def test_redis_and_back(state: Path, tmp_path: Path, redis_server: RedisServer) -> None:
    with closing(SqliteStore(state, records())) as store:
        store.append(some_log(1, 200))
    url, out = f"{redis_server.url}?name=cli", tmp_path / "backup.db"
    journal = ("--journal", tmp_path / "journal.json")
    assert "moved: 1 users" in said(
        "state", "migrate", "--from", state, "--to", url, "--final", *journal
    )
    assert "1 users, 200 events" in said("state", "backup", "--state", url, "--out", out)
    assert "0 states differed" in said("state", "rebuild", "--state", url)
    assert "is no file" in complaint("state", "check", "--state", url)
    assert "whole" in said("state", "check", "--state", f"sqlite://{out}")


def test_keys_are_replaced_by_moving(state: Path, tmp_path: Path) -> None:
    old, new, target = tmp_path / "old.key", tmp_path / "new.key", tmp_path / "target.db"
    for file in (old, new):
        said("keys", "new", "--out", file)
    with closing(SqliteStore(state, records())) as store:
        store.append(some_log(1, 50))
    moved = ("state", "migrate", "--final", "--journal", tmp_path / "journal.json", "--from")
    hidden = ("--to-master-key-file", old, "--to-pseudonym-key-file", old)
    said(*moved, state, "--to", target, *hidden)
    assert b"sports" not in target.read_bytes()
    assert b"ann" not in target.read_bytes()
    assert "other keys" in complaint("state", "check", "--state", target)
    keys = {"master_key_file": old, "pseudonym_key_file": old}
    assert "whole" in said("state", "check", "--state", target, **keys)
    renewed, plain = tmp_path / "renewed.db", tmp_path / "plain.db"
    hidden = ("--to-master-key-file", new, "--to-pseudonym-key-file", new)
    shared = ("--to-keyring", f"{target}.keys")
    said_why = complaint(*moved, target, "--to", tmp_path / "x.db", *shared, **keys)
    assert "a keyring of its own" in said_why
    said(*moved, target, "--to", renewed, *hidden, **keys)
    keys = {"master_key_file": new, "pseudonym_key_file": new}
    said(*moved, renewed, "--to", plain, "--to-plain", **keys)
    with closing(SqliteStore(plain, records())) as store:
        assert sorted(one.event_id for one in store.events_of("ann")) == sorted(
            one.event_id for one in some_log(1, 50)
        )


def test_damaged_states_are_computed_anew(state: Path) -> None:
    with closing(SqliteStore(state, records())) as store:
        store.append([deed(f"e{n}", f"user-{n % 5}") for n in range(50)])
        sealed = store.user("user-3")
    assert sealed is not None
    data = state.read_bytes()
    at = data.index(b"user-3" + sealed.state)
    state.write_bytes(data[: at + 9] + bytes([data[at + 9] ^ 1]) + data[at + 10 :])
    assert "ebbing state rebuild" in complaint("state", "check", "--state", state)
    assert "damaged values in users" in complaint("serve", state=state, port=0, metrics_port=0)
    assert "1 states differed" in said("state", "rebuild", "--state", state, "--user", "user-3")
    assert "50 events" in said("state", "check", "--state", state)


def test_what_makes_no_sense(state: Path, tmp_path: Path) -> None:
    backup = ("state", "backup", "--out", tmp_path / "out.db", "--state")
    assert f"there is no {state}" in complaint(*backup, state)
    assert "setting state: " in complaint(*backup, "mysql://host/db")
    SqliteStore(state, records()).close()
    migrate = ("state", "migrate", "--from", state, "--to")
    assert "the same state" in complaint(*migrate, state)
    assert not (tmp_path / "out.db").exists()
    (tmp_path / "broken.json").write_text(json.dumps({"store_id": 3}))
    journal = ("--journal", tmp_path / "broken.json")
    assert "0 users" in said(*migrate, tmp_path / "target.db", *journal)
