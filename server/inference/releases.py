"""Releases in service: verified, loaded into Triton, warmed up, had back when Triton loses them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from ebbing.history import MODEL_TENSORS
from ebbing.manifest import Manifest, ManifestError, Trust, releases
from server.errors import ReleaseNotFound
from server.inference.batcher import BatcherConfig, BatchObserver, MicroBatcher, buckets
from server.inference.errors import (
    InferenceError,
    InferenceFailed,
    ModelLoadError,
    TritonUnavailable,
)
from server.inference.loaded import CANDIDATE_BUCKETS, LoadedRelease, blank_inputs
from server.inference.triton import ModelContract, TritonClient, check_contract

__all__ = ["Releases"]

WARM_UP_TIMEOUT_S = 60.0
PROBE_TIMEOUT_S = 5.0
RETRY_S = 0.5
"""Pause between attempts to get the models back from a Triton that lost them."""

log = structlog.get_logger()


class Releases:
    """The releases this gateway has in service.

    A Triton that restarts holds no model, and one whose model process died says that it does: as
    soon as an answer looks like either, the models are probed and, if need be, loaded again in the
    background. Until then callers get the failures.
    """

    def __init__(
        self,
        repository: Path,
        triton: TritonClient,
        observer: BatchObserver,
        clock: Callable[[], float],
        timeout_s: float,
        trust: Trust | None = None,
    ) -> None:
        """Set up; ``clock`` gives monotonic seconds, ``timeout_s`` bounds a call to Triton.

        ``trust`` says whose releases may be served; without it, anybody's.
        """
        self.repository = repository
        self._trust = trust
        self._triton = triton
        self._observer = observer
        self._clock = clock
        self._timeout_s = timeout_s
        self._loaded: dict[int, LoadedRelease] = {}
        self._live = 0
        # What is in service and what Triton is told to hold change together.
        self._control = asyncio.Lock()
        self._restoring: asyncio.Task[None] | None = None

    def published(self) -> list[int]:
        """The complete releases of the repository, ascending."""
        return releases(self.repository)

    def newest(self) -> int:
        """The newest release of the repository; 1 where there is none yet."""
        published = self.published()
        return published[-1] if published else 1

    async def serve(self, release: int) -> LoadedRelease:
        """Take a release (0: the newest) into service and make it the live one.

        Raises:
            ManifestError, ModelLoadError, InferenceError: as ``take``.
        """
        loaded = await self.take(release or self.newest())
        self._live = loaded.release
        return loaded

    async def take(self, number: int) -> LoadedRelease:
        """Verify, load and warm up a release, beside those in service; nothing if it is there.

        Raises:
            ManifestError: it is not in the repository, not what it declares, not signed by
                anybody trusted, or its models do more than compute.
            ModelLoadError: its models do not fit their config.pbtxt, or Triton cannot load them.
            InferenceError: Triton does not answer.
        """
        async with self._control:
            if number not in self._loaded:
                self._loaded[number] = await self._take(number)
                if not self._trust:
                    log.warning(
                        "nobody vouches for this release: no release_key_file", release=number
                    )
            return self._loaded[number]

    async def _take(self, number: int) -> LoadedRelease:
        manifest = Manifest.read(self.repository, number, self._trust)
        # Files of gigabytes take seconds to read, and others are being answered.
        forgetting = await asyncio.to_thread(manifest.verify, self.repository)
        contracts = {
            name: check_contract(self.repository, name, *MODEL_TENSORS[name])
            for name in manifest.models
        }
        try:
            for name, contract in contracts.items():
                await self._load(name, manifest, contract)
        except InferenceError:
            await self._unload_rest()
            raise
        batchers = {
            name: MicroBatcher(
                self._triton.infer,
                clock=self._clock,
                config=BatcherConfig(
                    max_rows=contract.max_batch_size,
                    instances=contract.instances,
                    call_timeout_s=self._timeout_s,
                ),
                observer=self._observer,
            )
            for name, contract in contracts.items()
        }
        return LoadedRelease(
            manifest, forgetting, batchers, self._clock, self._timeout_s, self._doubt
        )

    async def drop(self, number: int) -> None:
        """Take a release out of service: what it was asked is answered, then it is unloaded.

        A Triton that does not answer keeps the models until the next load, which leaves them out.
        """
        async with self._control:
            loaded = self._loaded.pop(number, None)
            if loaded is not None:
                await loaded.drain()
                await self._unload_rest()

    async def _unload_rest(self) -> None:
        """Have Triton hold what is in service and nothing else."""
        for name in MODEL_TENSORS:
            versions = self._versions(name)
            if versions:
                with suppress(InferenceError):
                    await self._triton.load(name, versions, self.repository)

    def _versions(self, model: str) -> list[int]:
        """Versions of a model that releases in service are made of."""
        held = (loaded.manifest.models.get(model) for loaded in self._loaded.values())
        return sorted({files.version for files in held if files})

    def in_service(self) -> list[LoadedRelease]:
        """All releases in service."""
        return list(self._loaded.values())

    def lead(self, number: int) -> None:
        """Make a release that is in service the live one."""
        self._live = self.get(number).release

    def get(self, release: int) -> LoadedRelease:
        """A release in service; 0 is the live one.

        Raises:
            ReleaseNotFound: it is not in service here.
        """
        number = release or self._live
        if number not in self._loaded:
            known = ", ".join(map(str, self._loaded))
            raise ReleaseNotFound(
                f"release {number} is not in service (in service: {known})",
                {"release": str(number)},
            )
        return self._loaded[number]

    async def drain(self) -> None:
        """Refuse new questions; return when the running ones are answered."""
        if self._restoring is not None:
            self._restoring.cancel()
            await asyncio.wait([self._restoring])
        await asyncio.gather(*(loaded.drain() for loaded in self._loaded.values()))

    def _doubt(self) -> None:
        """See to it that the models are there; one such task at a time."""
        if self._restoring is None or self._restoring.done():
            self._restoring = asyncio.create_task(self._restore())

    async def _restore(self) -> None:
        """Return once every model of every release answers again, however long that takes."""
        told = False
        while True:
            try:
                async with self._control:
                    held = list(self._loaded.values())
                    restored = [await self._revive(loaded.manifest) for loaded in held]
            except (InferenceError, ManifestError) as error:
                if not told:
                    detail = error.detail if isinstance(error, InferenceError) else ""
                    log.warning("models lost", error=str(error), detail=detail)
                    told = True
                await asyncio.sleep(RETRY_S)
            else:
                if told or any(restored):
                    log.info("models restored")
                return

    async def _revive(self, manifest: Manifest) -> bool:
        """Have the models of a release answer; True if one had to be loaded for it.

        Raises:
            InferenceError, ManifestError: it cannot be done now.
        """
        revived = False
        for name, model in manifest.models.items():
            contract = check_contract(self.repository, name, *MODEL_TENSORS[name])
            blank = blank_inputs(name, 1, CANDIDATE_BUCKETS[0])
            try:
                await self._ask_instances(name, model.version, contract, blank, PROBE_TIMEOUT_S)
                continue
            except InferenceFailed:
                if manifest.release != self._live:
                    # Repairing it would take the live release's version down with it; a release
                    # that is only tried is rolled back instead.
                    continue
                # The process behind an instance is gone; only unloading makes Triton notice.
                await self._triton.unload(name)
            except TritonUnavailable:
                if not await self._triton.server_ready():
                    raise
            await asyncio.to_thread(manifest.verify, self.repository)
            await self._load(name, manifest, contract)
            revived = True
        return revived

    async def _load(self, name: str, manifest: Manifest, contract: ModelContract) -> None:
        """Load a release's version of a model beside those in service, and warm it up."""
        version = manifest.models[name].version
        versions = sorted({*self._versions(name), version})
        held = await self._triton.model_ready(name, version)
        await self._triton.load(name, versions, self.repository)
        await self._warm_up(name, version, contract, held)

    async def _warm_up(self, name: str, version: int, contract: ModelContract, held: bool) -> None:
        """Show every instance each shape of the traffic: the first of a shape is the slowest.

        One that Triton ``held`` already, for a gateway before this one, has seen them: it only has
        to answer.
        """
        candidates = CANDIDATE_BUCKETS if name == "ranking" else (0,)
        sizes = buckets(contract.max_batch_size)
        if held:
            candidates, sizes = candidates[:1], sizes[:1]
        try:
            for count in candidates:
                for size in sizes:
                    inputs = blank_inputs(name, size, count)
                    await self._ask_instances(name, version, contract, inputs, WARM_UP_TIMEOUT_S)
        except InferenceError as error:
            raise ModelLoadError(
                f"{name} version {version} loads but does not answer: look into Triton's log,"
                " and publish the release again",
                detail=error.detail or str(error),
            ) from error

    async def _ask_instances(
        self,
        name: str,
        version: int,
        contract: ModelContract,
        inputs: dict[str, NDArray[np.generic]],
        timeout_s: float,
    ) -> None:
        """As many calls at a time as there are instances, so that each is likely to get one."""
        calls = [
            self._triton.infer(name, version, inputs, timeout_s) for _ in range(contract.instances)
        ]
        await asyncio.gather(*calls)
