"""Releases in service: verified, loaded into Triton, warmed up, asked through micro-batchers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ebbing.features import CANDIDATE_FEATURES
from ebbing.history import HISTORY_LENGTH, MODEL_TENSORS, EncodedHistory
from ebbing.interest.forgetting import ForgettingParameters
from ebbing.manifest import Manifest, ManifestError, releases
from server.errors import ReleaseNotFound
from server.inference.batcher import BatcherConfig, BatchObserver, MicroBatcher
from server.inference.errors import InferenceError, InferenceFailed, ModelLoadError
from server.inference.triton import ModelContract, TritonClient, check_contract

__all__ = ["CANDIDATE_BUCKETS", "LoadedRelease", "Releases", "Retrieved"]

CANDIDATE_BUCKETS = (32, 128, 512)
"""Candidates are padded to one of these: TorchScript compiles anew for every shape it meets."""
ROW_BUCKETS = (1, 2, 4, 8, 16, 32, 64)
WARM_UP_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Retrieved:
    """What the retrieval model answered for one user."""

    keys: NDArray[np.int64]
    """(K,) item keys, best first."""
    scores: NDArray[np.float32]
    """(K,) scores."""
    oov_count: int
    """History items the model does not know."""


class LoadedRelease:
    """One release, ready to be asked."""

    def __init__(
        self,
        manifest: Manifest,
        forgetting: ForgettingParameters,
        batchers: dict[str, MicroBatcher],
        clock: Callable[[], float],
        timeout_s: float,
    ) -> None:
        """Set up; ``clock`` is the batchers', ``timeout_s`` bounds one call to Triton."""
        self.manifest = manifest
        self.release = manifest.release
        self.forgetting = forgetting
        self._batchers = batchers
        self._clock = clock
        self._timeout_s = timeout_s

    async def retrieve(self, history: EncodedHistory, budget_s: float) -> Retrieved:
        """The items nearest to a user, within ``budget_s`` seconds.

        Raises:
            InferenceError: no usable answer in time.
        """
        answer = await self._ask("retrieval", _history_inputs(history), budget_s)
        keys, scores = answer["ITEM_KEYS__0"][0], answer["SCORES__1"][0]
        if not np.isfinite(scores).all():
            raise InferenceFailed("the retrieval model answered scores that are not finite")
        return Retrieved(keys, scores, int(answer["OOV_COUNT__3"][0, 0]))

    async def rank(
        self,
        history: EncodedHistory,
        keys: NDArray[np.int64],
        features: NDArray[np.float32],
        budget_s: float,
    ) -> NDArray[np.float32]:
        """Relevance of (C,) candidates with (C, F) features, (C,) from 0 to 1.

        Raises:
            InferenceError: no usable answer in time.
        """
        count = len(keys)
        padded = next(size for size in CANDIDATE_BUCKETS if count <= size)
        inputs = _history_inputs(history)
        inputs["CANDIDATE_KEYS__3"] = np.pad(keys, (0, padded - count))[None]
        inputs["CANDIDATE_FEATURES__4"] = np.pad(features, ((0, padded - count), (0, 0)))[None]
        answer = await self._ask("ranking", inputs, budget_s)
        relevance = answer["RELEVANCE__0"][0, :count].astype(np.float32)
        if not np.isfinite(relevance).all():
            raise InferenceFailed("the ranking model answered relevance that is not finite")
        return relevance

    async def drain(self) -> None:
        """Refuse new questions; return when the running ones are answered."""
        await asyncio.gather(*(batcher.drain() for batcher in self._batchers.values()))

    async def _ask(
        self, model: str, inputs: dict[str, NDArray[np.generic]], budget_s: float
    ) -> dict[str, NDArray[np.generic]]:
        deadline = self._clock() + min(budget_s, self._timeout_s)
        version = self.manifest.models[model].version
        answer = await self._batchers[model].submit(model, version, inputs, deadline=deadline)
        return dict(answer)


