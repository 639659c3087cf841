"""What can be imported without what: each in a fresh interpreter, with packages made missing."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IN_TRITON = "server.inference.pytorch_backend.model"
TERMINAL = (
    "ebbing.demo",
    "ebbing.explain",
    "ebbing.progress",
    "ebbing.rollout",
    "ebbing.terminal",
)
"""What is for a person at a terminal, and needs the extras for one."""

SIGNING = "ebbing.signing"
"""What publishers and gateways sign and verify with, and clients do without."""

IN_BULK = ("server.events_", "server.catalogue_import")
"""What loads and exports logs, for which Parquet is read and written; a gateway does without."""

SCRIPT = """
import importlib, sys
missing, modules, heavy = (argument.split() for argument in sys.argv[1:])
for name in missing:
    sys.modules[name] = None  # importing it now raises ModuleNotFoundError
for module in modules:
    importlib.import_module(module)
loaded = [name for name in heavy if sys.modules.get(name)]
assert not loaded, f"loaded: {loaded}"
"""


def modules(package: str, *leaving_out: str) -> list[str]:
    """Names of a package's modules, but for its program and those below some prefixes."""
    names = []
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if parts[-1] != "__main__" and not name.startswith(leaving_out):
            names.append(name)
    return names


def run(missing: str, names: list[str], heavy: str = "") -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, missing, " ".join(names), heavy],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_gateway_imports_without_torch_and_trainer() -> None:
    never = "torch trainer matplotlib pytriton"
    names = modules("server", IN_TRITON, *IN_BULK)
    assert names
    run(f"{never} polars", names)
    run(never, modules("server", IN_TRITON))


def test_the_client_wheel_imports_with_its_own_dependencies() -> None:
    extras = "typer rich click apsw prometheus_client pydantic pydantic_settings structlog uvloop"
    heavy = "cryptography torch polars tritonclient matplotlib trainer server"
    run(f"{extras} {heavy}", modules("ebbing", SIGNING, *TERMINAL))


def test_the_mathematics_imports_with_numpy_alone() -> None:
    run("grpc google", modules("ebbing/interest"))


def test_the_check_of_a_gpu_needs_torch_and_numpy_alone() -> None:
    """A machine with a GPU may have nothing else, and no network to get it from."""
    extras = "typer rich click polars matplotlib tensorboard pydantic structlog apsw faiss"
    run(f"{extras} grpc google tritonclient server", ["benchmarks.gpu", "trainer.distributed"])


def command_modules() -> list[str]:
    """Modules that the entry points of the command line name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    entries = project["entry-points"]["ebbing.commands"].values()
    return sorted({"ebbing.cli", *(entry.partition(":")[0] for entry in entries)})


@pytest.mark.parametrize("module", command_modules())
def test_commands_are_light_until_they_run(module: str) -> None:
    run("", [module], "torch grpc.aio polars matplotlib tritonclient")
