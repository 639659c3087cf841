"""Redis servers may be killed at any moment: what was acknowledged is there, and is there once.

In a Cluster a new master may not have the last writes of the old one. These are counted, and
sending them again with the same ids closes the gap.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from server.errors import StoreUnavailable
from server.state.redis import RedisStore
from server.state.store import Interaction, WriteOutcome
from tests.harness.faults import percentile
from tests.harness.redis import RedisCluster, RedisServer
from tests.harness.state import records
from tests.harness.triton import free_ports
from tests.suites.store_suite import assert_same_traces, deed, traces_in, traces_of

WRITERS = 2
USERS = 40
SEED = 7
RESTARTS, FAILOVERS = {"short": (5, 2), "full": (50, 20)}[os.environ.get("FAULTS", "short")]


@dataclass
class Writer:
    """Writes groups of events, each until it is acknowledged, and keeps a journal of them."""

    name: str
    store: RedisStore
    chance: random.Random
    acknowledged: dict[str, Interaction] = field(default_factory=dict)
    refusals: int = 0
    away_s: list[float] = field(default_factory=list)
    """From the beginning of each call that took long, or failed, to the next acknowledgement."""
    duplicates: int = 0
    """Events that were there already when they were sent again."""

    def run(self, stop: threading.Event) -> None:
        """Write until told to stop."""
        while not stop.is_set():
            start, size = len(self.acknowledged), self.chance.choice([1, 1, 5, 50])
            self._write([self._event(start + i) for i in range(size)])

    def _event(self, n: int) -> Interaction:
        # Users are shared by the writers.
        interests = ((("a", "b/c", "b/d")[n % 3], 1.0),)
        user, days = f"user-{n % USERS}", self.chance.uniform(0, 100)
        return deed(f"{self.name}-{n}", user, f"i{n % 9}", days, interests, weight=2.0)

    def _write(self, group: Sequence[Interaction]) -> None:
        began, again = time.monotonic(), False
        while True:
            try:
                outcomes = self.store.append(group)
                break
            except StoreUnavailable:
                self.refusals += 1
                again = True
                time.sleep(0.05)
        took_s = time.monotonic() - began
        if again or took_s > 0.5:
            self.away_s.append(took_s)
        counted = Counter(outcomes)
        self.duplicates += counted[WriteOutcome.DUPLICATE]
        assert again or counted[WriteOutcome.ACCEPTED] == len(group), counted
        assert counted.keys() <= {WriteOutcome.ACCEPTED, WriteOutcome.DUPLICATE}, counted
        self.acknowledged.update((one.event_id, one) for one in group)


@contextmanager
def writing(writers: Sequence[Writer]) -> Iterator[None]:
    """Have all of them write while a block runs."""
    stop = threading.Event()
    with ThreadPoolExecutor(len(writers)) as pool:
        jobs = [pool.submit(writer.run, stop) for writer in writers]
        try:
            yield
        finally:
            stop.set()
        for job in jobs:
            job.result()


def logged(store: RedisStore) -> list[Interaction]:
    """All that is in the log."""
    found: list[Interaction] = []
    after = ""
    while page := store.log(after, 1000):
        events, after = page
        if not events:
            break
        found += events
    return found


def require_exactly(store: RedisStore, events: Sequence[Interaction]) -> None:
    """Fail unless these events are all there are, each counted once."""
    assert Counter(one.event_id for one in logged(store)) == Counter(one.event_id for one in events)
    by_user = defaultdict(list)
    for one in events:
        by_user[one.user_id].append(one)
    for user, mine in by_user.items():
        assert_same_traces(traces_in(store, user), traces_of(mine))
        assert len(list(store.events_of(user))) == len(mine)
    assert store.size().events == len(events)


def journal(writers: Sequence[Writer]) -> dict[str, Interaction]:
    """All that was acknowledged."""
    return {key: one for writer in writers for key, one in writer.acknowledged.items()}


def away(writers: Sequence[Writer]) -> dict[str, float]:
    """How long writers were held up."""
    waits = [wait for writer in writers for wait in writer.away_s] or [0.0]
    return {"p50": percentile(waits, 0.5), "max": round(max(waits), 3)}


@pytest.mark.timeout(1200)
def test_a_server_that_is_killed_loses_nothing_and_counts_nothing_twice(
    tmp_path: Path, figures: dict[str, Any]
) -> None:
    chance = random.Random(SEED)
    (port,) = free_ports(1)
    starts = []
    with RedisServer(tmp_path, port) as server:
        # One that goes on trying, and one that leaves that to whoever sends the events.
        patience = (8.0, 0.0)
        stores = [RedisStore(server.url, records(), patience_s=each) for each in patience]
        writers = [Writer(f"writer-{n}", store, random.Random(n)) for n, store in enumerate(stores)]
        with writing(writers):
            for _ in range(RESTARTS):
                time.sleep(chance.uniform(0.1, 0.6))
                server.kill()
                began = time.monotonic()
                server.start()
                starts.append(time.monotonic() - began)
        events = journal(writers)
        for store in stores:
            store.close()
        with closing(RedisStore(server.url, records())) as store:
            there = Counter(one.event_id for one in logged(store))
            figures["redis_killed"] = {
                "kills": RESTARTS,
                "events": len(events),
                "refused_calls": sum(writer.refusals for writer in writers),
                "sent_again_but_there": sum(writer.duplicates for writer in writers),
                "acknowledged_lost": len(events.keys() - there.keys()),
                "counted_twice": sum(number > 1 for number in there.values()),
                "server_restart_s": {
                    "p50": percentile(starts, 0.5),
                    "max": round(max(starts), 3),
                },
                "writers_held_up_s": away(writers),
            }
            assert sum(writer.refusals for writer in writers) > 0  # else nothing was cut off
            require_exactly(store, list(events.values()))


def sent_again(store: RedisStore, events: Mapping[str, Interaction]) -> set[str]:
    """Ids of events that are gone; they are sent again."""
    gone = events.keys() - {one.event_id for one in logged(store)}
    again = [events[key] for key in sorted(gone)]
    for start in range(0, len(again), 100):
        assert set(store.append(again[start : start + 100])) == {WriteOutcome.ACCEPTED}
    return gone


@pytest.mark.timeout(1800)
def test_a_master_that_is_killed_loses_what_is_counted_and_sent_again(
    tmp_path: Path, figures: dict[str, Any]
) -> None:
    chance = random.Random(SEED)
    unreplicated: list[int] = []
    lost: set[str] = set()
    failovers = []
    with RedisCluster(tmp_path) as cluster:
        stores = [
            RedisStore(cluster.url, records(), unreplicated=unreplicated.append)
            for _ in range(WRITERS)
        ]
        writers = [Writer(f"writer-{n}", store, random.Random(n)) for n, store in enumerate(stores)]
        # The first of all is a gateway that came before anything was wrong: its map is the oldest.
        audit = RedisStore(cluster.url, records(), unreplicated=unreplicated.append)
        for _ in range(FAILOVERS):
            with writing(writers):
                time.sleep(chance.uniform(0.2, 0.8))
                victim = chance.choice(cluster.masters())
                victim.kill()
                began = time.monotonic()
                cluster.wait_without(victim)
                failovers.append(time.monotonic() - began)
                time.sleep(0.3)
            victim.start()
            cluster.wait()
            # What was acknowledged and is gone now is lost; whoever sent it sends it again.
            lost |= sent_again(audit, journal(writers))
        events = journal(writers)
        figures["redis_master_killed"] = {
            "kills": FAILOVERS,
            "events": len(events),
            "refused_calls": sum(writer.refusals for writer in writers),
            "failover_s": {"p50": percentile(failovers, 0.5), "max": round(max(failovers), 3)},
            "writers_held_up_s": away(writers),
            "not_replicated_in_time": sum(unreplicated),
            "lost_until_sent_again": len(lost),
        }
        require_exactly(audit, list(events.values()))
        assert len(lost) <= sum(unreplicated)
        for store in (*stores, audit):
            store.close()


@pytest.mark.timeout(300)
def test_what_no_replica_had_is_counted_and_closed_by_sending_it_again(
    tmp_path: Path, figures: dict[str, Any]
) -> None:
    """The worst that can happen: the new master has missed all that came for a while."""
    unreplicated: list[int] = []
    with RedisCluster(tmp_path) as cluster:
        store = RedisStore(cluster.url, records(), unreplicated=unreplicated.append)
        writer = Writer("writer", store, random.Random(SEED))
        with writing([writer]):
            time.sleep(0.3)
        before = len(writer.acknowledged)
        assert sum(unreplicated) == 0
        master = cluster.masters()[0]
        replica = cluster.replica_of(master)
        replica.kill()
        with writing([writer]):
            time.sleep(2.0)
        missed = len(writer.acknowledged) - before
        master.kill()
        replica.start()
        cluster.wait_without(master)
        master.start()
        cluster.wait()
        lost = sent_again(store, writer.acknowledged)
        figures["redis_replica_and_master_killed"] = {
            "events_meanwhile": missed,
            "not_replicated_in_time": sum(unreplicated),
            "lost_until_sent_again": len(lost),
        }
        assert 0 < len(lost) <= sum(unreplicated) <= missed
        require_exactly(store, list(writer.acknowledged.values()))
        store.close()
