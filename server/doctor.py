"""``ebbing doctor``: whether this machine can run Ebbing, and what to do where it cannot."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

from ebbing.cli import CommandError

__all__ = ["Finding", "Verdict", "doctor"]

OLDEST_SQLITE = (3, 51, 3)
"""The first SQLite without the bug that could lose a write-ahead log at its reset."""
OLDEST_CLOCK_S = 1_767_225_600
"""1 January 2026: a clock before it is surely wrong."""
CLOCK_PROBE_S = 0.2
ENOUGH_DISK_BYTES = 2 * 2**30
VECTOR_FLAGS = {
    "x86_64": ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16"),
    "aarch64": ("asimd", "sve", "bf16"),
}


class Verdict(Enum):
    """How a check ended."""

    GOOD = "[green]✓[/green]"
    NOTE = "[yellow]•[/yellow]"
    BAD = "[red]✗[/red]"


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    subject: str
    verdict: Verdict
    found: str
    remedy: str = ""
    """What to do; empty where nothing needs doing."""


def check_python(running: Sequence[int] = sys.version_info[:3]) -> Finding:
    """Python is 3.11, which the embedded Triton has a stub for and the pins are tried with."""
    found = ".".join(map(str, running))
    if tuple(running[:2]) == (3, 11):
        return Finding("Python", Verdict.GOOD, found)
    return Finding("Python", Verdict.BAD, found, "make the environment with Python 3.11")


def check_libpython() -> Finding:
    """The shared library of this interpreter, which Triton's Python stub loads."""
    from server.inference.errors import TritonStartError
    from server.inference.runtime import locate_runtime

    try:
        runtime = locate_runtime()
    except TritonStartError as error:
        problem, _, remedy = str(error).partition(": ")
        return Finding("embedded Triton", Verdict.BAD, problem, remedy or "make install")
    return Finding("embedded Triton", Verdict.GOOD, f"with libpython in {runtime.libpython}")


def check_port(port: int, purpose: str) -> Finding:
    """A port is free on the loopback interface."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        remedy = f"stop what holds it (ss -ltnp 'sport = :{port}'), or choose another"
        return Finding(f"port {port}", Verdict.BAD, f"taken, wanted for {purpose}", remedy)
    return Finding(f"port {port}", Verdict.GOOD, f"free for {purpose}")


def check_sqlite(library: str | None = None) -> Finding:
    """The SQLite that apsw carries is recent enough."""
    if library is None:
        try:
            import apsw
            import apsw.sqlite_extra
        except ModuleNotFoundError:
            return Finding("SQLite", Verdict.BAD, "apsw is missing", "pip install 'ebbing[server]'")
        library = apsw.sqlite_lib_version()
        if not apsw.sqlite_extra.has("cksumvfs"):
            missing = f"{library} without the extension that keeps checksums of pages"
            return Finding("SQLite", Verdict.BAD, missing, "pip install --force-reinstall apsw")
    if tuple(map(int, library.split("."))) >= OLDEST_SQLITE:
        return Finding("SQLite", Verdict.GOOD, library)
    wanted = ".".join(map(str, OLDEST_SQLITE))
    return Finding(
        "SQLite", Verdict.BAD, f"{library} is before {wanted}", "pip install --upgrade apsw"
    )


def check_clock(
    now: Callable[[], float] = time.time,
    ticks: Callable[[], float] = time.monotonic,
    wait: Callable[[float], None] = time.sleep,
) -> Finding:
    """The clock is not plainly wrong, and runs as fast as time does."""
    remedy = "set the clock, and keep it by NTP (timedatectl set-ntp true)"
    wall, tick = now(), ticks()
    wait(CLOCK_PROBE_S)
    slip = (now() - wall) - (ticks() - tick)
    if wall < OLDEST_CLOCK_S:
        return Finding("clock", Verdict.BAD, "is before 2026", remedy)
    if abs(slip) > CLOCK_PROBE_S / 2:
        return Finding("clock", Verdict.BAD, f"jumped by {slip:.2f} s", remedy)
    return Finding("clock", Verdict.GOOD, time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(wall)))


def check_processor(
    machine: str = platform.machine(), information: Path = Path("/proc/cpuinfo")
) -> Finding:
    """Vector instructions that torch's kernels use."""
    wanted = VECTOR_FLAGS.get(machine)
    if wanted is None or not information.is_file():
        return Finding("CPU", Verdict.NOTE, f"{machine}: flags unknown", "")
    have = set(information.read_text().split())
    found = [flag for flag in wanted if flag in have]
    if wanted[0] in found:
        return Finding("CPU", Verdict.GOOD, f"{os.cpu_count()} cores, {', '.join(found)}")
    return Finding(
        "CPU",
        Verdict.BAD,
        f"{machine} without {wanted[0]}",
        f"models will be slow: run on a machine (or VM type) with {wanted[0]}",
    )


