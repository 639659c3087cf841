"""The watch: solves what is due, and tells what has changed.

Events only put their user in line, so that their acknowledgement never waits for solving. The
watch takes users from the line and from the alarms that are due, compares how their interests
stand with what was told last, and writes in one step what is new and when to look again. What came
between, an event or another gateway on the same store, leaves the alarm as it is: it is solved
again. So nothing is lost by a crash, and nothing told twice.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

import structlog

from ebbing.interest.states import InterestState
from server.errors import EbbingError
from server.metrics import Metrics
from server.solving import Assess, solved_alarms
from server.state.alarms import Alarm, Alarms, Settlement

__all__ = ["News", "Watch", "WatchConfig"]

RETRY_S = 1.0
"""Pause after the store refused."""
TIDY_S = 1.0
"""Time between looking after what is kept and what is to be solved anew."""
PRUNED_AT_ONCE = 5000
COUNTED = 100_000
PUT_OFF_US = 3_600_000_000
"""How long a user that cannot be solved is left alone, microseconds."""

Result = TypeVar("Result")

log = structlog.get_logger()


class News:
    """Wakes those who wait for transitions."""

    def __init__(self) -> None:
        """Set up, with nothing to tell."""
        self._next = asyncio.Event()
        self.closed = False

    def spread(self) -> None:
        """There are transitions."""
        current, self._next = self._next, asyncio.Event()
        current.set()

    def close(self) -> None:
        """There is nothing to wait for any more."""
        self.closed = True
        self.spread()

    async def wait(self, at_most_s: float) -> None:
        """Return when there may be transitions."""
        current = self._next
        if not self.closed:
            with suppress(TimeoutError):
                async with asyncio.timeout(at_most_s):
                    await current.wait()


@dataclass(frozen=True)
class WatchConfig:
    """How the watch works."""

    batch: int
    """Users solved together at most."""
    share: float
    """Share of the writing thread's time for touched users while events wait, above 0 to 1."""
    poll_s: float
    """Time between looks for what other processes wrote, seconds."""
    renewal_s: float
    """Over how long alarms solved with other parameters are solved anew, seconds."""
    kept_s: float
    """How long transitions are kept, seconds."""


class _Batch(NamedTuple):
    solved: int
    touched_s: float
    """Time that the touched ones took, seconds."""
    told: bool
    """Whether there are transitions."""
    rest_s: float
    """Seconds until there may be more to solve."""


