"""Several gateway processes behind one port and on one state, looked after by this one.

The kernel spreads connections among the processes (SO_REUSEPORT), and the state file keeps their
writes apart. One of them, the first, looks for changes of interests' states; all stream them. A
process that dies is started again; calls it held fail, and clients repeat them elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from server.ports import reserved_port
from server.settings import Settings, environment_with

__all__ = ["Serving", "WorkerFailed", "run_workers"]

RESTART_S = 1.0
"""Pause before a process that died is started again."""
LAUNCH = Path(__file__).parent / "inference" / "launch.py"

log = structlog.get_logger()


class WorkerFailed(Exception):
    """A process did not come to serve; it has said why itself."""


class Serving(NamedTuple):
    """The processes, when all of them serve."""

    address: str
    """host:port of gRPC, of all of them."""
    metrics_addresses: list[str]
    """host:port of /metrics, of each."""


@dataclass(frozen=True)
class _Worker:
    """How one process is started, again and again."""

    number: int
    environment: Mapping[str, str]

    async def start(self) -> Process:
        """Start it; it is told to stop when this process dies."""
        return await asyncio.create_subprocess_exec(
            sys.executable,
            str(LAUNCH),
            str(os.getpid()),
            *(sys.executable, "-m", "ebbing", "serve"),
            env=self.environment,
            stdout=PIPE,
        )


async def run_workers(
    settings: Settings, given: Mapping[str, Any], started: Callable[[Serving], None]
) -> None:
    """Serve with ``settings.workers`` processes until SIGTERM or SIGINT.

    Args:
        settings: checked settings.
        given: those of them that came as flags, by name.
        started: told when all processes serve.

    Raises:
        StartError: the port cannot be had.
        WorkerFailed: a process ended before it served.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with closing(reserved_port(settings.host, settings.port, "--port")) as reserved:
        port = reserved.getsockname()[1]
        workers = [
            _Worker(n, _environment(settings, given, port, n)) for n in range(settings.workers)
        ]
        kept: list[asyncio.Task[None]] = []
        processes: dict[int, Process] = {}
        try:
            served = await asyncio.gather(*(_served(worker, processes) for worker in workers))
            if stop.is_set():
                return
            started(Serving(f"{settings.host}:{port}", served))
            kept = [asyncio.create_task(_keep(worker, processes)) for worker in workers]
            await stop.wait()
        finally:
            for task in kept:
                task.cancel()
            await asyncio.gather(*kept, return_exceptions=True)
            await _stopped(processes.values())


def _environment(
    settings: Settings, given: Mapping[str, Any], port: int, number: int
) -> dict[str, str]:
    own = {
        **given,
        "port": port,
        "metrics_port": settings.metrics_port and settings.metrics_port + number,
        "workers": 1,
        "shared_port": True,
        "watch": settings.watch and number == 0,
    }
    return environment_with(own)


async def _served(worker: _Worker, processes: dict[int, Process]) -> str:
    """Start a process; the address of its metrics when it serves.

    Raises:
        WorkerFailed: it ended before.
    """
    process = processes[worker.number] = await worker.start()
    assert process.stdout is not None
    while line := (await process.stdout.readline()).decode():
        name, _, address = line.partition("  ")
        if name == "metrics":
            return address.strip().removeprefix("http://").removesuffix("/metrics")
    raise WorkerFailed(f"process {worker.number} of the gateway ended before it served")


async def _keep(worker: _Worker, processes: dict[int, Process]) -> None:
    """Start a process again whenever it has died."""
    while True:
        status = await processes[worker.number].wait()
        log.warning("gateway process died", worker=worker.number, status=status)
        with suppress(WorkerFailed):
            await asyncio.sleep(RESTART_S)
            await _served(worker, processes)
            log.info("gateway process serves again", worker=worker.number)


async def _stopped(processes: Any) -> None:
    running = [process for process in processes if process.returncode is None]
    for process in running:
        with suppress(ProcessLookupError):
            process.terminate()
    await asyncio.gather(*(process.wait() for process in running))
