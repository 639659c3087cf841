"""Work nobody waits for."""

from __future__ import annotations

import asyncio

from server.recommend.background import Background


async def test_there_is_never_more_than_there_is_room_for() -> None:
    background, done = Background(2), []

    async def work(number: int) -> None:
        await asyncio.sleep(0)
        done.append(number)

    assert [background.offer(work(n)) for n in range(3)] == [True, True, False]
    await asyncio.sleep(0.01)
    assert done == [0, 1]
    assert background.offer(work(3))
    await asyncio.sleep(0.01)
    assert done == [0, 1, 3]


async def test_a_failure_is_told_and_makes_room(logged: list) -> None:
    background = Background(1)

    async def fail() -> None:
        raise RuntimeError("broken")

    background.offer(fail())
    await asyncio.sleep(0.01)
    assert [entry["event"] for entry in logged] == ["work in the background failed"]
    assert background.offer(asyncio.sleep(0))
    await asyncio.sleep(0.01)


async def test_draining_gives_up_what_runs() -> None:
    background = Background(1)
    background.offer(asyncio.sleep(60))
    async with asyncio.timeout(1):
        await background.drain()
    assert background.offer(asyncio.sleep(0))
    await background.drain()
