"""One real tritonserver for the whole test run, over a repository of its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from server.inference.embedded import EmbeddedConfig, EmbeddedTriton

COMMITTED = Path(__file__).parents[2] / "triton_repo"


@dataclass(frozen=True)
class RunningTriton:
    """A tritonserver that takes requests; nothing is loaded until a test asks for it."""

    grpc_address: str
    """`host:port` for clients."""
    metrics_address: str
    """`host:port` of its Prometheus endpoint."""
    repository: Path
    """Its model repository: the committed contracts, without any version."""
    process: subprocess.Popen[bytes]
    """The server itself."""
    log: Path
    """What it says."""


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def embedded_config(folder: Path) -> EmbeddedConfig:
    """An embedded Triton over a fresh copy of the committed contracts, on free ports."""
    for config in COMMITTED.glob("*/config.pbtxt"):
        target = folder / "triton_repo" / config.parent.name
        target.mkdir(parents=True)
        shutil.copy(config, target)
    grpc_port, metrics_port = free_ports(2)
    return EmbeddedConfig(
        repository=folder / "triton_repo",
        work=folder / "work",
        log=folder / "triton.log",
        grpc_port=grpc_port,
        metrics_port=metrics_port,
    )


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTriton]:
    """The tritonserver that all integration tests share."""
    config = embedded_config(tmp_path_factory.mktemp("triton"))
    with EmbeddedTriton(config) as server:
        yield RunningTriton(
            grpc_address=server.grpc_address,
            metrics_address=f"127.0.0.1:{config.metrics_port}",
            repository=config.repository,
            process=server.process,
            log=config.log,
        )


@pytest.fixture
def own_triton(tmp_path: Path) -> Iterator[EmbeddedTriton]:
    """A tritonserver, running, that a test may kill."""
    with EmbeddedTriton(embedded_config(tmp_path)) as server:
        yield server
