"""The programs the demonstration runs: started, waited for, watched and stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ebbing.cli import CommandError

__all__ = ["Child", "Children", "choose_ports", "run", "run_for_output"]

TAIL_LINES = 15
STOP_S = 15.0
"""How long a program may take to end once told to, seconds."""
POLL_S = 0.2


def command_line(*arguments: str | Path | int) -> list[str]:
    """The ``ebbing`` command with arguments, run by this very interpreter."""
    return [sys.executable, "-m", "ebbing", *map(str, arguments)]


def run(*arguments: str | Path | int) -> None:
    """Run ``ebbing ARGUMENTS`` to its end; what it prints is seen as it comes.

    Raises:
        CommandError: it failed; what it said stands above.
    """
    code = subprocess.run(command_line(*arguments), check=False).returncode
    if code:
        raise CommandError(f"`ebbing {arguments[0]}` failed (exit status {code}), as said above")


def run_for_output(*arguments: str | Path | int) -> str:
    """As ``run``, but what it writes to stdout is returned."""
    done = subprocess.run(command_line(*arguments), check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise CommandError(
            f"`ebbing {arguments[0]}` failed (exit status {done.returncode}), as said above"
        )
    return done.stdout


def choose_ports(wanted: Sequence[int]) -> list[int]:
    """A free loopback port for each wanted one: itself if it is free, else any."""
    with ExitStack() as held:
        ports = []
        for port in wanted:
            try:
                taken = held.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                taken = held.enter_context(socket.create_server(("127.0.0.1", 0)))
            ports.append(int(taken.getsockname()[1]))
        return ports


@dataclass(frozen=True)
class Child:
    """A program under way."""

    name: str
    """What it is, for people."""
    process: subprocess.Popen[bytes]
    log: Path
    """Where it writes."""

    def check(self) -> None:
        """Raise if it has ended.

        Raises:
            CommandError: with the last lines of its log.
        """
        code = self.process.poll()
        if code is not None:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
            tail = "\n".join(f"  | {line}" for line in lines[-TAIL_LINES:]) or "  | (nothing)"
            raise CommandError(
                f"{self.name} has ended (exit status {code}); {self.log} ends with\n{tail}"
            )


class Children:
    """Programs that end with the block they are used in, the last started first."""

    def __init__(self) -> None:
        self._children: list[Child] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self, name: str, log: Path, *arguments: str | Path | int) -> Child:
        """Start ``ebbing ARGUMENTS``, its output appended to a log file."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                command_line(*arguments),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                # Ctrl-C goes to everything in the foreground at once; these end in their order.
                start_new_session=True,
            )
        child = Child(name, process, log)
        self._children.append(child)
        return child

    def check(self) -> None:
        """Raise if any has ended.

        Raises:
            CommandError: with the last lines of its log.
        """
        for child in self._children:
            child.check()

    def wait_until_serving(self, child: Child, target: str, patience_s: float) -> None:
        """Return once the standard health service at ``target`` says SERVING.

        Raises:
            CommandError: a program has ended, or patience has.
        """
        end = time.monotonic() + patience_s
        with grpc.insecure_channel(target) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            while True:
                self.check()
                with suppress(grpc.RpcError):
                    answer = health.Check(health_pb2.HealthCheckRequest(), timeout=1.0)
                    if answer.status == health_pb2.HealthCheckResponse.SERVING:
                        return
                if time.monotonic() > end:
                    raise CommandError(
                        f"{child.name} is not ready after {patience_s:.0f} s; see {child.log}"
                    )
                time.sleep(POLL_S)

    def wait(self) -> None:
        """Wait until one ends, which none should, or until interrupted.

        Raises:
            CommandError: one has ended.
        """
        while True:
            self.check()
            time.sleep(POLL_S)

    def stop(self) -> None:
        """Stop all, gently, then not; more Ctrl-C meanwhile changes nothing."""
        with _undisturbed():
            while self._children:
                child = self._children.pop()
                child.process.terminate()
                try:
                    child.process.wait(STOP_S)
                except subprocess.TimeoutExpired:
                    # Its whole session, so that what it started does not outlive it.
                    os.killpg(child.process.pid, signal.SIGKILL)
                    child.process.wait()


@contextmanager
def _undisturbed() -> Iterator[None]:
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(one, signal.SIG_IGN) for one in signals]
    try:
        yield
    finally:
        for one, handler in zip(signals, before, strict=True):
            signal.signal(one, handler)
