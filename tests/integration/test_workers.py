"""Several gateway processes on one port and one state are correct together."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import pytest

from ebbing.client import user_event
from ebbing.interest.profile import interest_vectors
from ebbing.interest.trace import TraceTable
from ebbing.v1 import interest_service_pb2, interest_service_pb2_grpc, user_event_service_pb2
from ebbing.v1.user_event_pb2 import UserEvent
from ebbing.v1.user_event_service_pb2_grpc import UserEventServiceStub
from tests.harness.gateway import StartGateway
from tests.harness.processes import command, descendants, running

WatchCall = grpc.aio.UnaryStreamCall[
    interest_service_pb2.WatchForgettingRequest, interest_service_pb2.WatchForgettingResponse
]

WORKERS = 3
CHANNELS = 24
"""Enough that every process gets some: the kernel spreads connections by chance."""
NOW_S = 1_700_000_000.0
USERS = 5


@asynccontextmanager
async def channels(address: str, count: int) -> AsyncIterator[list[grpc.aio.Channel]]:
    """Channels with connections of their own."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
            )
            for _ in range(count)
        ]


def event(n: int) -> UserEvent:
    return user_event(
        f"user-{n % USERS}",
        "click",
        NOW_S + n * 60,
        event_id=f"e{n:05}",
        interests={"a" if n % 3 else "b/c": 1.0},
    )


def workers_of(pid: int) -> list[int]:
    """The gateway processes a supervisor started that still run."""
    return [child for child in descendants(pid) if running(child) and "serve" in command(child)]


async def write(channel: grpc.aio.Channel, one: UserEvent) -> int:
    """Write an event until it is acknowledged; the outcome."""
    request = user_event_service_pb2.WriteUserEventRequest(event=one)
    stub = UserEventServiceStub(channel)
    while True:
        try:
            answer = await stub.WriteUserEvent(request, wait_for_ready=True, timeout=60)
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE, error
            await asyncio.sleep(0.05)
        else:
            return int(answer.ack.outcome)


def written_by(address: str) -> float:
    """Events a process has accepted, as its metrics tell."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith("ebbing_user_events_total") and 'outcome="accepted"' in line
    )


async def test_workers_share_a_port_and_lose_no_update(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = start_gateway(workers=WORKERS)
    assert gateway.process.stdout is not None
    metrics = [gateway.metrics_address] + [
        gateway.process.stdout.readline().split("://")[1].split("/")[0] for _ in range(WORKERS - 1)
    ]
    assert len(set(metrics)) == WORKERS
    assert len(workers_of(gateway.process.pid)) == WORKERS
    count = 600
    async with channels(gateway.address, CHANNELS) as open_channels:
        # Every event comes twice, by two connections at about the same time.
        outcomes = await asyncio.gather(
            *(
                write(open_channels[(n + twice * 5) % CHANNELS], event(n))
                for n in random.Random(1).sample(range(count), count)
                for twice in (0, 1)
            )
        )
        accepted = user_event_service_pb2.EVENT_OUTCOME_ACCEPTED
        duplicate = user_event_service_pb2.EVENT_OUTCOME_DUPLICATE
        assert sorted(outcomes) == [accepted] * count + [duplicate] * count
        shares = [written_by(address) for address in metrics]
        assert sum(shares) == count
        assert all(shares), "a process got no connection"

        # One dies under load: what was acknowledged stays, the rest is repeated elsewhere.
        victim = workers_of(gateway.process.pid)[-1]
        more = [
            asyncio.create_task(write(open_channels[n % CHANNELS], event(n)))
            for n in range(count, 2 * count)
        ]
        await asyncio.sleep(0.05)
        os.kill(victim, signal.SIGKILL)
        await asyncio.gather(*more)
        stub = interest_service_pb2_grpc.InterestServiceStub(open_channels[0])
        for user in range(USERS):
            request = interest_service_pb2.GetInterestProfileRequest(user_id=f"user-{user}")
            profile = await stub.GetInterestProfile(request, wait_for_ready=True, timeout=60)
            assert profile.event_count == 2 * count / USERS
            # The state is that of the sorted set, whoever wrote what, when and how often.
            traces = TraceTable.from_events(
                (one.event_time.ToMicroseconds() / 1e6, 1.0, [(one.interests[0].interest, 1.0)])
                for one in map(event, range(user, 2 * count, USERS))
            )
            at_s = profile.at.ToMicroseconds() / 1e6
            strength = interest_vectors(traces, at_s).blended
            for shown in profile.interests:
                i = traces.names.index(shown.interest)
                assert shown.event_count == traces.count[i]
                assert shown.strength == pytest.approx(strength[i], rel=1e-9)
        while len(workers_of(gateway.process.pid)) < WORKERS:
            await asyncio.sleep(0.05)
    assert gateway.terminate() == 0


async def test_every_worker_streams_every_transition_once(start_gateway: StartGateway) -> None:
    gateway = start_gateway(workers=WORKERS)
    async with channels(gateway.address, CHANNELS) as open_channels:
        calls = [
            interest_service_pb2_grpc.InterestServiceStub(channel).WatchForgetting(
                interest_service_pb2.WatchForgettingRequest(), timeout=60
            )
            for channel in open_channels
        ]
        for call in calls:
            await call.initial_metadata()
        start_s = time.time() - 60
        for n in range(60):
            one = event(n)
            one.event_time.FromMilliseconds(round((start_s + n / 2) * 1e3))
            await write(open_channels[n % CHANNELS], one)
        await write(
            open_channels[0],
            user_event("last", "click", start_s, event_id="last", interests={"a": 1.0}),
        )

        async def told(call: WatchCall) -> list[bytes]:
            found = []
            async for answer in call:
                found.append(answer.transition.SerializeToString(deterministic=True))
                if answer.transition.user_id == "last":
                    break
            return found

        every = await asyncio.gather(*map(told, calls))
    assert len(every[0]) > 2 * USERS
    assert len(set(every[0])) == len(every[0])
    assert all(one == every[0] for one in every)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_no_worker_outlives_what_started_it(
    start_gateway: StartGateway, how: signal.Signals
) -> None:
    gateway = start_gateway(workers=2)
    workers = workers_of(gateway.process.pid)
    if how is signal.SIGKILL:
        gateway.kill()
    else:
        assert gateway.terminate() == 0
    while any(running(pid) for pid in workers):
        await asyncio.sleep(0.05)
