"""Flipped bits and torn tails of a state file: whatever is told is what was written, or it is told
that the file is damaged."""

from __future__ import annotations

import os
import random
import shutil
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest

from ebbing.client import AsyncClient, EbbingError
from server.errors import StoreUnavailable
from server.state.alarms import Settlement, Transition
from server.state.open import StateCheck, open_checked
from server.state.sqlite_file import opened
from server.state.store import Interaction, InterestRecord, RelationRecord, Store, WriteOutcome
from tests.harness.faults import RETURNING, Journal, Profile, miscounted, open_store
from tests.harness.gateway import StartGateway
from tests.harness.state import records
from tests.suites.store_suite import START_US, deed, item

SEED = 3
USERS = tuple(f"user-{n:02d}" for n in range(40))
COMMITS = 30
FOR_EVER = 2**62
WAL_HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
PAGE_BYTES = 4096

Facts = dict[str, object]


@dataclass(frozen=True)
class Kept:
    """A state file, its write-ahead log, and what they tell."""

    state: Path
    """After all commits; the last ``COMMITS`` are in its write-ahead log alone."""
    whole: Path
    """The same without a write-ahead log."""
    logs: list[list[Interaction]]
    """All events after each of the last commits, and before the first of them."""
    facts: list[Facts]
    """What was known then."""

    @property
    def log(self) -> list[Interaction]:
        """All events."""
        return self.logs[-1]


def wal_of(state: Path) -> Path:
    """The write-ahead log of a state file."""
    return state.with_name(f"{state.name}-wal")


def asked(store: Store) -> Iterator[tuple[str, Callable[[], object]]]:
    """All that a store can be asked for, by name."""

    def state(user: str) -> object:
        (found,) = store.states([user])
        if found is None:
            return None
        traces = found.traces
        arrays = (traces.times, traces.open_sums, traces.closed_sums, traces.occasion_maps)
        return traces.rows, [a.tolist() for a in (*arrays, *found.history)]

    for user in USERS:
        yield f"state of {user}", lambda user=user: state(user)
        yield f"events of {user}", lambda user=user: list(store.events_of(user))
        yield f"relations of {user}", lambda user=user: store.list_relations(user, "", 100)
        yield f"first event of {user}", lambda user=user: store.first_engagement_us(user)
    yield "popular items", lambda: store.popular(100)
    yield "items", lambda: store.list_items("", 1000)
    yield "interests", lambda: store.list_interests("", 1000)
    yield "transitions", lambda: store.alarms.transitions(0, 1000)
    yield "span", store.alarms.span
    yield "next alarm", store.alarms.next_due_us
    yield "rollout", store.rollout
    yield "id", lambda: store.alarms.store_id


def facts_of(store: Store) -> Facts:
    """What an undamaged store tells."""
    return {name: ask() for name, ask in asked(store)}


def some_events(chance: random.Random, count: int, prefix: str) -> list[Interaction]:
    paths = ["sports", "sports/football", "music", "music/jazz", "küche"]
    return [
        deed(
            f"{prefix}-{n}",
            chance.choice(USERS),
            f"item-{chance.randrange(30)}",
            chance.uniform(0, 300),
            tuple((path, chance.uniform(0.1, 3)) for path in chance.sample(paths, 2)),
            chance.choice([0.0, 1.0, 2.0]),
        )
        for n in range(count)
    ]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    chance, folder = random.Random(SEED), tmp_path_factory.mktemp("kept")
    path = folder / "open.db"
    first = open_store(path)
    log = some_events(chance, 400, "first") + [deed(user, user) for user in USERS]
    first.append(log)
    first.write_items([item(f"item-{n}", body=chance.randbytes(200)) for n in range(30)])
    first.write_interests([InterestRecord(name, b"about it") for name in ("sports", "music")])
    first.write_relations([RelationRecord(USERS[0], other, b"knows") for other in USERS[1:]])
    first.close()  # from here on nothing goes from the log into the file
    store = open_store(path)
    logs, facts = [log], [facts_of(store)]
    for n in range(COMMITS):
        if n % 3 == 2:
            told = [Transition(USERS[n], "music", 2, 3, START_US, 0.25, b"why")]
            store.alarms.settle(
                [
                    Settlement(one.owner, one.version, b"told", START_US + n, told)
                    for one in store.alarms.due(START_US, 2, 2)
                ],
                START_US,
            )
        else:
            new = some_events(chance, 3, f"commit-{n}")
            store.append(new)
            log = log + new
        logs.append(log)
        facts.append(facts_of(store))
    state = folder / "state.db"
    shutil.copy(path, state)
    shutil.copy(wal_of(path), wal_of(state))
    store.close()
    return Kept(state, path, logs, facts)


