"""A disk without room: writes say so, reads go on, and all is well once there is room again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from ebbing.client import AsyncClient, EbbingError
from tests.harness.faults import (
    NOTHING,
    RETURNING,
    Journal,
    audit,
    audit_log,
    miscounted,
    require_sound,
)
from tests.harness.faults_disk import SmallDisk
from tests.harness.gateway import GatewayProcess, StartGateway

STORAGE_FULL = (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORAGE_FULL")
BATCH = 500
MOST_BATCHES = 1000
DISK_BYTES = 24 * 2**20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    with SmallDisk(folder, DISK_BYTES) as disk:
        yield disk


def start_on(disk: SmallDisk, start: StartGateway) -> GatewayProcess:
    """A gateway whose state is on a disk."""
    return start(disk.command(GatewayProcess.command), state=disk.folder / "state.db")


async def write_some(client: AsyncClient, journal: Journal, batches: int) -> None:
    """Write so many batches; all are taken."""
    for _ in range(batches):
        batch = [journal.next_event("writer") for _ in range(BATCH)]
        assert (await client.write_events(batch)).accepted_count == BATCH
        journal.acknowledge("writer", [one.event_id for one in batch])


async def write_until_full(client: AsyncClient, journal: Journal) -> EbbingError:
    """Write batches until one is refused; the refusal."""
    with pytest.raises(EbbingError) as caught:
        await write_some(client, journal, MOST_BATCHES)
    return caught.value


async def require_refusals_and_reads(client: AsyncClient, journal: Journal) -> None:
    """Writes are refused and leave nothing behind, and what was there before is told as it was."""
    for _ in range(3):
        with pytest.raises(EbbingError) as caught:
            await client.write_events(journal.unacknowledged)
        assert (caught.value.code, caught.value.reason) == STORAGE_FULL
    taken = [one for key, one in journal.sent.items() if key in journal.acknowledged]
    assert await miscounted(client, taken) == []


async def require_all_is_there(
    gateway: GatewayProcess, disk: SmallDisk, journal: Journal, copy: Path
) -> None:
    """The gateway, which is told to end, and the files on its disk agree with the journal."""
    async with AsyncClient(gateway.address, options=RETURNING) as client:
        assert await miscounted(client, journal.sent.values()) == []
    assert gateway.terminate() == 0, gateway.log.read_text()
    assert audit_log(disk.copy_to(copy) / "state.db", journal) == ([], [])


async def test_a_full_disk_refuses_writes_until_there_is_room(
    start_faulty_gateway: StartGateway, small_disk: SmallDisk, tmp_path: Path
) -> None:
    gateway, journal = start_on(small_disk, start_faulty_gateway), Journal()
    async with AsyncClient(gateway.address, options=RETURNING) as client:
        await write_some(client, journal, 4)
        for n in range(2):
            small_disk.fill()
            refusal = await write_until_full(client, journal)
            assert (refusal.code, refusal.reason) == STORAGE_FULL
            assert refusal.retry_delay_s
            await require_refusals_and_reads(client, journal)
            require_sound(small_disk.copy_to(tmp_path / f"full-{n}") / "state.db")
            small_disk.give_room()
            # By itself: nobody tells the gateway that there is room.
            assert await journal.send_again(client) == (BATCH, 0)
            await write_some(client, journal, 2)
    await require_all_is_there(gateway, small_disk, journal, tmp_path / "end")


async def test_a_gateway_killed_on_a_full_disk_comes_back(
    start_faulty_gateway: StartGateway, small_disk: SmallDisk, tmp_path: Path
) -> None:
    gateway, journal = start_on(small_disk, start_faulty_gateway), Journal()
    async with AsyncClient(gateway.address, options=RETURNING) as client:
        await write_some(client, journal, 4)
        small_disk.fill()
        await write_until_full(client, journal)
    gateway.kill()
    gateway.start()
    async with AsyncClient(gateway.address, options=RETURNING) as client:
        await require_refusals_and_reads(client, journal)
        small_disk.give_room()
        assert await journal.send_again(client) == (BATCH, 0)
    await require_all_is_there(gateway, small_disk, journal, tmp_path / "end")


async def test_a_full_quota_refuses_writes_until_it_is_raised(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    journal, quota = Journal(), 2**21
    gateway = start_gateway(max_state_bytes=quota)
    async with AsyncClient(gateway.address, options=RETURNING) as client:
        refusal = await write_until_full(client, journal)
        assert (refusal.code, refusal.reason) == STORAGE_FULL
        assert journal.acknowledged
        await require_refusals_and_reads(client, journal)
    assert gateway.terminate() == 0
    state = tmp_path / "state.db"
    require_sound(state)
    assert state.stat().st_size <= quota
    larger = start_gateway(max_state_bytes=16 * quota)
    async with AsyncClient(larger.address, options=RETURNING) as client:
        assert await journal.send_again(client) == (BATCH, 0)
        await write_some(client, journal, 2)
    assert await audit(larger, state, journal) == NOTHING
