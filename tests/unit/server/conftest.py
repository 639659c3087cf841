"""What most parts of the gateway are set up on: a store, its one writer, metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from ebbing.history import LAYOUT_DIGEST
from ebbing.interest.forgetting import ForgettingParameters
from ebbing.manifest import Manifest, ModelFiles
from server.inference.batcher import InferencePort, MicroBatcher
from server.inference.loaded import LoadedRelease
from server.metrics import Metrics
from server.state.sqlite import SqliteStore
from tests.harness.state import records

Sample = Callable[..., float]
"""The value of a metric with labels; 0 where it was never touched."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(tmp_path / "state.db", records())) as opened:
        yield opened


@pytest.fixture
def writer() -> Iterator[Executor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry)


@pytest.fixture
def sample(registry: CollectorRegistry) -> Sample:
    return lambda name, **labels: registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
def loaded() -> Callable[..., LoadedRelease]:
    """Makes release 7 (retrieval version 7, ranking version 8) of a call that plays Triton."""

    def load(
        infer: InferencePort,
        timeout_s: float = 5.0,
        doubt: Callable[[], None] = lambda: None,
        encoder: bool = False,
    ) -> LoadedRelease:
        manifest = Manifest(
            release=7,
            created="2026-01-02T03:04:05+00:00",
            layout_digest=LAYOUT_DIGEST,
            models={
                "retrieval": ModelFiles(7, {}),
                "ranking": ModelFiles(8, {}),
                **({"item_encoder": ModelFiles(9, {})} if encoder else {}),
            },
            forgetting_sha256="",
            training={},
            metrics={},
            parity={},
        )
        batchers = {name: MicroBatcher(infer, clock=time.monotonic) for name in manifest.models}
        forgetting = ForgettingParameters.builtin()
        return LoadedRelease(manifest, forgetting, batchers, time.monotonic, timeout_s, doubt)

    return load
