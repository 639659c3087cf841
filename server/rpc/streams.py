"""Streams that answer every message, in order, while working on several at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

__all__ = ["answer_in_order"]

Message = TypeVar("Message")
Answer = TypeVar("Answer")

WIDTH = 64
"""Messages of one stream worked on at once; the sender waits while this many are."""


async def answer_in_order(
    messages: AsyncIterator[Message], handle: Callable[[Message], Awaitable[Answer]]
) -> AsyncIterator[Answer]:
    """Answer each message as ``handle`` does, in the order of the messages."""
    running: asyncio.Queue[asyncio.Future[Answer] | None] = asyncio.Queue(WIDTH)

    async def read() -> None:
        async for message in messages:
            await running.put(asyncio.ensure_future(handle(message)))
        await running.put(None)

    reader = asyncio.create_task(read())
    try:
        while True:
            following = asyncio.ensure_future(running.get())
            await asyncio.wait({following, reader}, return_when=asyncio.FIRST_COMPLETED)
            if not following.done() and reader.done() and reader.exception():
                following.cancel()
                reader.result()
            answer = await following
            if answer is None:
                return
            yield await answer
    finally:
        reader.cancel()
        while not running.empty():
            if (left := running.get_nowait()) is not None:
                left.cancel()
