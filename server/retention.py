"""Retention periods: what is older is forgotten, a little at a time.

Forgetting goes through the one thread that writes, in bites of some milliseconds; while events
wait to be written it takes a share of that thread's time only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import structlog

from server.errors import EbbingError
from server.metrics import Metrics
from server.state.store import Store, StoreSize

__all__ = ["CLOCK_ERROR_S", "Housekeeping", "RetentionPeriods"]

CLOCK_ERROR_S = 3 * 86400.0
"""How far clocks of gateways may be wrong without an event being counted a second time, seconds."""
PERIOD_S = 60.0
"""Time between looks for what is too old, seconds."""
SHARE = 0.1
"""Share of the writing thread's time while events wait to be written."""
EVENTS_AT_ONCE, USERS_AT_ONCE, DELETIONS_AT_ONCE = 500, 20, 500

Prune = Callable[[int, int], int]
Result = TypeVar("Result")

log = structlog.get_logger()


@dataclass(frozen=True)
class RetentionPeriods:
    """How long things are kept, seconds; 0 is for ever. As ``server.settings`` explains them."""

    events_s: float = 0.0
    inactive_users_s: float = 0.0
    deletions_s: float = 0.0

    def earliest_us(self, now_us: int) -> int:
        """Before when events are refused, microseconds since the epoch; 0: never.

        An event that was forgotten cannot be told from a new one. So they are refused some days
        before they would be forgotten: a clock that is set back must not let them in again.
        """
        if not self.events_s:
            return 0
        return max(0, now_us - round((self.events_s - CLOCK_ERROR_S) * 1e6))


class Housekeeping:
    """Forgets what is too old, and tells how much there is; ``run`` is the task that does."""

    def __init__(
        self,
        store: Store,
        writer: Executor,
        metrics: Metrics,
        now_us: Callable[[], int],
        busy: Callable[[], bool],
        periods: RetentionPeriods,
    ) -> None:
        """Set up.

        Args:
            store: where everything is kept.
            writer: the one thread that writes to the store.
            metrics: is told what went and what is left.
            now_us: microseconds since the epoch.
            busy: whether events wait to be written.
            periods: how long things are kept.
        """
        self._writer = writer
        self._metrics = metrics
        self._now_us = now_us
        self._busy = busy
        self._size: Callable[[], StoreSize] = store.size
        kinds: list[tuple[str, Prune, float, int]] = [
            ("events", store.prune_events, periods.events_s, EVENTS_AT_ONCE),
            ("users", store.prune_users, periods.inactive_users_s, USERS_AT_ONCE),
            ("deletions", store.prune_deletions, periods.deletions_s, DELETIONS_AT_ONCE),
        ]
        self._kinds = [kind for kind in kinds if kind[2]]

    async def run(self) -> None:
        """Keep house until cancelled."""
        while True:
            try:
                await self.tidy()
            except EbbingError as error:
                log.warning("what is too old stays: the store refused", error=error.message)
            except Exception:
                log.exception("what is too old stays: unforeseen failure")
            await asyncio.sleep(PERIOD_S)

    async def tidy(self) -> None:
        """Forget all that is too old now, and measure what is left.

        Raises:
            StorageFull, StoreUnavailable: the store refused; what went before is gone.
        """
        for kind, prune, kept_s, most in self._kinds:
            before_us = self._now_us() - round(kept_s * 1e6)
            while gone := await self._bite(partial(prune, before_us, most)):
                self._metrics.pruned.labels(kind).inc(gone)
        size = await self._bite(self._size)
        self._metrics.state_users.set(size.users)
        self._metrics.state_events.set(size.events)
        self._metrics.state_stored_bytes.set(size.stored_bytes)
        self._metrics.state_bytes_per_user.set(size.stored_bytes / max(1, size.users))

    async def _bite(self, work: Callable[[], Result]) -> Result:
        """Have the writing thread do something, then leave it to events that wait for a while."""
        took_s = 0.0

        def timed() -> Result:
            nonlocal took_s
            began = time.perf_counter()
            try:
                return work()
            finally:
                took_s = time.perf_counter() - began

        result = await asyncio.get_running_loop().run_in_executor(self._writer, timed)
        await asyncio.sleep(took_s * (1 / SHARE - 1) if self._busy() else 0)
        return result
