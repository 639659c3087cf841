"""The arrows of import, and who may read the environment, the clock and chance.

server ──► ebbing ◄── trainer
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("ebbing", "server", "trainer")
GENERATED = "ebbing/v1/"

IN_TRITON = "server/inference/pytorch_backend/model.py"
"""Runs inside Triton's own process, where torch is; the gateway copies it and never imports it."""

ENVIRONMENT_READERS = {
    "server/settings.py": "the one place where settings come from",
    "ebbing/demo/processes.py": "a child process is started with its parent's environment",
}
SOURCES_OF_CHANCE_AND_TIME = {
    "ebbing/client/_base.py": "defaults of a client's sources, which the caller can replace",
    "ebbing/demo/": "the demo is an outermost layer: a story that begins now",
    "server/app.py": "the composition root hands the clock down",
    "server/cli.py": "a command is an outermost layer",
    "server/cli_events.py": "a command is an outermost layer: it says what time it is",
    "server/cli_keys.py": "a command is an outermost layer: it makes keys",
    "server/cli_opening.py": "a command is an outermost layer: it makes nonces",
    "server/cli_state.py": "a command is an outermost layer: it dates backups",
    "server/doctor.py": "a command is an outermost layer: it checks the clock itself",
    "trainer/cli.py": "a command is an outermost layer: it dates what is published",
}

# How long something took is no time of day: time.monotonic and perf_counter are free to all.
CLOCKS = {
    "time.time",
    "time.time_ns",
    "time.gmtime",
    "time.localtime",
    "datetime.datetime.now",
    "datetime.datetime.utcnow",
    "datetime.datetime.today",
    "datetime.date.today",
}
CHANCE = {"os.urandom", "uuid.uuid1", "uuid.uuid4", "random.SystemRandom"}
SEEDED = {"random.Random", "numpy.random.default_rng", "numpy.random.SeedSequence"}
"""Sources of chance that are none once they are given a seed."""
TYPES = {"numpy.random.Generator", "numpy.random.BitGenerator"}
ENVIRONMENT = {
    "os.environ",
    "os.environb",
    "os.getenv",
    "os.getenvb",
    "dotenv",
    "pydantic_settings",
}


def sources(*packages: str) -> list[str]:
    """Paths of hand-written modules, relative to the root."""
    found = (
        path.relative_to(ROOT).as_posix() for p in packages for path in (ROOT / p).rglob("*.py")
    )
    return sorted(path for path in found if not path.startswith(GENERATED))


@cache
def tree(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(), path)


def imports(path: str) -> Iterator[str]:
    """Full names of what a module imports, wherever in it."""
    package = path.removesuffix(".py").split("/")[:-1]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


def imported_packages(path: str) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


def uses(path: str) -> Iterator[tuple[str, ast.Call | None]]:
    """Full names that a module uses of what it imports, with the call where it is one."""
    names: dict[str, str] = {}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    calls = {id(node.func): node for node in ast.walk(tree(path)) if isinstance(node, ast.Call)}
    for node in ast.walk(tree(path)):
        parts: list[str] = []
        inner: ast.AST = node
        while isinstance(inner, ast.Attribute):
            parts.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name) and inner.id in names:
            yield ".".join([names[inner.id], *reversed(parts)]), calls.get(id(node))


def reads_clock_or_chance(path: str) -> set[str]:
    found = set()
    for name, call in uses(path):
        seeded = name in SEEDED and (call is None or call.args or call.keywords)
        global_state = name.startswith(("random.", "numpy.random.", "secrets."))
        if name in CLOCKS | CHANCE or (global_state and not seeded and name not in TYPES):
            found.add(name)
    return found


def allowed(path: str, places: dict[str, str]) -> bool:
    return any(
        path == place or (place.endswith("/") and path.startswith(place)) for place in places
    )


def test_there_is_something_to_read() -> None:
    for package in PACKAGES:
        assert sources(package)


@pytest.mark.parametrize(
    ("package", "never"),
    [("ebbing", {"server", "trainer"}), ("server", {"trainer"}), ("trainer", {"server"})],
)
def test_arrows_of_import(package: str, never: set[str]) -> None:
    wrong = {path: bad for path in sources(package) if (bad := imported_packages(path) & never)}
    assert not wrong


def test_the_mathematics_needs_numpy_alone() -> None:
    free = sys.stdlib_module_names | {"numpy"}
    for path in sources("ebbing/interest"):
        others = {name for name in imports(path) if name.partition(".")[0] not in free}
        assert all(name.startswith("ebbing.interest.") for name in others), path


def test_the_gateway_needs_no_torch() -> None:
    users = {path for path in sources("server", "ebbing") if "torch" in imported_packages(path)}
    assert users <= {IN_TRITON}


def test_nothing_imports_what_runs_inside_triton() -> None:
    module = IN_TRITON.removesuffix(".py").replace("/", ".")
    assert not [path for path in sources(*PACKAGES) if module in imports(path)]


def test_one_module_of_the_gateway_knows_tritonclient() -> None:
    users = [path for path in sources("server") if "tritonclient" in imported_packages(path)]
    assert users == ["server/inference/triton.py"]


def test_settings_alone_reads_the_environment() -> None:
    readers = {
        path: name
        for path in sources("server", "ebbing")
        for name in (*imports(path), *(used for used, _ in uses(path)))
        if any(name == known or name.startswith(known + ".") for known in ENVIRONMENT)
    }
    assert {p: name for p, name in readers.items() if not allowed(p, ENVIRONMENT_READERS)} == {}


def test_only_the_outermost_layers_read_clock_and_chance() -> None:
    wrong = {
        path: found
        for path in sources(*PACKAGES)
        if (found := reads_clock_or_chance(path)) and not allowed(path, SOURCES_OF_CHANCE_AND_TIME)
    }
    assert not wrong


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import time\nnow = time.time()", {"time.time"}),
        ("from time import time as clock\nf(clock)", {"time.time"}),
        ("from datetime import UTC, datetime\ndatetime.now(UTC)", {"datetime.datetime.now"}),
        ("import datetime as d\nd.date.today()", {"datetime.date.today"}),
        ("import random\nrandom.random()", {"random.random"}),
        ("import numpy as np\nnp.random.rand(3)", {"numpy.random.rand"}),
        ("import numpy as np\nnp.random.default_rng()", {"numpy.random.default_rng"}),
        ("import numpy as np\nnp.random.default_rng(7)", set()),
        ("import random\nrandom.Random(7).random()", set()),
        ("import time\ntime.monotonic()", set()),
        ("def f(time):\n    return time.time()", set()),
    ],
)
def test_the_reader_of_sources_sees_clock_and_chance(tmp_path, monkeypatch, code, found) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    name = f"case_{abs(hash(code))}.py"
    (tmp_path / name).write_text(code)
    assert reads_clock_or_chance(name) == found