def compared(
    state: Path, expected: Facts, log: list[Interaction], how: StateCheck = "quick"
) -> set[str]:
    """Open a store as a gateway does, ask for everything, and write events that it knows.

    Returns:
        ``refused`` if something was, and whatever was answered otherwise than expected.
    """
    try:
        store = open_checked(state, records(), how, time.monotonic)
    except StoreUnavailable:
        return {"refused"}
    except Exception as error:
        return {f"{error!r}: when it was opened"}
    found = set()

    def ask(name: str, question: Callable[[], object], answer: object) -> None:
        try:
            if question() != answer:
                found.add(f"wrong: {name}")
        except StoreUnavailable:
            found.add("refused")
        except Exception as error:
            found.add(f"{error!r}: {name}")

    for name, question in asked(store):
        ask(name, question, expected[name])
    known = [WriteOutcome.DUPLICATE] * len(log)
    ask("events sent again", lambda: store.append(log), known)
    store.close()
    return found


def copied(kept: Kept, folder: Path, part: str) -> tuple[Path, Path]:
    """A copy of a state file to damage, and the file of it to do it to."""
    folder.mkdir()
    state = folder / "state.db"
    if part == "file":
        shutil.copy(kept.whole, state)
        return state, state
    shutil.copy(kept.state, state)
    shutil.copy(wal_of(kept.state), wal_of(state))
    return state, wal_of(state)


class Frame(NamedTuple):
    """A page in a write-ahead log."""

    end: int
    """Where it ends, bytes."""
    commits: bool
    """Whether it is the last one of a commit."""


def frames(wal: Path) -> list[Frame]:
    """The frames of a write-ahead log that was written from its start once."""
    data = wal.read_bytes()
    (page_bytes,) = struct.unpack_from(">I", data, 8)
    size = FRAME_HEADER_BYTES + page_bytes
    return [
        Frame(at + size, struct.unpack_from(">I", data, at + 4) != (0,))
        for at in range(WAL_HEADER_BYTES, len(data), size)
    ]


def flip(path: Path, at: int, bit: int) -> None:
    """Flip one bit."""
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))


def note(figures: dict[str, Any], name: str, results: Sequence[set[str]]) -> None:
    """Note what became of damages."""
    figures[name] = {
        "done": len(results),
        "detected": sum(found == {"refused"} for found in results),
        "harmless": sum(not found for found in results),
        "wrong": sum(bool(found - {"refused"}) for found in results),
    }


@pytest.mark.parametrize("how", ["full", "off"])
def test_a_flipped_bit_in_the_file_is_detected_or_harmless(
    how: StateCheck, kept: Kept, tmp_path: Path, profile: Profile, figures: dict[str, Any]
) -> None:
    chance, results = random.Random(SEED), {}
    data = kept.whole.read_bytes()
    places = [(chance.randrange(len(data)), chance.randrange(8)) for _ in range(profile.flips)]
    # Where the tables are told of: what is asked for is not there then.
    places += [(data.index(name), 0) for name in (b"state BLOB", b"expire_time INTEGER")]
    for n, (at, bit) in enumerate(places):
        state, _ = copied(kept, tmp_path / str(n), "file")
        flip(state, at, bit)
        results[at, bit] = compared(state, kept.facts[-1], kept.log, how)
        shutil.rmtree(state.parent)
    note(figures, f"flipped_bits_of_the_file_check_{how}", list(results.values()))
    assert {at: found for at, found in results.items() if found - {"refused"}} == {}
    assert {"refused"} in results.values()


