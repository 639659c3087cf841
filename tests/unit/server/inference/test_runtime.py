"""What the embedded Triton is made of: found, put together, or complained about."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from server.inference.errors import TritonStartError
from server.inference.runtime import (
    PYTHON,
    Runtime,
    build_backends,
    find_libpython,
    locate_runtime,
    server_environment,
)


def test_the_environment_has_the_libraries_first_and_nothing_of_the_callers(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    environment = server_environment(runtime)
    assert environment["LD_LIBRARY_PATH"] == f"{runtime.libraries}:{runtime.libpython}"
    assert environment["PATH"].startswith(f"{runtime.executables}:")
    assert "PYTHONPATH" not in environment


def test_backends_are_real_copies_built_once(runtime: Runtime, tmp_path: Path) -> None:
    work = tmp_path / "deep" / "work"
    backends = build_backends(runtime, work)
    names = sorted(p.relative_to(backends).as_posix() for p in backends.rglob("*.*"))
    assert names == [
        "python/libtriton_python.so",
        "python/triton_python_backend_utils.py",
        "pytorch/model.py",
    ]
    assert (backends / "python" / "triton_python_backend_stub").read_text() == "the stub"
    assert not any(path.is_symlink() for path in backends.rglob("*"))
    assert build_backends(runtime, work) == backends
    runtime.stub.write_text("another stub")
    assert build_backends(runtime, work) != backends
    assert len(list(work.iterdir())) == 2, "nothing half-made is left behind"


def test_a_work_folder_that_cannot_be_written_is_named(runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TritonStartError, match=r"file.*folder that can be written"):
        build_backends(runtime, tmp_path / "file" / "work")


def test_this_environment_has_a_runtime() -> None:
    runtime = locate_runtime()
    assert runtime.server.is_file()
    assert runtime.stub.is_file()


@pytest.mark.parametrize(
    ("module", "distribution"), [("pytriton", "nvidia-pytriton"), ("torch", "torch")]
)
def test_a_missing_part_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, module: str, distribution: str
) -> None:
    find = importlib.util.find_spec

    def find_spec(name: str, *rest: Any) -> Any:
        return None if name == module else find(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    with pytest.raises(TritonStartError, match=rf"{distribution}.*pip install 'ebbing\[triton\]'"):
        locate_runtime()


def test_a_python_without_its_library_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TritonStartError, match=r"libpython3.*apt install"):
        find_libpython([tmp_path])
    (tmp_path / f"libpython{PYTHON}.so.1.0").write_text("")
    assert find_libpython([Path("/nowhere"), tmp_path]) == tmp_path
