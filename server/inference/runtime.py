"""The embedded Triton's parts: where they are installed, and how they are put together.

The wheel `nvidia-pytriton` brings the server and the Python backend; this interpreter brings the
shared library that the backend's stub loads; the backend that takes libtorch's place is ours.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from server.inference.errors import TritonStartError

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True)
class Runtime:
    """The parts of the installed wheel and of this interpreter that make up a Triton."""

    server: Path
    """The executable."""
    libraries: Path
    """Folder of the shared libraries the wheel brings."""
    python_backend: Path
    """Folder of the Python backend."""
    stub: Path
    """The program that runs one model instance, made for this version of Python."""
    libpython: Path
    """Folder of the shared library of this very interpreter, which the stub loads."""
    executables: Path
    """Folder of this interpreter's `python3`, from which the stub finds its site-packages."""


def locate_runtime() -> Runtime:
    """Find the embedded Triton in this environment.

    Raises:
        TritonStartError: the wheel, torch, the stub or libpython is missing; says what to install.
    """
    for module, distribution in (("pytriton", "nvidia-pytriton"), ("torch", "torch")):
        if importlib.util.find_spec(module) is None:
            raise TritonStartError(
                f"the embedded Triton needs {distribution}, which is not installed: "
                f"pip install 'ebbing[triton]', or run the official Triton "
                f"(ebbing triton --print-command)"
            )
    spec = importlib.util.find_spec("pytriton")
    assert spec is not None and spec.origin is not None
    package = Path(spec.origin).parent
    home = package / "tritonserver"
    runtime = Runtime(
        server=home / "bin" / "tritonserver",
        libraries=package.parent / "nvidia_pytriton.libs",
        python_backend=home / "backends" / "python",
        stub=home / "python_backend_stubs" / PYTHON / "triton_python_backend_stub",
        libpython=find_libpython(_library_folders()),
        executables=Path(sys.executable).parent,
    )
    for part in (runtime.server, runtime.libraries, runtime.python_backend, runtime.stub):
        if not part.exists():
            raise TritonStartError(
                f"nvidia-pytriton has no {part} (this is Python {PYTHON}): reinstall it with "
                f"pip install --force-reinstall nvidia-pytriton, or use Python 3.11"
            )
    return runtime


def find_libpython(folders: Iterable[Path]) -> Path:
    """The first folder that holds this Python's shared library.

    Raises:
        TritonStartError: none does.
    """
    name = f"libpython{PYTHON}.so.1.0"
    tried = list(folders)
    for folder in tried:
        if (folder / name).is_file():
            return folder
    raise TritonStartError(
        f"{name} is in none of {', '.join(map(str, tried))}: install this Python's shared library "
        f"(Debian and Ubuntu: apt install libpython{PYTHON}), or use a Python built with "
        f"--enable-shared"
    )


def build_backends(runtime: Runtime, work: Path) -> Path:
    """The backend directory of the embedded Triton, built under `work` unless it is there already.

    The files are real copies, since Triton refuses links as leaving the directory, and the folder
    is named by their contents, so that servers of different installations can share `work`.

    Raises:
        TritonStartError: `work` cannot be written.
    """
    files = {
        "python/libtriton_python.so": runtime.python_backend / "libtriton_python.so",
        "python/triton_python_backend_utils.py": runtime.python_backend
        / "triton_python_backend_utils.py",
        "python/triton_python_backend_stub": runtime.stub,
        "pytorch/model.py": Path(__file__).parent / "pytorch_backend" / "model.py",
    }
    digest = hashlib.sha256()
    for name, source in files.items():
        digest.update(name.encode())
        digest.update(source.read_bytes())
    try:
        work.mkdir(parents=True, exist_ok=True)
        target = work.resolve() / f"backends-{digest.hexdigest()[:16]}"
        if target.is_dir():
            return target
        staged = Path(tempfile.mkdtemp(prefix=".backends-", dir=work))
        for name, source in files.items():
            (staged / name).parent.mkdir(exist_ok=True)
            shutil.copy(source, staged / name)
        try:
            staged.rename(target)
        except OSError:
            shutil.rmtree(staged)
            if not target.is_dir():  # and not just built by another server of this user
                raise
    except OSError as error:
        raise TritonStartError(
            f"the backends of the embedded Triton cannot be put into {work} ({error.strerror}): "
            f"name a folder that can be written"
        ) from error
    return target


def server_environment(runtime: Runtime) -> dict[str, str]:
    """The whole environment of the embedded Triton: nothing of the caller's reaches it."""
    return {
        "PATH": f"{runtime.executables}:/usr/local/bin:/usr/bin:/bin",
        "LD_LIBRARY_PATH": f"{runtime.libraries}:{runtime.libpython}",
        "LANG": "C.UTF-8",
    }


def _library_folders() -> list[Path]:
    variables: Mapping[str, object] = sysconfig.get_config_vars()
    folder = Path(str(variables.get("LIBDIR", "")))
    return [
        Path(sys.base_prefix) / "lib",
        folder,
        folder / str(variables.get("MULTIARCH", "")),
    ]
