"""What most parts of the gateway are set up on: a store, its one writer, metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from server.metrics import Metrics
from server.state.sqlite import SqliteStore

Sample = Callable[..., float]
"""The value of a metric with labels; 0 where it was never touched."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(tmp_path / "state.db", 64)) as opened:
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