class Releases:
    """The releases this gateway has in service."""

    def __init__(
        self,
        repository: Path,
        triton: TritonClient,
        observer: BatchObserver,
        clock: Callable[[], float],
        timeout_s: float,
    ) -> None:
        """Set up; ``clock`` gives monotonic seconds, ``timeout_s`` bounds a call to Triton."""
        self.repository = repository
        self._triton = triton
        self._observer = observer
        self._clock = clock
        self._timeout_s = timeout_s
        self._loaded: dict[int, LoadedRelease] = {}
        self._live = 0

    async def serve(self, release: int) -> LoadedRelease:
        """Verify, load and warm up a release (0: the newest) and make it the live one.

        Raises:
            ManifestError: it is not in the repository, or not what it declares.
            ModelLoadError: its models do not fit their config.pbtxt, or Triton cannot load them.
            InferenceError: Triton does not answer.
        """
        published = releases(self.repository)
        number = release or (published[-1] if published else 1)
        manifest = Manifest.read(self.repository, number)
        forgetting = manifest.verify(self.repository)
        if set(manifest.models) != set(MODEL_TENSORS):
            raise ManifestError(
                f"release {number} has models {sorted(manifest.models)}, this gateway serves"
                f" {sorted(MODEL_TENSORS)}: train and publish with this version"
            )
        batchers = {}
        for name, model in manifest.models.items():
            contract = check_contract(self.repository, name, *MODEL_TENSORS[name])
            await self._triton.load(name, [model.version], self.repository)
            await self._warm_up(name, model.version, contract)
            batchers[name] = MicroBatcher(
                self._triton.infer,
                clock=self._clock,
                config=BatcherConfig(
                    max_rows=contract.max_batch_size,
                    instances=contract.instances,
                    call_timeout_s=self._timeout_s,
                ),
                observer=self._observer,
            )
        loaded = LoadedRelease(manifest, forgetting, batchers, self._clock, self._timeout_s)
        self._loaded[number] = loaded
        self._live = number
        return loaded

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
        await asyncio.gather(*(loaded.drain() for loaded in self._loaded.values()))

    async def _warm_up(self, name: str, version: int, contract: ModelContract) -> None:
        """Show each shape of the traffic twice: TorchScript profiles first, then compiles."""
        rows = [size for size in ROW_BUCKETS if size <= contract.max_batch_size]
        candidates = CANDIDATE_BUCKETS if name == "ranking" else (0,)
        try:
            for count in candidates:
                for size in rows:
                    inputs = _blank_inputs(name, size, count)
                    for _ in range(2):
                        calls = [
                            self._triton.infer(name, version, inputs, WARM_UP_TIMEOUT_S)
                            for _ in range(contract.instances)
                        ]
                        await asyncio.gather(*calls)
        except InferenceError as error:
            raise ModelLoadError(
                f"{name} version {version} loads but does not answer: look into Triton's log,"
                " and publish the release again",
                detail=error.detail or str(error),
            ) from error


def _history_inputs(history: EncodedHistory) -> dict[str, NDArray[np.generic]]:
    return {
        "HISTORY_KEYS__0": history.keys[None],
        "HISTORY_AGES__1": history.ages[None],
        "HISTORY_TYPES__2": history.types[None],
    }


def _blank_inputs(name: str, rows: int, candidates: int) -> dict[str, NDArray[np.generic]]:
    inputs: dict[str, NDArray[np.generic]] = {
        "HISTORY_KEYS__0": np.zeros((rows, HISTORY_LENGTH), np.int64),
        "HISTORY_AGES__1": np.zeros((rows, HISTORY_LENGTH), np.float32),
        "HISTORY_TYPES__2": np.zeros((rows, HISTORY_LENGTH), np.int32),
    }
    if name == "ranking":
        width = len(CANDIDATE_FEATURES)
        inputs["CANDIDATE_KEYS__3"] = np.zeros((rows, candidates), np.int64)
        inputs["CANDIDATE_FEATURES__4"] = np.zeros((rows, candidates, width), np.float32)
    return inputs
