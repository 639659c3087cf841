"""Work that no caller waits for: bounded, and never more than there is room for."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

__all__ = ["Background"]

log = structlog.get_logger()


class Background:
    """Runs what it is offered, at most so many at a time; what is over that is left out."""

    def __init__(self, limit: int) -> None:
        """Set up for ``limit`` at a time."""
        self._limit = limit
        self._running: set[asyncio.Task[None]] = set()

    def offer(self, work: Coroutine[Any, Any, None]) -> bool:
        """Run it if there is room; whether there was."""
        if len(self._running) >= self._limit:
            work.close()
            return False
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return True

    async def drain(self) -> None:
        """Give up what still runs."""
        running = list(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("work in the background failed", exc_info=error)
