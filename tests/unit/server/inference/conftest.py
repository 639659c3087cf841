"""An embedded Triton made of small files."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.inference.runtime import Runtime


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
