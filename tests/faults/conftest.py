"""What the fault tests share: how much damage is done, and what was measured."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from benchmarks.record import circumstances, keep
from tests.harness.faults import FaultyGateway, Profile, chosen_profile, flat
from tests.harness.gateway import StartGateway
from tests.harness.release import TinyRelease
from tests.harness.triton import RunningTriton

FIGURES = pytest.StashKey[dict[str, Any]]()


@pytest.fixture(scope="session")
def profile() -> Profile:
    """How much damage is done."""
    return chosen_profile()


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> Iterator[dict[str, Any]]:
    """Where tests note what they measured; it is shown, and kept where FAULTS_REPORT says."""
    noted = pytestconfig.stash.setdefault(FIGURES, {})
    yield noted
    out = os.environ.get("FAULTS_REPORT")
    keep({**circumstances(), **noted}, Path(out) if out else None)


@pytest.fixture
def start_faulty_gateway(
    release: TinyRelease, triton: RunningTriton, tmp_path: Path
) -> Iterator[StartGateway]:
    """As ``start_gateway``, for gateways that end by themselves or are started by a ``command`` of
    the test's own."""
    with ExitStack() as stack:

        def start(command: Sequence[str] = (), **settings: Any) -> FaultyGateway:
            given = {
                "repository": release.repository,
                "triton": triton.grpc_address,
                "state": tmp_path / "state.db",
                **settings,
            }
            gateway = FaultyGateway(tmp_path, **given)
            gateway.command = command or gateway.command
            return stack.enter_context(gateway)

        yield start


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Show what was measured."""
    for name, value in flat(config.stash.get(FIGURES, {})):
        terminalreporter.write_line(f"{name}: {value}")
