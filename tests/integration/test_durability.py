"""An acknowledged event survives anything, and a gateway that is told to stop fails nobody."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ebbing.client import AsyncClient, ClientOptions, EbbingError, user_event
from ebbing.interest.profile import interest_vectors
from ebbing.interest.trace import TraceTable
from ebbing.v1 import user_event_service_pb2
from ebbing.v1.user_event_pb2 import UserEvent
from server.state.sqlite_file import opened
from tests.harness.gateway import StartGateway, catalogue, events
from tests.harness.release import LOG, TinyRelease
from trainer.data.simulate import PROTAGONIST

END = LOG.end
ONCE = ClientOptions(deadline_s=60.0, batch_deadline_s=60.0, max_attempts=1)
"""Nothing is tried again: each failure counts."""

RETURNING = replace(ONCE, wait_for_ready=True)
"""The same towards a gateway that was just away: gRPC is not through with its pause yet."""

ROUNDS = 10
USERS = 7
INTERESTS = ("a", "b/c", "b/d")
SEED = 11


def event(writer: str, n: int) -> UserEvent:
    """The n-th event of a writer."""
    return user_event(
        f"user-{n % USERS}",
        "view",
        END - n * 3600.0,
        interests=[INTERESTS[n % len(INTERESTS)]],
        event_id=f"{writer}-{n:05d}",
    )


class Journal:
    """What was sent, and what of it was acknowledged, by event id."""

    def __init__(self) -> None:
        self.sent: dict[str, UserEvent] = {}
        self.acknowledged: dict[str, UserEvent] = {}

    async def write_until_cut(self, client: AsyncClient, writer: str, size: int) -> None:
        """Write batches of a size, or streams where it is 0, until the gateway is gone."""
        numbers = iter(range(1_000_000))
        try:
            while size:
                batch = [self._note(event(writer, next(numbers))) for _ in range(size)]
                answer = await client.write_events(batch)
                assert answer.accepted_count == size
                self.acknowledged.update({one.event_id: one for one in batch})

            async def endless() -> AsyncIterator[UserEvent]:
                for n in numbers:
                    yield self._note(event(writer, n))
                    await asyncio.sleep(0)

            async for ack in client.stream_events(endless()):
                assert ack.outcome == user_event_service_pb2.EVENT_OUTCOME_ACCEPTED
                self.acknowledged[ack.event_id] = self.sent[ack.event_id]
        except EbbingError:
            return

    def _note(self, one: UserEvent) -> UserEvent:
        self.sent[one.event_id] = one
        return one


async def test_what_was_acknowledged_survives_a_kill(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    random = np.random.default_rng(SEED)
    gateway = start_gateway()
    journal = Journal()
    for number in range(ROUNDS):
        before = dict(journal.acknowledged)
        enough = len(before) + int(random.integers(1, 400))
        async with AsyncClient(gateway.address, options=ONCE) as client:
            writers = [
                asyncio.create_task(
                    journal.write_until_cut(client, f"round-{number}-writer-{w}", size)
                )
                for w, size in enumerate((1, 1, 1, 20, 0))
            ]
            while len(journal.acknowledged) < enough:
                assert not all(writer.done() for writer in writers)
                await asyncio.sleep(0)
            gateway.kill()
            await asyncio.gather(*writers)
        gateway.start()
        async with AsyncClient(gateway.address, options=RETURNING) as client:
            new = [one for key, one in journal.acknowledged.items() if key not in before]
            assert (await client.write_events(new)).duplicate_count == len(new)

    async with AsyncClient(gateway.address, options=RETURNING) as client:
        # What was cut off unacknowledged may have been written or not; now all of it is.
        answer = await client.write_events(journal.sent.values())
        assert answer.accepted_count + answer.duplicate_count == len(journal.sent)
        assert answer.duplicate_count >= len(journal.acknowledged)
        for user, count in Counter(one.user_id for one in journal.sent.values()).items():
            profile = await client.interest_profile(user, END)
            assert profile.event_count == count
            traces = TraceTable.from_events(
                (one.event_time.ToMicroseconds() / 1e6, 1.0, [(one.interests[0].interest, 1.0)])
                for one in journal.sent.values()
                if one.user_id == user
            )
            strength = interest_vectors(traces, END).blended
            for shown in profile.interests:
                i = traces.names.index(shown.interest)
                assert shown.event_count == traces.count[i]
                assert shown.strength == pytest.approx(strength[i], rel=1e-9)
    assert gateway.terminate() == 0
    db = opened(tmp_path / "state.db")
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert db.execute("SELECT count(*) FROM events").fetchall() == [(len(journal.sent),)]
    db.close()


async def test_a_gateway_told_to_stop_fails_no_request(
    start_gateway: StartGateway, release: TinyRelease
) -> None:
    """Two gateways behind one client, which tries everything once; one is told to stop."""
    leaving, staying = start_gateway(), start_gateway()
    target = f"ipv4:{leaving.address},{staying.address}"
    log = [one for one in events(release.simulation) if one.user_id == PROTAGONIST]
    async with AsyncClient(target, options=ONCE) as client:
        await client.write_items(catalogue(release.simulation))
        await client.write_events(log)
        stop = asyncio.Event()
        done: Counter[str] = Counter()

        async def keep(writer: int) -> None:
            for n in range(1_000_000):
                if stop.is_set():
                    return
                one = event(f"leaving-{writer}", n)
                assert (await client.write_events([one])).accepted_count == 1
                slate = await client.recommend(PROTAGONIST, END)
                assert not slate.degraded
                assert (await client.interest_profile(one.user_id, END)).event_count > n // USERS
                done["rounds"] += 1

        load = [asyncio.create_task(keep(writer)) for writer in range(16)]
        while done["rounds"] < 100:
            await asyncio.sleep(0.01)
        ended = asyncio.create_task(asyncio.to_thread(leaving.terminate))
        await asyncio.wait([ended, *load], return_when=asyncio.FIRST_COMPLETED)
        assert await ended == 0, leaving.log.read_text()
        after = done["rounds"]
        while done["rounds"] < after + 100:
            await asyncio.sleep(0.01)
        stop.set()
        await asyncio.gather(*load)
    assert staying.terminate() == 0


async def test_running_calls_are_answered_before_a_gateway_ends(
    start_gateway: StartGateway,
) -> None:
    """Where there is no other gateway: what was taken is answered, an open stream is ended."""
    gateway = start_gateway(lame_duck_s=0, drain_s=2)

    def taken() -> bool:
        with urllib.request.urlopen(f"http://{gateway.metrics_address}/metrics") as reply:
            started = re.findall(
                r'started_total{.*"BatchWriteUserEvents".*} (.*)', reply.read().decode()
            )
            return started == ["4.0"]

    async def one_and_no_more() -> AsyncIterator[UserEvent]:
        yield event("streamed", 0)
        await asyncio.Event().wait()

    async with AsyncClient(gateway.address, options=ONCE) as client:
        acks = client.stream_events(one_and_no_more())
        assert (await anext(acks)).outcome == user_event_service_pb2.EVENT_OUTCOME_ACCEPTED
        batches = [[event(f"drained-{b}", n) for n in range(1000)] for b in range(4)]
        calls = [asyncio.create_task(client.write_events(batch)) for batch in batches]
        while not await asyncio.to_thread(taken):
            await asyncio.sleep(0)
        assert await asyncio.to_thread(gateway.terminate) == 0, gateway.log.read_text()
        answers = await asyncio.gather(*calls)
        assert [answer.accepted_count for answer in answers] == [1000] * 4
        with pytest.raises(EbbingError):
            await anext(acks)