def check_gpu(command: str | None = None) -> Finding:
    """A GPU is used where there is one; none is needed."""
    smi = command or shutil.which("nvidia-smi")
    if smi is None:
        return Finding("GPU", Verdict.NOTE, "none; models train and serve on the CPU")
    query = [smi, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        remedy = "reinstall the driver, or ignore it: the CPU serves as well"
        return Finding("GPU", Verdict.BAD, "nvidia-smi does not answer", remedy)
    return Finding("GPU", Verdict.GOOD, "; ".join(answer.stdout.strip().splitlines()))


def check_package(name: str, extra: str) -> Finding:
    """A package of an extra is installed."""
    try:
        return Finding(name, Verdict.GOOD, version(name))
    except PackageNotFoundError:
        return Finding(name, Verdict.BAD, "missing", f"pip install 'ebbing[{extra}]'")


def check_disk(folder: Path) -> Finding:
    """There is room for events and releases."""
    free = shutil.disk_usage(folder).free
    found = f"{free / 2**30:.1f} GiB free in {folder}"
    if free >= ENOUGH_DISK_BYTES:
        return Finding("disk", Verdict.GOOD, found)
    return Finding("disk", Verdict.BAD, found, "free at least 2 GiB, or run in another folder")


def check_repository(repository: Path) -> Finding:
    """The repository holds the contracts of the models."""
    from ebbing.history import MODEL_TENSORS
    from ebbing.manifest import releases

    missing = [n for n in MODEL_TENSORS if not (repository / n / "config.pbtxt").is_file()]
    if missing:
        remedy = "run in the project's root, or name the folder with --repository"
        return Finding("repository", Verdict.BAD, f"{repository}: no {missing[0]} in it", remedy)
    published = releases(repository)
    if not published:
        found, remedy = "no release published yet", "ebbing train, then ebbing publish"
        return Finding("repository", Verdict.NOTE, found, remedy)
    return Finding("repository", Verdict.GOOD, f"release {published[-1]} is the newest")


def examine(repository: Path, ports: Iterable[tuple[int, str]]) -> Iterable[Finding]:
    """All checks, one after the other."""
    yield check_python()
    yield check_package("torch", "trainer")
    yield check_package("grpcio", "server")
    yield check_libpython()
    yield check_sqlite()
    yield check_clock()
    yield check_processor()
    yield check_gpu()
    yield check_disk(Path.cwd())
    yield check_repository(repository)
    for port, purpose in ports:
        yield check_port(port, purpose)


def doctor(
    repository: Annotated[Path, typer.Option(help="Folder of models and releases.")] = Path(
        "triton_repo"
    ),
    port: Annotated[int, typer.Option(help="gRPC port of the gateway.")] = 50051,
    metrics_port: Annotated[int, typer.Option(help="Port of the gateway's /metrics.")] = 9464,
    triton_port: Annotated[int, typer.Option(help="gRPC port of Triton.")] = 8001,
    triton_metrics_port: Annotated[int, typer.Option(help="Port of Triton's metrics.")] = 8002,
) -> None:
    """Check whether this machine can run Ebbing, and say what to do where it cannot.

    Exits with 1 if something needs doing.

    [bold]Examples[/bold]

        ebbing doctor

        ebbing doctor --port 50052 --repository /srv/triton_repo
    """
    from rich.console import Console

    console = Console()
    ports = (
        (port, "gRPC"),
        (metrics_port, "/metrics"),
        (triton_port, "Triton's gRPC"),
        (triton_metrics_port, "Triton's metrics"),
    )
    bad = 0
    for finding in examine(repository, ports):
        bad += finding.verdict is Verdict.BAD
        console.print(f"{finding.verdict.value} {finding.subject}: {finding.found}", soft_wrap=True)
        if finding.remedy:
            console.print(f"    → {finding.remedy}", soft_wrap=True, markup=False)
    if bad:
        raise CommandError(f"{bad} {'thing needs' if bad == 1 else 'things need'} doing, see above")
    console.print("Ready.")