def test_a_flipped_bit_in_the_write_ahead_log_is_detected_or_harmless(
    kept: Kept, tmp_path: Path, profile: Profile, figures: dict[str, Any]
) -> None:
    """In the commit written last it is as if that had never been written: a torn tail."""
    chance, results = random.Random(SEED), {}
    last_commit = [frame.end for frame in frames(wal_of(kept.state)) if frame.commits][-2]
    for n in range(profile.flips):
        state, wal = copied(kept, tmp_path / str(n), "wal")
        at, bit = chance.randrange(last_commit), chance.randrange(8)
        flip(wal, at, bit)
        results[at, bit] = compared(state, kept.facts[-1], kept.log)
        shutil.rmtree(state.parent)
    note(figures, "flipped_bits_of_the_log", list(results.values()))
    assert {at: found for at, found in results.items() if found - {"refused"}} == {}
    assert {"refused"} in results.values()


def test_of_a_torn_write_ahead_log_all_whole_commits_are_there(
    kept: Kept, tmp_path: Path, profile: Profile
) -> None:
    """As a power cut tears it, within the commit that nobody was told of yet."""
    chance, wal_frames = random.Random(SEED), frames(wal_of(kept.state))
    assert sum(frame.commits for frame in wal_frames) == COMMITS
    tears = [chance.randrange(WAL_HEADER_BYTES, wal_frames[-1].end) for _ in range(profile.tears)]
    tears += [chance.choice(wal_frames).end for _ in range(profile.tears)]
    tears += [0, 10, WAL_HEADER_BYTES, WAL_HEADER_BYTES + 10, wal_frames[0].end - 1]
    for n, length in enumerate(tears):
        state, wal = copied(kept, tmp_path / str(n), "wal")
        os.truncate(wal, length)
        whole = sum(frame.commits for frame in wal_frames if frame.end <= length)
        assert compared(state, kept.facts[whole], kept.logs[whole]) == set(), length
        shutil.rmtree(state.parent)


def test_a_torn_file_is_detected(kept: Kept, tmp_path: Path, profile: Profile) -> None:
    chance, size = random.Random(SEED), kept.whole.stat().st_size
    tears = [chance.randrange(1, size - PAGE_BYTES) for _ in range(profile.tears)]
    for n, length in enumerate([*tears, size - PAGE_BYTES, PAGE_BYTES * (size // PAGE_BYTES // 2)]):
        state, _ = copied(kept, tmp_path / str(n), "file")
        os.truncate(state, length)
        assert compared(state, kept.facts[-1], kept.log) == {"refused"}, length
        shutil.rmtree(state.parent)


def require_refusal(refusal: BaseException, state: Path) -> None:
    """A gateway that did not start said, in one line, which file is damaged."""
    (line,) = [line for line in str(refusal).splitlines() if line.startswith("ebbing: ")]
    assert line.startswith(f"ebbing: {state}: ")
    assert "damaged" in line
    assert "Traceback" not in str(refusal)


def test_a_gateway_does_not_start_on_a_torn_file(
    start_gateway: StartGateway, kept: Kept, tmp_path: Path
) -> None:
    state, _ = copied(kept, tmp_path / "torn", "file")
    os.truncate(state, kept.whole.stat().st_size // 2)
    with pytest.raises(pytest.fail.Exception) as caught:
        start_gateway(state=state)
    require_refusal(caught.value, state)


async def test_a_gateway_serves_no_damage(start_gateway: StartGateway, tmp_path: Path) -> None:
    """Where the state of one user is damaged it does not start, or tells nothing of that one."""
    state, journal = tmp_path / "state.db", Journal()
    gateway = start_gateway()
    with gateway.client() as client:
        client.write_events([journal.next_event("writer") for _ in range(1000)])
    assert gateway.terminate() == 0
    user = journal.sent["writer-000000"].user_id
    db = opened(state)
    ((stored,),) = db.execute("SELECT state FROM users WHERE owner = ?", (user,))
    db.close()
    data = state.read_bytes()
    assert data.count(stored) == 1
    flip(state, data.index(stored) + len(stored) // 2, 0)
    try:
        gateway = start_gateway()
    except pytest.fail.Exception as refusal:
        require_refusal(refusal, state)
        return
    with gateway.client() as client:
        with pytest.raises(EbbingError) as caught:
            client.interest_profile(user)
        assert caught.value.code is grpc.StatusCode.UNAVAILABLE
        assert caught.value.reason == "STORE_UNAVAILABLE"
    others = [one for one in journal.sent.values() if one.user_id != user]
    async with AsyncClient(gateway.address, options=RETURNING) as client:
        assert await miscounted(client, others) == []
