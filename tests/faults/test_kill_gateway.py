"""A gateway may be killed at any moment: what was acknowledged is there, and is there once."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ebbing.client import AsyncClient, EbbingError, user_event
from server.failpoints import NAMES
from tests.harness.faults import (
    NOTHING,
    ONCE,
    RETURNING,
    UNLIMITED,
    Journal,
    Profile,
    audit,
    cursor_now,
    load_until_kill,
    open_store,
    percentile,
    wait_until_it_serves,
)
from tests.harness.gateway import StartGateway

SHARE = 0.7
"""Of the load a gateway can take."""
SEED = 5
KILLED = -9
DURABLE = ("append.committed", "ingest.acknowledged")
"""Failpoints that a group of events reaches when it is there."""


@pytest.mark.timeout(3600)
async def test_kills_under_load_lose_nothing_and_count_nothing_twice(
    start_gateway: StartGateway, tmp_path: Path, profile: Profile, figures: dict[str, Any]
) -> None:
    moments = random.Random(SEED)
    gateway, journal = start_gateway(), Journal()
    most = await load_until_kill(gateway, journal, UNLIMITED, profile.calibration_s)
    rates = {writer: SHARE * rate for writer, rate in most.items()}
    seconds, again, taken = [], Counter[str](), []
    for _ in range(profile.kills):
        began = time.monotonic()
        gateway.start()
        wait_until_it_serves(gateway.address, journal)
        seconds.append(time.monotonic() - began)
        async with AsyncClient(gateway.address, options=RETURNING) as client:
            missing, there = await journal.send_again(client)
            again.update(missing=missing, there=there)
        load = await load_until_kill(gateway, journal, rates, moments.uniform(0.2, 1.0))
        taken.append(sum(load.values()))
    gateway.start()
    async with AsyncClient(gateway.address, options=RETURNING) as client:
        await journal.send_again(client)
    findings = await audit(gateway, tmp_path / "state.db", journal)
    figures["kill_under_load"] = {
        "kills": profile.kills,
        "most_events_per_s": round(sum(most.values())),
        "events_per_s": round(sum(taken) / len(taken)),
        "events": len(journal.sent),
        "sent_again": again.total(),
        "sent_again_but_there": again["there"],
        "acknowledged_lost": len(findings.lost),
        "counted_twice": len(findings.unknown) + len(findings.miscounted),
        "serving_again_s": {
            "p50": percentile(seconds, 0.5),
            "p99": percentile(seconds, 0.99),
            "max": round(max(seconds), 3),
        },
    }
    assert again.total() > 0  # else nothing was cut off
    assert findings == NOTHING


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("settle.")])
async def test_a_kill_while_events_are_written_keeps_all_of_a_group_or_none(
    name: str, start_faulty_gateway: StartGateway, start_gateway: StartGateway, tmp_path: Path
) -> None:
    journal = Journal()
    dying = start_faulty_gateway(failpoint=f"{name}:kill:3")
    async with AsyncClient(dying.address, options=ONCE) as client:
        for _ in range(2):
            batch = [journal.next_event("writer") for _ in range(50)]
            assert (await client.write_events(batch)).accepted_count == 50
            journal.acknowledge("writer", [one.event_id for one in batch])
        with pytest.raises(EbbingError):
            await client.write_events([journal.next_event("writer") for _ in range(50)])
    assert dying.wait() == KILLED
    gateway = start_gateway()
    wait_until_it_serves(gateway.address, journal)
    async with AsyncClient(gateway.address, options=RETURNING) as client:
        assert await journal.send_again(client) == ((0, 50) if name in DURABLE else (50, 0))
    assert await audit(gateway, tmp_path / "state.db", journal) == NOTHING


@pytest.mark.parametrize("name", ["settle.begun", "settle.committed"])
async def test_a_kill_while_changes_are_told_tells_each_once(
    name: str, start_faulty_gateway: StartGateway, start_gateway: StartGateway, tmp_path: Path
) -> None:
    """Told at last, by this gateway or the next one, and not twice in the log of changes."""
    users = [f"watched-{n}" for n in range(20)]
    now = time.time()
    batch = [user_event(user, "view", now, interests=["a"], event_id=user) for user in users]
    dying = start_faulty_gateway(failpoint=f"{name}:kill:1")
    async with AsyncClient(dying.address, options=ONCE) as client:
        cursor = await cursor_now(client)
        with suppress(EbbingError):  # it may be gone before its answer is read
            await client.write_events(batch)
    assert dying.wait() == KILLED
    gateway = start_gateway()
    wait_until_it_serves(gateway.address, Journal())
    async with AsyncClient(gateway.address, options=RETURNING) as client:
        assert (await client.write_events(batch)).duplicate_count == len(batch)
        seen: set[str] = set()
        async with asyncio.timeout(60):
            async for answer in client.watch_forgetting(cursor):
                seen.add(answer.transition.user_id)
                if seen.issuperset(users):
                    break
    assert gateway.terminate() == 0
    store = open_store(tmp_path / "state.db")
    told = Counter(transition.user_id for _, transition in store.alarms.transitions(0, 1000))
    store.close()
    assert {user: told[user] for user in users} == dict.fromkeys(users, 1)
