"""A gateway that is killed under load, and a journal of what must be there afterwards.

FAULTS says how much damage is done: ``short`` (the default) for every change, ``full`` for
`make test-faults`. With FAULTS_REPORT=FILE what was measured is kept in that file as JSON.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ebbing.client import AsyncClient, ClientOptions, EbbingError, user_event
from ebbing.interest.profile import interest_vectors
from ebbing.interest.trace import TraceTable
from ebbing.v1 import user_event_service_pb2, user_event_service_pb2_grpc
from ebbing.v1.interest_service_pb2 import WatchForgettingRequest
from ebbing.v1.user_event_pb2 import UserEvent
from server.rpc.watching import CURSOR_METADATA
from server.state.open import open_checked
from server.state.sqlite_file import opened
from server.state.store import Store
from tests.harness.gateway import GatewayProcess
from tests.harness.release import LOG
from tests.harness.state import records

ONCE = ClientOptions(deadline_s=60.0, batch_deadline_s=60.0, max_attempts=1)
"""Nothing is tried again: each failure counts."""
RETURNING = replace(ONCE, wait_for_ready=True)
"""The same towards a gateway that was just away: gRPC is not through with its pause yet."""
FOR_EVER = 2**62


@dataclass(frozen=True)
class Profile:
    """How much damage is done."""

    kills: int
    """Kills of a gateway under load."""
    calibration_s: float
    """How long the load that a gateway can take is measured, seconds."""
    flips: int
    """Bits that are flipped in each file."""
    tears: int
    """Places at which each file is torn."""


PROFILES = {"short": Profile(5, 1.5, 100, 20), "full": Profile(100, 5.0, 5000, 1000)}


def chosen_profile() -> Profile:
    """The profile that the environment asks for."""
    return PROFILES[os.environ.get("FAULTS", "short")]


class Journal:
    """What was sent, and what of it was acknowledged, by event id."""

    USERS = 200
    INTERESTS = ("a", "b/c", "b/d")

    def __init__(self) -> None:
        self.sent: dict[str, UserEvent] = {}
        self.acknowledged: set[str] = set()
        self.acknowledged_by: Counter[str] = Counter()
        """Events of each writer, without those that were sent again."""
        self._numbers: Counter[str] = Counter()

    def next_event(self, writer: str) -> UserEvent:
        """A writer's next event, noted as sent."""
        n = self._numbers[writer]
        self._numbers[writer] += 1
        return self.note(
            user_event(
                f"user-{n % self.USERS}",
                "view",
                LOG.end - n * 97.0,
                interests=[self.INTERESTS[n % len(self.INTERESTS)]],
                event_id=f"{writer}-{n:06d}",
            )
        )

    def note(self, event: UserEvent) -> UserEvent:
        """Note an event as sent."""
        self.sent[event.event_id] = event
        return event

    def acknowledge(self, writer: str, event_ids: Iterable[str]) -> None:
        """Note that the gateway acknowledged events."""
        ids = set(event_ids)
        self.acknowledged |= ids
        self.acknowledged_by[writer] += len(ids)

    @property
    def unacknowledged(self) -> list[UserEvent]:
        """What may have been written or not."""
        return [one for key, one in self.sent.items() if key not in self.acknowledged]

    async def send_again(self, client: AsyncClient) -> tuple[int, int]:
        """Send what is unacknowledged again; how many were written only now, and before."""
        cut_off = self.unacknowledged
        answer = await client.write_events(cut_off)
        assert answer.accepted_count + answer.duplicate_count == len(cut_off), answer.notable
        self.acknowledged.update(one.event_id for one in cut_off)
        return answer.accepted_count, answer.duplicate_count


WRITERS = {"single-1": 1, "single-2": 1, "batch": 20, "bulk": 100, "stream": 0}
"""Who writes: events a call; 0 is a stream of them."""
WINDOW = 200
"""Events of a stream that may wait for their acknowledgement."""
UNLIMITED = dict.fromkeys(WRITERS, float("inf"))


async def write_until_cut(client: AsyncClient, journal: Journal, writer: str, rate: float) -> None:
    """Write so many events a second, or as many as are taken, until the gateway is gone."""
    now = asyncio.get_running_loop().time
    size = WRITERS[writer]
    due = now()
    window = asyncio.Semaphore(WINDOW)

    async def turn(events: int) -> None:
        nonlocal due
        due += events / rate
        await asyncio.sleep(due - now())

    async def endless() -> AsyncIterator[UserEvent]:
        while True:
            await turn(1)
            await window.acquire()
            yield journal.next_event(writer)

    try:
        while size:
            await turn(size)
            batch = [journal.next_event(writer) for _ in range(size)]
            answer = await client.write_events(batch)
            assert answer.accepted_count == size
            journal.acknowledge(writer, [one.event_id for one in batch])
        async for ack in client.stream_events(endless()):
            assert ack.outcome == user_event_service_pb2.EVENT_OUTCOME_ACCEPTED
            journal.acknowledge(writer, [ack.event_id])
            window.release()
    except EbbingError:
        return


