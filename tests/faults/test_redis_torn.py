"""A Redis that is killed while it writes a step to its file keeps the first part of it there.

It undoes the part, unless it is killed again: then it takes it for a part of the next step. Here
its file is cut off as the first kill would, within what one group of events wrote.
"""

from __future__ import annotations

import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from server.state.redis import RedisStore
from server.state.store import Interaction, WriteOutcome
from tests.harness.redis import RedisServer
from tests.harness.state import records
from tests.harness.triton import free_ports
from tests.suites.store_suite import (
    DAY_US,
    START_US,
    assert_same_traces,
    deed,
    traces_in,
    traces_of,
)

CUTS = {"short": 8, "full": 60}[os.environ.get("FAULTS", "short")]
USERS = ("ann", "bob", "cid")
PRUNED_US = START_US + 3 * DAY_US // 2
"""Events before it have gone for their age when the server is killed first."""


def deeds(name: str, users: Sequence[str], start: float) -> list[Interaction]:
    """Three events of each user, one of which leaves no trace, from a day on."""
    return [
        deed(f"{name}-{user}-{n}", user, f"i{n}", start + n, weight=float(n < 2))
        for user in users
        for n in range(3)
    ]


BEFORE = deeds("before", USERS[:2], 0.0)
"""Written before all."""
CUT = deeds("cut", USERS, 5.0)
"""What the server is killed at, of one new user too; nobody was told that it was written."""
AFTER = {
    "nothing": [],
    "others' events": deeds("after", ("dan",), 9.0),
    "a user's next event": deeds("after", USERS[1:2], 9.0),
    "the next events of all": deeds("after", USERS, 9.0),
    "the same events": CUT,
    "some of the same events, another one first": [*deeds("after", USERS[:1], 9.0), *CUT[1:5]],
}
"""What is written between the two kills."""


def written(server: RedisServer) -> Path:
    """The file that a server writes to."""
    found = server.folder.rglob("appendonly.aof*")
    return max((one for one in found if ".manifest" not in one.name), key=lambda one: one.name)


def open_store(server: RedisServer) -> RedisStore:
    return RedisStore(server.url, records())


def restart(server: RedisServer) -> None:
    """Kill a server, if it runs, and start it again."""
    server.kill()
    server.start()


@pytest.fixture(params=range(CUTS))
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer]:
    """A server that was killed at ``CUT``, at one of several moments, and runs again."""
    chance = random.Random(request.param)
    with RedisServer(tmp_path, *free_ports(1), aof_use_rdb_preamble="no") as started:
        with closing(open_store(started)) as store:
            store.append(BEFORE)
            assert store.prune_events(PRUNED_US, 100) == 4
            before = written(started).stat().st_size
            store.append(CUT)
        after = written(started).stat().st_size
        started.kill()
        # Not the very end: there all of it is written.
        os.truncate(written(started), chance.randrange(before + 1, after - 1))
        started.start()
        yield started


def require_only(store: RedisStore, events: Sequence[Interaction]) -> None:
    """Fail unless all these events, and no others, are counted, and logged unless pruned."""
    kept = [one for one in events if one.time_us >= PRUNED_US]
    logged, _ = store.log("", 1000)
    assert Counter(one.event_id for one in logged) == Counter(one.event_id for one in kept)
    assert store.size().events == len(kept)
    by_user = defaultdict(list)
    for one in events:
        by_user[one.user_id].append(one)
    for user, mine in by_user.items():
        assert_same_traces(traces_in(store, user), traces_of(mine))
        own = [one.event_id for one in store.events_of(user)]
        assert sorted(own) == sorted(one.event_id for one in mine if one in kept)


@pytest.mark.parametrize("meanwhile", AFTER)
def test_what_was_undone_comes_back_with_nothing(server: RedisServer, meanwhile: str) -> None:
    after = AFTER[meanwhile]
    with closing(open_store(server)) as store:
        require_only(store, BEFORE)
        if after:
            assert set(store.append(after)) == {WriteOutcome.ACCEPTED}
    restart(server)
    there = {one.event_id: one for one in [*BEFORE, *after, *CUT]}
    with closing(open_store(server)) as store:
        outcomes = store.append(CUT)
        assert set(outcomes) <= {WriteOutcome.ACCEPTED, WriteOutcome.DUPLICATE}
        require_only(store, list(there.values()))
    restart(server)
    with closing(open_store(server)) as store:
        assert set(store.append([*after, *CUT])) == {WriteOutcome.DUPLICATE}
        require_only(store, list(there.values()))


@pytest.mark.parametrize("meanwhile", AFTER)
def test_what_was_undone_and_is_not_sent_again_is_there_as_a_whole_or_not(
    server: RedisServer, meanwhile: str
) -> None:
    after = AFTER[meanwhile]
    with closing(open_store(server)) as store:
        store.append(after)
    restart(server)
    with closing(open_store(server)) as store:
        logged, _ = store.log("", 1000)
        known = {one.event_id: one for one in [*BEFORE, *after, *logged]}
        assert known.keys() >= {one.event_id for one in after}
        require_only(store, list(known.values()))
        rebuilt = store.rebuild(USERS[2:])
        require_only(store, list(known.values()))
        assert rebuilt == 0
