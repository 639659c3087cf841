"""An embedded Triton made of small files, and releases of a Triton that is not there."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from server.inference.batcher import SilentObserver
from server.inference.loaded import LoadedRelease
from server.inference.releases import Releases
from server.inference.runtime import Runtime
from tests.unit.server.inference.fake_triton import COMMITTED, MODELS, FakeTriton, publish


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """A runtime of small files; its server says a last word and fails."""
    home = tmp_path / "wheel"
    (home / "python").mkdir(parents=True)
    for name in ("python/libtriton_python.so", "python/triton_python_backend_utils.py", "stub"):
        (home / name).write_text(f"the {name}")
    server = home / "tritonserver"
    server.write_text("#!/bin/sh\necho a last word\nexit 3\n")
    server.chmod(0o755)
    return Runtime(
        server, home / "libs", home / "python", home / "stub", home / "lib", home / "bin"
    )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name in MODELS:
        (tmp_path / name).mkdir()
        shutil.copy(COMMITTED / name / "config.pbtxt", tmp_path / name)
    return tmp_path


@pytest.fixture
def triton() -> FakeTriton:
    return FakeTriton()


@pytest.fixture
async def served(repository: Path, triton: Any):
    """The releases of the repository; nothing is served yet."""
    made = Releases(repository, triton, SilentObserver(), time.monotonic, 2.0)
    yield made
    await made.drain()


@pytest.fixture
async def live(served: Releases, repository: Path, triton: FakeTriton) -> LoadedRelease:
    publish(repository, 3)
    loaded = await served.serve(3)
    triton.asked.clear()
    return loaded
