"""A gateway whose clock jumps for days: nothing is counted twice, and nothing told wrong."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

from ebbing.client import AsyncClient, user_event
from ebbing.v1 import interest_pb2
from server.state.alarms import Transition
from tests.harness.faults import (
    NOTHING,
    RETURNING,
    Journal,
    audit,
    cursor_now,
    open_store,
    seconds,
    wait_until_it_serves,
)
from tests.harness.faults_clock import ShiftedClock
from tests.harness.gateway import StartGateway, catalogue
from tests.harness.release import TinyRelease

HOUR_S, DAY_S = 3600.0, 86400.0
SHIFTS_S = (0.0, 3 * DAY_S, 0.0, -3 * DAY_S, -3 * DAY_S - 1.0, 3 * DAY_S, -0.5, 0.0)
"""What the clock is off by, one after another."""
RESTARTED_AT = 4
"""The step at which the gateway is killed too."""
TOLERANCE_S = 60.0
QUIET, RETURNING_ONCE, LIVELY = (
    tuple(f"{kind}-{n}" for n in range(5)) for kind in ("quiet", "returning", "lively")
)
"""Users who do nothing any more, who do something once when the clock was first set back, and who
do something at each step."""
RETURN_AT = 2
INTEREST = "music/jazz"
RESTING = interest_pb2.INTEREST_STATE_RESTING
FADING = interest_pb2.INTEREST_STATE_FADING
FORGOTTEN = interest_pb2.INTEREST_STATE_FORGOTTEN


class Writer:
    """Writes events by a clock, and checks that each is taken, known or refused as it should be."""

    def __init__(self, client: AsyncClient, clock: ShiftedClock, journal: Journal) -> None:
        self._client, self._clock, self._journal = client, clock, journal

    async def write(self, user: str, *ahead_s: float) -> None:
        """Write events that lie so far ahead of the clock, with one call."""
        now, known = self._clock.now(), len(self._journal.sent)
        events = [
            user_event(
                user, "view", now + ahead, interests=[INTEREST], event_id=f"event-{known + n:06d}"
            )
            for n, ahead in enumerate(ahead_s)
        ]
        answer = await self._client.write_events(events)
        refused = {ack.event_id: ack.reason for ack in answer.notable}
        for one, ahead in zip(events, ahead_s, strict=True):
            if ahead > TOLERANCE_S:
                assert refused.pop(one.event_id) == "INVALID_FIELD"
            else:
                self._journal.note(one)
                self._journal.acknowledge("writer", [one.event_id])
        assert not refused
        assert answer.accepted_count + answer.rejected_count == len(events)

    async def write_all_again(self) -> None:
        """Write all again that does not lie ahead by this clock."""
        due = [one for one in self._journal.sent.values() if seconds(one) < self._clock.now()]
        if due:
            assert (await self._client.write_events(due)).duplicate_count == len(due)


def numbers(message: Message) -> Iterator[float]:
    """All floating-point numbers in a message."""
    for field, value in message.ListFields():
        for one in value if field.is_repeated else [value]:
            if isinstance(one, Message):
                yield from numbers(one)
            elif isinstance(one, float):
                yield one


def micros(moment: Any) -> int:
    return moment.ToMicroseconds()


async def require_sane_answers(
    client: AsyncClient, user: str, clock: ShiftedClock, journal: Journal
) -> None:
    """What is told of a user is finite, of all events, and its times are in order."""
    profile = await client.interest_profile(user)
    (shown,) = profile.interests
    assert all(math.isfinite(number) for number in numbers(profile))
    assert 0 <= shown.retention <= 1
    assert shown.retention + shown.forgetting_score == pytest.approx(1)
    assert micros(shown.first_event_time) <= micros(shown.last_event_time) <= micros(profile.at)
    # Now is not before what is known to have happened.
    assert profile.event_count == sum(one.user_id == user for one in journal.sent.values())
    assert micros(profile.at) / 1e6 >= clock.now() - 60.0
    points = [point async for point in client.interest_history(user)]
    assert all(math.isfinite(number) for point in points for number in numbers(point))
    times = [micros(point.time) for point in points]
    assert times == sorted(set(times))
    slate = await client.recommend(user)
    assert not slate.degraded
    assert all(math.isfinite(number) for number in numbers(slate))


async def wait_until_forgotten(client: AsyncClient, cursor: str, users: tuple[str, ...]) -> None:
    """Return when it was told that users forgot their interest."""
    left = set(users)
    async with asyncio.timeout(120):
        async for answer in client.watch_forgetting(cursor, user_ids=users, states=[FORGOTTEN]):
            left.discard(answer.transition.user_id)
            if not left:
                return


async def test_a_clock_that_jumps(
    start_faulty_gateway: StartGateway, release: TinyRelease, tmp_path: Path
) -> None:
    clock, journal = ShiftedClock(tmp_path / "clock"), Journal()
    gateway = start_faulty_gateway(clock.command)
    async with AsyncClient(gateway.address, options=RETURNING) as client:
        await client.write_items(catalogue(release.simulation))
        writer = Writer(client, clock, journal)
        cursor = await cursor_now(client)
        # A rhythm of eight hours, so that three days of quiet are long enough to forget.
        for user in (*QUIET, *RETURNING_ONCE, *LIVELY):
            await writer.write(user, *((n - 12) * 8 * HOUR_S for n in range(12)))
        for n, shift_s in enumerate(SHIFTS_S):
            clock.step(shift_s)
            if n == RESTARTED_AT:
                gateway.kill()
                gateway.start()
                wait_until_it_serves(gateway.address, journal)
            await writer.write_all_again()
            for user in RETURNING_ONCE if n == RETURN_AT else ():
                await writer.write(user, 0.0)
            for user in LIVELY:
                await writer.write(user, 0.0, TOLERANCE_S - 10, TOLERANCE_S + 10)
            await writer.write_all_again()
            for user in (QUIET[0], RETURNING_ONCE[0], *LIVELY):
                await require_sane_answers(client, user, clock, journal)
            if shift_s > 0:
                await wait_until_forgotten(client, cursor, (*QUIET, *RETURNING_ONCE))
    state = tmp_path / "state.db"
    assert await audit(gateway, state, journal) == NOTHING
    store = open_store(state)
    told = store.alarms.transitions(0, 10_000)
    store.close()
    require_sound_course([transition for _, transition in told], journal)


def require_sound_course(told: list[Transition], journal: Journal) -> None:
    """What was told of each user is one chain of changes, each told once."""
    newest = max(map(seconds, journal.sent.values()))
    by_user = defaultdict(list)
    for one in told:
        assert 0 <= one.retention <= 1
        assert one.time_us / 1e6 <= newest + TOLERANCE_S
        by_user[one.user_id].append(one)
    for mine in by_user.values():
        assert mine[0].from_state == 0
        assert all(one.to_state == other.from_state for one, other in pairwise(mine))
        assert len(set(mine)) == len(mine)
    for user in (*QUIET, *RETURNING_ONCE):
        # Who returned by a clock that was set back did so before what was told already.
        mine = by_user[user]
        assert [one.to_state for one in mine][-3:] == [RESTING, FADING, FORGOTTEN]
        assert [one.to_state for one in mine].count(FORGOTTEN) == 1
        assert all(one.time_us < other.time_us for one, other in pairwise(mine))