async def load_until_kill(
    gateway: GatewayProcess, journal: Journal, rates: Mapping[str, float], seconds: float
) -> dict[str, float]:
    """Load a gateway for a while, then kill it; events acknowledged to each writer a second."""
    async with AsyncClient(gateway.address, options=ONCE) as client:
        writers = [
            asyncio.create_task(write_until_cut(client, journal, writer, rates[writer]))
            for writer in WRITERS
        ]
        began, before = time.monotonic(), journal.acknowledged_by.copy()
        await asyncio.sleep(seconds)
        took = time.monotonic() - began
        taken = {w: (journal.acknowledged_by[w] - before[w]) / took for w in WRITERS}
        for writer in writers:
            assert not writer.done(), writer.exception() or "was cut off before the kill"
        gateway.kill()
        await asyncio.gather(*writers)
    return taken


def wait_until_it_serves(address: str, journal: Journal) -> None:
    """Return when health says SERVING and a write is acknowledged."""
    # A pool of its own: in the shared one connections pause after others' failures.
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 50)]
    with grpc.insecure_channel(address, options) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest()
        status = health.Check(request, timeout=60, wait_for_ready=True).status
        assert status == health_pb2.HealthCheckResponse.SERVING
        event = journal.next_event("probe")
        write = user_event_service_pb2_grpc.UserEventServiceStub(channel).WriteUserEvent
        ack = write(user_event_service_pb2.WriteUserEventRequest(event=event), timeout=60).ack
        assert ack.outcome == user_event_service_pb2.EVENT_OUTCOME_ACCEPTED
        journal.acknowledge("probe", [event.event_id])


async def cursor_now(client: AsyncClient) -> str:
    """The cursor of a stream of changes that begins now."""
    call = client.stubs.interests.WatchForgetting(WatchForgettingRequest())
    begun = dict(await call.initial_metadata())
    call.cancel()
    return begun[CURSOR_METADATA]


class FaultyGateway(GatewayProcess):
    """A gateway that may be meant to end by itself."""

    def wait(self) -> int:
        """Return when it has ended; its exit status."""
        self._told_to_end = True
        return self._ended()


@dataclass(frozen=True)
class Findings:
    """What a journal and the state do not agree about: ids of events, and what differs."""

    lost: list[str]
    """Acknowledged, but not in the log."""
    unknown: list[str]
    """In the log, but not as it was sent, or twice."""
    miscounted: list[str]
    """Interests whose traces are not those of the events sent."""


NOTHING = Findings([], [], [])


async def miscounted(client: AsyncClient, events: Iterable[UserEvent]) -> list[str]:
    """What a gateway tells of users that is not so, if these are all the events they have."""
    by_user: dict[str, list[UserEvent]] = defaultdict(list)
    for one in events:
        by_user[one.user_id].append(one)
    wrong = []
    for user, mine in by_user.items():
        end = max(seconds(one) for one in mine)
        profile = await client.interest_profile(user, end)
        traces = TraceTable.from_events(
            (seconds(one), 1.0, [(i.interest, 1.0) for i in one.interests]) for one in mine
        )
        strength = interest_vectors(traces, end).blended
        told = {shown.interest: shown for shown in profile.interests}
        if profile.event_count != len(mine) or told.keys() != set(traces.names):
            wrong.append(f"{user}: {profile.event_count} events of {len(mine)}")
            continue
        wrong += [
            f"{user} {name}: {told[name].event_count} events of {traces.count[i]}"
            for i, name in enumerate(traces.names)
            if told[name].event_count != traces.count[i]
            or told[name].strength != pytest.approx(strength[i], rel=1e-9)
        ]
    return wrong


def seconds(event: UserEvent) -> float:
    """When an event happened, seconds since the epoch."""
    return event.event_time.ToMicroseconds() / 1e6


def open_store(state: Path) -> Store:
    """The store of a gateway with default settings."""
    return open_checked(state, records(), "quick", time.monotonic)


def audit_log(state: Path, journal: Journal) -> tuple[list[str], list[str]]:
    """Check a state file that nobody uses, and compare its log with all that was sent; ids of the
    events that are missing, and of those that are there otherwise than as sent once."""
    require_sound(state)
    store = open_store(state)
    logged = Counter(
        (one.event_id, one.body)
        for user in {one.user_id for one in journal.sent.values()}
        for one in store.interactions(user, FOR_EVER)
    )
    store.close()
    sent = Counter(
        (key, one.SerializeToString(deterministic=True)) for key, one in journal.sent.items()
    )
    return [key for key, _ in sent - logged], [key for key, _ in logged - sent]


async def audit(gateway: GatewayProcess, state: Path, journal: Journal) -> Findings:
    """Compare the journal, all of it acknowledged, with what the gateway tells and the log holds.

    The gateway is told to end in between.
    """
    assert not journal.unacknowledged
    async with AsyncClient(gateway.address, options=RETURNING) as client:
        wrong = await miscounted(client, journal.sent.values())
    assert gateway.terminate() == 0, gateway.log.read_text()
    return Findings(*audit_log(state, journal), wrong)


def require_sound(state: Path) -> None:
    """Fail if a state file is damaged."""
    db = opened(state)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    db.close()


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which a share of values lies, to the millisecond where they are seconds."""
    ordered = sorted(values)
    return round(ordered[math.ceil(share * len(ordered)) - 1], 3)


def flat(figures: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Figures by their full names, for people."""
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