class Watch:
    """Solves alarms; ``run`` is the task that does."""

    def __init__(
        self,
        alarms: Alarms,
        writer: Executor,
        assess: Callable[[], Assess],
        news: News,
        metrics: Metrics,
        now_us: Callable[[], int],
        touched: asyncio.Event,
        busy: Callable[[], bool],
        config: WatchConfig,
    ) -> None:
        """Set up.

        Args:
            alarms: what is to be solved.
            writer: the one thread that writes to the store.
            assess: gives the forgetting model in service.
            news: is told of transitions.
            metrics: counts them.
            now_us: microseconds since the epoch.
            touched: set whenever users may have been touched.
            busy: whether events wait to be written.
            config: how to work.
        """
        self._alarms = alarms
        self._writer = writer
        self._assess = assess
        self._news = news
        self._metrics = metrics
        self._now_us = now_us
        self._touched = touched
        self._busy = busy
        self._config = config
        self._tidy_at = self._touched_at = 0.0

    async def run(self) -> None:
        """Solve what is due until cancelled."""
        while True:
            try:
                await self._round()
            except EbbingError as error:
                log.warning("alarms wait: the store refused", error=error.message)
                await asyncio.sleep(RETRY_S)
            except Exception:
                log.exception("alarms wait: unforeseen failure")
                await asyncio.sleep(RETRY_S)

    async def _round(self) -> None:
        """Solve one batch, or rest until there may be something to solve."""
        now = asyncio.get_running_loop().time
        self._touched.clear()
        if now() >= self._tidy_at:
            self._tidy_at = now() + TIDY_S
            await self._write(self.tidy)
        # Events first: while some wait to be acknowledged, those that have been are looked into
        # for a share of the time only. What is due is due.
        held_s = self._touched_at - now() if self._busy() else 0.0
        batch = await self._write(partial(self.solve, touched=held_s <= 0))
        if batch.touched_s:
            self._touched_at = now() + batch.touched_s * (1 / self._config.share - 1)
        if batch.told:
            self._news.spread()
        rest_s = min(batch.rest_s, held_s) if held_s > 0 else batch.rest_s
        if rest_s > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(rest_s):
                    await self._touched.wait()

    async def _write(self, work: Callable[[], Result]) -> Result:
        """Have the writing thread do something; cancelled, it is done still, and waited for."""
        job = asyncio.get_running_loop().run_in_executor(self._writer, work)
        try:
            return await asyncio.shield(job)
        finally:
            await asyncio.gather(job, return_exceptions=True)

    def solve(self, touched: bool = True) -> _Batch:
        """Solve one batch of what is due now, and of the touched if told to; on the writing thread.

        Raises:
            StorageFull, StoreUnavailable: the store refused; nothing was written.
        """
        began = time.perf_counter()
        half = math.ceil(self._config.batch / 2)
        alarms = self._alarms.due(self._now_us(), half, half if touched else 0)
        if not alarms:
            return _Batch(0, 0.0, False, self._until_due_s())
        settlements = self._settlements(alarms, self._assess())
        written = self._alarms.settle(settlements, self._now_us())
        told = False
        by_owner = {alarm.owner: alarm for alarm in alarms}
        for settlement, counts in zip(settlements, written, strict=True):
            if counts:
                self._count(by_owner[settlement.owner], settlement)
                told |= bool(settlement.transitions)
        share = sum(alarm.touched for alarm in alarms) / len(alarms)
        return _Batch(len(alarms), share * (time.perf_counter() - began), told, 0.0)

    def _until_due_s(self) -> float:
        """Seconds until something is due, or another process may have written something."""
        due_us = self._alarms.next_due_us()
        if due_us is None:
            return self._config.poll_s
        return min((due_us - self._now_us()) / 1e6, self._config.poll_s)

    def tidy(self) -> None:
        """Forget old transitions, and have alarms of other parameters solved anew, a share a time.

        All of them at once would make everybody else wait; on the writing thread.
        """
        now_us = self._now_us()
        self._alarms.prune(now_us - round(self._config.kept_s * 1e6), PRUNED_AT_ONCE)
        self._alarms.renew(self._assess().parameters, TIDY_S / self._config.renewal_s)
        self._metrics.alarms_waiting.set(self._alarms.waiting(now_us, COUNTED))

    def _settlements(self, alarms: Sequence[Alarm], assess: Assess) -> list[Settlement]:
        now_us = self._now_us()
        failures: list[Exception] = []

        def solved(some: Sequence[Alarm]) -> list[Settlement]:
            try:
                return solved_alarms(some, assess, now_us)
            except Exception as error:
                if len(some) > 1:
                    return solved(some[::2]) + solved(some[1::2])
                # One that cannot be solved, whatever the reason, must not be in everybody's way.
                failures.append(error)
                (one,) = some
                return [Settlement(one.owner, one.version, None, now_us + PUT_OFF_US)]

        settlements = solved(alarms)
        if failures:
            log.error("alarms cannot be solved", users=len(failures), exc_info=failures[0])
        return settlements

    def _count(self, alarm: Alarm, settlement: Settlement) -> None:
        self._metrics.alarms.labels("event" if alarm.touched else "time").inc()
        now_us = self._now_us()
        if alarm.due_us is not None and alarm.due_us <= now_us:
            self._metrics.alarm_lag.observe((now_us - alarm.due_us) / 1e6)
        for transition in settlement.transitions:
            before, after = (
                InterestState(state).name.lower()
                for state in (transition.from_state, transition.to_state)
            )
            self._metrics.transitions.labels(before, after).inc()
