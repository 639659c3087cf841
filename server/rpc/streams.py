"""Streams that answer every message, in order, while working on several at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

__all__ = ["answer_in_order"]

Message = TypeVar("Message")
Answer = TypeVar("Answer")

WIDTH = 64
"""Messages of one stream worked on at once; the sender waits while this many are."""


async def answer_in_order(
    messages: AsyncIterator[Message], handle: Callable[[Message], Awaitable[Answer]]
) -> AsyncIterator[Answer]:
    """Answer each message as ``handle`` does, in the order of the messages."""
    running: asyncio.Queue[asyncio.Future[Answer] | None] = asyncio.Queue()
    room = asyncio.Semaphore(WIDTH)

    async def read() -> None:
        async for message in messages:
            await room.acquire()
            running.put_nowait(asyncio.ensure_future(handle(message)))

    reader = asyncio.create_task(read())
    reader.add_done_callback(lambda _: running.put_nowait(None))
    try:
        while (answer := await running.get()) is not None:
            yield await answer
            room.release()
        await reader
    finally:
        left: list[asyncio.Future[Any]] = [reader]
        while not running.empty():
            if (unanswered := running.get_nowait()) is not None:
                left.append(unanswered)
        for work in left:
            work.cancel()
        # Nothing outlives the stream, and no failure nobody asks for any more is left unseen.
        await asyncio.gather(*left, return_exceptions=True)
