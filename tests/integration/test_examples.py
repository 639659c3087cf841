"""The examples of the documentation, run as a reader runs them, against a real gateway."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.harness.gateway import ROOT, GatewayProcess, environment
from tests.harness.release import TinyRelease
from tests.harness.triton import RunningTriton

SAYS = {
    "shop": ("outdoor/tents", "rekindle", "usual gap"),
    "courses": ("courses/algebra: now", "courses/spanish: in", "next lesson: algebra"),
    "feed": ("cold start: social): climbing", "after a like of chess", "chess-"),
    "ads": ("shown 0 times in vain: due True", "shown 3 times in vain: due False"),
}


@pytest.fixture(scope="module")
def gateway_of_examples(
    release: TinyRelease, triton: RunningTriton, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """One that knows nothing but what the examples write."""
    folder = tmp_path_factory.mktemp("examples")
    state = folder / "state.db"
    with GatewayProcess(folder, release.repository, triton.grpc_address, state) as running:
        yield running


def test_every_example_is_here() -> None:
    assert {path.stem for path in (ROOT / "docs" / "examples").glob("*.py")} == set(SAYS)


@pytest.mark.parametrize("name", sorted(SAYS))
def test_an_example_shows_what_it_is_about(gateway_of_examples: GatewayProcess, name: str) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "examples" / f"{name}.py", gateway_of_examples.address],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    for words in SAYS[name]:
        assert words in done.stdout, done.stdout
