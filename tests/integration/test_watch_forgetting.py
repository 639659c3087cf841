"""Changes of state reach their watchers: whoever is killed, and however many gateways there are."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest

from ebbing.client import AsyncClient, ClientOptions, EbbingError, user_event
from ebbing.v1 import interest_pb2
from ebbing.v1.interest_service_pb2 import (
    ForgettingTransition,
    WatchForgettingRequest,
    WatchForgettingResponse,
)
from server.rpc.watching import CURSOR_METADATA
from tests.harness.gateway import GatewayProcess, StartGateway
from tests.harness.release import LOG, TinyRelease

ONCE = ClientOptions(deadline_s=60.0, batch_deadline_s=60.0, max_attempts=1)
RETURNING = replace(ONCE, wait_for_ready=True)
UNSPECIFIED = interest_pb2.INTEREST_STATE_UNSPECIFIED
NEW = interest_pb2.INTEREST_STATE_NEW
FADING = interest_pb2.INTEREST_STATE_FADING
FORGOTTEN = interest_pb2.INTEREST_STATE_FORGOTTEN
BOTH = (FADING, FORGOTTEN)


class Limits(NamedTuple):
    """Seconds of quiet after which an interest engaged once fades, and is forgotten."""

    fading_s: float
    forgotten_s: float


def limits_of(gateway: GatewayProcess) -> Limits:
    """As the gateway itself tells them."""
    with gateway.client() as client:
        client.write_event("probe", "view", LOG.end, interests=["probe"], event_id="probe")
        reason = client.interest_profile("probe", LOG.end).interests[0].reason
        return Limits(
            reason.fading_after.ToMicroseconds() / 1e6,
            reason.forgotten_after.ToMicroseconds() / 1e6,
        )


async def now_on(client: AsyncClient) -> str:
    """The cursor of a stream that begins now."""
    call = client.stubs.interests.WatchForgetting(WatchForgettingRequest())
    begun = dict(await call.initial_metadata())
    call.cancel()
    return begun[CURSOR_METADATA]


async def engage(client: AsyncClient, times: dict[str, float], interest: str = "music") -> None:
    """One event of each user at a time of its own."""
    events = [
        user_event(user, "view", at, interests=[interest], event_id=f"{interest}-{user}")
        for user, at in times.items()
    ]
    answer = await client.write_events(events)
    assert answer.accepted_count == len(events)


def moment(transition: ForgettingTransition) -> float:
    return transition.transition_time.ToMicroseconds() / 1e6


async def read(
    answers: AsyncIterator[WatchForgettingResponse], count: int
) -> list[WatchForgettingResponse]:
    async with asyncio.timeout(120):
        return [await anext(answers) for _ in range(count)]


async def test_nothing_is_missing_after_a_kill(start_gateway: StartGateway) -> None:
    """Interests that have been fading for long are forgotten one after another, and a gateway is
    killed among them."""
    gateway = start_gateway()
    limits = limits_of(gateway)
    async with AsyncClient(gateway.address, options=ONCE) as client:
        answers = client.watch_forgetting(await now_on(client), states=BOTH)
        waiting = asyncio.create_task(read(answers, 15))
        now = time.time()
        times = {f"user-{n}": now - limits.forgotten_s + 1.5 + n / 4 for n in range(12)}
        await engage(client, times)
        handled = await waiting
        gateway.kill()
        with pytest.raises(EbbingError) as caught:
            await read(answers, 24)
        assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    gateway.start()
    async with AsyncClient(gateway.address, options=RETURNING) as client:
        again = client.watch_forgetting(handled[-1].cursor, states=BOTH)
        handled += await read(again, 24 - len(handled))
        # At least once: a cursor can be used again, and what follows it is the same.
        once_more = client.watch_forgetting(handled[0].cursor, states=BOTH)
        assert await read(once_more, 23) == handled[1:]

    by_user = defaultdict(list)
    for answer in handled:
        by_user[answer.transition.user_id].append(answer.transition)
    assert by_user.keys() == times.keys()
    for user, transitions in by_user.items():
        assert [(t.from_state, t.to_state) for t in transitions] == [
            (UNSPECIFIED, FADING),
            (FADING, FORGOTTEN),
        ]
        for transition, quiet_s in zip(transitions, limits, strict=True):
            assert moment(transition) == pytest.approx(times[user] + quiet_s, abs=1e-4)
            assert 0 < transition.retention < 1
            assert transition.reason.text


async def test_a_gateway_may_leave_the_looking_to_another(start_gateway: StartGateway) -> None:
    gateway = start_gateway(watch="false")
    limits = limits_of(gateway)
    async with AsyncClient(gateway.address, options=ONCE) as client:
        answers = client.watch_forgetting(await now_on(client), states=BOTH)
        waiting = asyncio.create_task(read(answers, 5))
        now = time.time()
        times = {f"user-{n}": now - limits.fading_s + n / 10 for n in range(5)}
        await engage(client, times)
        start_gateway()
        # The stream of the one that does not look has what the other one finds.
        found = await waiting
    assert {a.transition.user_id for a in found} == times.keys()


async def test_a_watch_goes_on_by_itself(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    limits = limits_of(gateway)
    async with AsyncClient(gateway.address, options=ClientOptions(deadline_s=60.0)) as client:
        answers = client.watch_forgetting(await now_on(client), states=BOTH)
        waiting = asyncio.create_task(read(answers, 20))
        now = time.time()
        times = {f"user-{n}": now - limits.fading_s + 1 + n / 4 for n in range(20)}
        await engage(client, times)
        await asyncio.sleep(2)
        await asyncio.to_thread(gateway.kill)
        await asyncio.to_thread(gateway.start)
        told = [answer.transition for answer in await waiting]
    assert [t.user_id for t in told] == list(times)


async def test_two_gateways_tell_each_change_once(start_gateway: StartGateway) -> None:
    one, other = start_gateway(), start_gateway()
    limits = limits_of(one)
    async with (
        AsyncClient(one.address, options=ONCE) as client,
        AsyncClient(other.address, options=ONCE) as other_client,
    ):
        begin = await now_on(client)
        watches = [
            asyncio.create_task(read(each.watch_forgetting(begin, states=BOTH), 40))
            for each in (client, client, other_client)
        ]
        now = time.time()
        times = {f"user-{n}": now - limits.fading_s + 1 + n / 50 for n in range(40)}
        await engage(client, times)
        seen = await asyncio.gather(*watches)
        assert seen[0] == seen[1] == seen[2]
        assert sorted(a.transition.user_id for a in seen[0]) == sorted(times)
        # Whose cursor it is makes no difference on one store.
        rest = other_client.watch_forgetting(seen[0][9].cursor, states=BOTH)
        assert await read(rest, 30) == seen[0][10:]


async def test_events_are_told_with_their_times_and_loaded_history_is_not(
    start_gateway: StartGateway,
) -> None:
    gateway = start_gateway()
    limits = limits_of(gateway)
    async with AsyncClient(gateway.address, options=ONCE) as client:
        answers = client.watch_forgetting(await now_on(client), user_ids=["ada"])
        waiting = asyncio.create_task(read(answers, 2))
        now = time.time()
        long_ago = now - 2 * limits.forgotten_s
        await engage(client, {"ada": long_ago, "bob": long_ago}, "chess")
        await engage(client, {"ada": now - 1, "bob": now - 1}, "music")
        await asyncio.sleep(1)
        await engage(client, {"ada": now}, "chess/openings")
        told = [answer.transition for answer in await waiting]
        assert [(t.interest, t.from_state, t.to_state) for t in told] == [
            ("music", UNSPECIFIED, NEW),
            ("chess/openings", UNSPECIFIED, NEW),
        ]
        assert [moment(t) for t in told] == pytest.approx([now - 1, now], abs=1e-4)


async def test_a_gateway_told_to_stop_ends_its_streams(start_gateway: StartGateway) -> None:
    gateway = start_gateway(lame_duck_s=0.2)
    async with AsyncClient(gateway.address, options=ONCE) as client:
        answers = client.watch_forgetting(await now_on(client))
        await engage(client, {"ada": time.time()})
        assert (await anext(answers)).transition.user_id == "ada"
        assert await asyncio.to_thread(gateway.terminate) == 0
        with pytest.raises(EbbingError) as caught:
            await anext(answers)
        assert caught.value.code is grpc.StatusCode.UNAVAILABLE
        assert caught.value.reason == "GATEWAY_STOPPING"
        assert caught.value.retry_delay_s


async def test_a_cursor_of_another_store(
    start_gateway: StartGateway, release: TinyRelease, tmp_path: Path
) -> None:
    one, other = start_gateway(), start_gateway(state=tmp_path / "other.db")
    async with (
        AsyncClient(one.address, options=ONCE) as client,
        AsyncClient(other.address, options=ONCE) as other_client,
    ):
        cursor = await now_on(client)
        with pytest.raises(EbbingError) as caught:
            await anext(other_client.watch_forgetting(cursor))
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.field for violation in caught.value.violations] == ["cursor"]
