"""Keeping to the plan: releases are taken into service and dropped as the shared plan says.

All gateways of a store read one plan and replace it only if nobody else has meanwhile. A gateway
goes on with the plan it has until it holds every release of the next one ready, so a change of
releases costs no request. Releases that left the plan linger until every gateway must have heard.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

import structlog

from ebbing.manifest import ManifestError
from server.errors import (
    EbbingError,
    ReleaseNotFound,
    ReleaseUnusable,
    RolloutChanged,
    StoreUnavailable,
)
from server.inference.errors import InferenceError, TritonUnavailable
from server.inference.loaded import LoadedRelease
from server.inference.releases import Releases
from server.metrics import Metrics
from server.rollout.guardrails import Guardrails, Observation
from server.rollout.plan import Plan, Role, Trial
from server.state.store import Rollout, Store
from server.watch import News

__all__ = ["RolloutConfig", "RolloutControl"]

log = structlog.get_logger()


@dataclass(frozen=True)
class RolloutConfig:
    """How a gateway keeps to the plan."""

    poll_s: float = 1.0
    """How often the plan is read and releases are judged, seconds."""
    linger_s: float = 15.0
    """How long a release that left the plan stays loaded, seconds; other gateways of the same
    Triton may still ask it until they have read the plan."""
    probation_s: float = 600.0
    """How long after its promotion a live release is judged, against the one before, seconds."""


class RolloutControl:
    """The rollout as one gateway sees and changes it."""

    def __init__(
        self,
        store: Store,
        writer: Executor,
        releases: Releases,
        guardrails: Guardrails,
        metrics: Metrics,
        now_us: Callable[[], int],
        clock: Callable[[], float],
        config: RolloutConfig,
    ) -> None:
        """Set up.

        Args:
            store: holds the plan.
            writer: the one thread that writes to the store.
            releases: what this gateway has in service.
            guardrails: judge what is tried.
            metrics: tell roles and rollbacks.
            now_us: microseconds since the epoch.
            clock: monotonic seconds, the guardrails' own.
            config: how to work.
        """
        self._store = store
        self._writer = writer
        self._releases = releases
        self._guardrails = guardrails
        self._metrics = metrics
        self._now_us = now_us
        self._clock = clock
        self._config = config
        self._since: dict[int, float] = {}
        self._leaving: dict[int, float] = {}
        self._turn = asyncio.Lock()
        self.plan = Plan()
        """The plan in force here: all its releases are ready."""
        self.news = News()
        """Tells whoever waits that another plan is in force."""

    async def begin(self, first: int) -> LoadedRelease:
        """Take the plan's releases into service.

        Without a plan, release ``first`` (0: the newest) begins one. Where the plan's live release
        is in the repository no more, the newest one becomes live.

        Raises:
            ManifestError, InferenceError: the live release cannot be served.
        """
        plan = self._stored()
        if first and plan.live and first != plan.live:
            log.warning("the rollout is past the release named", named=first, live=plan.live)
        why = "the rollout began"
        try:
            live = await self._releases.serve(plan.live or first)
        except ManifestError as error:
            if not plan.live:
                raise
            why = f"release {plan.live} cannot be served: {error}"
            log.warning("the live release is not to be had", release=plan.live, error=str(error))
            live = await self._releases.serve(0)
        if live.release != plan.live:
            promoted = plan.promoted(live.release, self._now_us(), why)
            # Whoever is beaten to it follows the winner's plan.
            plan = promoted if await self._write(promoted) else self._stored()
        await self._follow(plan)
        return live

    async def run(self) -> None:
        """Follow the plan and guard it until cancelled."""
        while True:
            await asyncio.sleep(self._config.poll_s)
            try:
                await self.look()
            except EbbingError as error:
                log.warning("rollout waits: the store refused", error=error.message)
            except Exception:
                log.exception("rollout waits: unforeseen failure")

    async def look(self) -> None:
        """One look: follow a plan that changed, judge what is tried, drop what has left."""
        async with self._turn:
            plan = self._stored()
            if plan.version != self.plan.version:
                await self._follow(plan)
            await self._guard()
            for number, since in list(self._leaving.items()):
                if self._clock() - since >= self._config.linger_s:
                    del self._leaving[number]
                    await self._releases.drop(number)
                    self._guardrails.forget(number)

    def serving(self, user_id: str, release: int = 0) -> LoadedRelease:
        """The release that answers a user, or the one that was asked for.

        Raises:
            ReleaseNotFound: the one asked for is not in service here.
        """
        return self._releases.get(release or self.plan.serving(user_id))

    def shadowing(self, user_id: str) -> LoadedRelease | None:
        """The release that is asked beside for a user, if any."""
        number = self.plan.shadowing(user_id)
        return self._releases.get(number) if number else None

    def observe(self, release: int, observation: Observation) -> None:
        """Remember what a release did."""
        self._guardrails.observe(release, observation)

    async def try_release(self, release: int, role: Role, share: float) -> Plan:
        """Try a release beside the live one.

        Raises:
            AlreadyLive, TrialUnderWay: see ``Plan.tried``.
            ReleaseNotFound, ReleaseUnusable: it is not there, or does not serve.
            RolloutChanged: somebody else changed the plan meanwhile.
        """
        trial = Trial(release, role, share)
        return await self._change(lambda plan: plan.tried(trial), release)

    async def promote(self, release: int) -> Plan:
        """Give a release all the traffic.

        Raises:
            AlreadyLive: it has it already.
            ReleaseNotFound, ReleaseUnusable, RolloutChanged: as for ``try_release``.
        """
        return await self._change(lambda plan: plan.promoted(release, self._now_us()), release)

    async def roll_back(self, why: str, release: int = 0) -> Plan:
        """End what is tried; or, where nothing is, make the release before live again.

        With a ``release`` named, it is that one which is rolled back.

        Raises:
            NothingToRollBack: neither is there.
            ReleaseNotFound, ReleaseUnusable, RolloutChanged: as for ``try_release``.
        """
        why = why or "asked for"
        return await self._change(lambda plan: plan.rolled_back(self._now_us(), why, release))

    async def _change(self, change: Callable[[Plan], Plan], release: int = 0) -> Plan:
        """As ``_changed``; goes on to its end if whoever asked for it goes away."""
        return await asyncio.shield(asyncio.create_task(self._changed(change, release)))

    async def _changed(self, change: Callable[[Plan], Plan], release: int) -> Plan:
        """Put a changed plan into force, once the release it needs has proved itself here."""
        async with self._turn:
            plan = change(self._stored())
            needed = release or plan.live
            await self._prove(needed)
            if not await self._write(plan):
                if needed not in self.plan.in_service:
                    self._leaving.setdefault(needed, self._clock())
                raise RolloutChanged(
                    "somebody else changed the rollout at the same time: look at it again"
                )
            await self._follow(plan)
            return plan

    async def _prove(self, needed: int) -> None:
        try:
            await self._releases.take(needed)
        except ManifestError as error:
            missing = needed not in self._releases.published()
            kind = ReleaseNotFound if missing else ReleaseUnusable
            raise kind(str(error), {"release": str(needed)}) from error
        except InferenceError as error:
            log.warning("release unusable", release=needed, error=str(error), detail=error.detail)
            raise ReleaseUnusable(str(error), {"release": str(needed)}) from error

    async def _follow(self, plan: Plan) -> None:
        """Have all releases of a plan ready, then keep to it; until then to the one before."""
        for number in sorted(plan.in_service):
            try:
                await self._releases.take(number)
            except TritonUnavailable:
                return  # The next look tries again.
            except (ManifestError, InferenceError) as error:
                log.warning("release unusable", release=number, error=str(error))
                why = f"a gateway cannot serve it: {error}"
                without = plan.without(number, self._now_us(), why)
                if without is not plan and await self._write(without):
                    await self._follow(without)
                return
        for number in self.plan.in_service - plan.in_service:
            self._leaving[number] = self._clock()
        for number in plan.in_service:
            self._leaving.pop(number, None)
            if plan.role_of(number)[0] is not self.plan.role_of(number)[0]:
                self._since[number] = self._clock()
        self.plan = plan
        self._releases.lead(plan.live)
        self._tell()

    async def _guard(self) -> None:
        for number, other in self._judged():
            breach = self._guardrails.judge(
                number, other, self._since.get(number, 0.0), self._clock()
            )
            if breach is None:
                continue
            plan = self.plan.without(
                number, self._now_us(), f"guardrail {breach.guardrail}: {breach.reason}"
            )
            if plan is not self.plan and await self._write(plan):
                log.warning("rolled back", release=number, reason=plan.reasons[number])
                self._metrics.rollbacks.labels(breach.guardrail).inc()
                await self._follow(plan)
            return

    def _judged(self) -> list[tuple[int, int]]:
        """Releases that are judged, each with the one it is compared with."""
        plan = self.plan
        pairs = [(trial.release, plan.live) for trial in plan.trials]
        live_s = (self._now_us() - plan.live_us) / 1e6
        if plan.before and live_s < self._config.probation_s:
            pairs.append((plan.live, plan.before))
        return pairs

    def _stored(self) -> Plan:
        try:
            return Plan.read(*self._store.rollout())
        except ValueError as error:
            log.exception("rollout plan unreadable")
            raise StoreUnavailable("the rollout plan in the store does not read") from error

    async def _write(self, plan: Plan) -> bool:
        row = Rollout(plan.version, plan.body)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._writer, lambda: self._store.write_rollout(row))

    def _tell(self) -> None:
        plan, metrics = self.plan, self._metrics
        metrics.release_info.clear()
        metrics.release_traffic.clear()
        for number in plan.in_service:
            role, share = plan.role_of(number)
            digest = self._releases.get(number).manifest.layout_digest
            metrics.release_info.labels(str(number), digest[:12]).set(1)
            metrics.release_traffic.labels(str(number), role.name.lower()).set(share)
        log.info(
            "rollout", version=plan.version, live=plan.live, reason=plan.reasons.get(plan.live)
        )
        self.news.spread()
