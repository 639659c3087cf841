"""A real tritonserver without a container, for development and tests.

The wheel `nvidia-pytriton` carries a tritonserver with the Python backend but without libtorch's;
a Python-based backend of ours takes that place, so that the same model repository runs on both.
The server of the wheel is an old one: it listens on the loopback interface only, and production
runs a current official Triton over the same repository (`official_command`).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from server.inference.errors import TritonStartError
from server.inference.runtime import (
    Runtime,
    build_backends,
    locate_runtime,
    server_environment,
)
from server.inference.triton import probe

OFFICIAL_IMAGE = "nvcr.io/nvidia/tritonserver:26.09-py3"
"""The official Triton of the release that the pinned tritonclient belongs to."""

LOOPBACK = "127.0.0.1"

_LAUNCHER = Path(__file__).parent / "launch.py"
# Inferences in flight end within milliseconds. What takes long is the orderly end of the stubs,
# seconds each, and they have nothing to save.
_EXIT_TIMEOUT_S = 2
_KILL_AFTER_S = 8
_TAIL_LINES = 20


@dataclass(frozen=True)
class EmbeddedConfig:
    """How an embedded Triton runs."""

    repository: Path
    """The model repository; read only, and nothing is loaded until a client asks for it."""
    work: Path
    """Folder of this user for the backend directory, which is built once and used again."""
    log: Path
    """File that the server's output is appended to."""
    grpc_port: int = 8001
    """Port of the gRPC endpoint."""
    metrics_port: int | None = 8002
    """Port of the Prometheus endpoint; None switches it off."""
    http_port: int | None = None
    """Port of the HTTP endpoint; None switches it off."""

    @property
    def ports(self) -> dict[str, int]:
        """The ports it listens on, by what they are for."""
        ports = {"grpc": self.grpc_port, "metrics": self.metrics_port, "http": self.http_port}
        return {name: port for name, port in ports.items() if port is not None}


def server_command(runtime: Runtime, backends: Path, config: EmbeddedConfig) -> list[str]:
    """The command line of the embedded Triton."""
    http = [f"--http-port={config.http_port}"] if config.http_port else []
    metrics = [f"--metrics-port={config.metrics_port}"] if config.metrics_port else []
    return [
        str(runtime.server),
        f"--model-repository={config.repository.resolve()}",
        f"--backend-directory={backends}",
        "--model-control-mode=explicit",
        # Else every load starts one more process, only to hear that nothing is to be completed.
        "--disable-auto-complete-config",
        # A version that failed to load must not make the healthy ones look unready.
        "--strict-readiness=false",
        f"--grpc-address={LOOPBACK}",
        f"--grpc-port={config.grpc_port}",
        f"--allow-http={_flag(http)}",
        f"--http-address={LOOPBACK}",
        *http,
        f"--allow-metrics={_flag(metrics)}",
        f"--metrics-address={LOOPBACK}",
        *metrics,
        f"--exit-timeout-secs={_EXIT_TIMEOUT_S}",
        f"--backend-config=python,shm-region-prefix-name={_shared_memory_prefix(os.getpid())}",
    ]


def official_command(
    repository: Path,
    *,
    grpc_port: int = 8001,
    metrics_port: int = 8002,
    image: str = OFFICIAL_IMAGE,
) -> list[str]:
    """The command that runs the official Triton over the same repository, in a container.

    Its ports are published on the loopback interface only: whoever reaches Triton's gRPC port can
    load and unload models, so the gateway is to be its only client.
    """
    return [
        "docker",
        "run",
        "--rm",
        f"--publish={LOOPBACK}:{grpc_port}:8001",
        f"--publish={LOOPBACK}:{metrics_port}:8002",
        f"--volume={repository.resolve()}:/models:ro",
        image,
        "tritonserver",
        "--model-repository=/models",
        "--model-control-mode=explicit",
        "--disable-auto-complete-config",
        "--strict-readiness=false",
        "--allow-http=false",
    ]


class EmbeddedTriton:
    """One tritonserver process, started and stopped by this one.

    As a context manager it is ready on entry and gone on exit. It is also gone, within seconds,
    when this process is killed.
    """

    def __init__(self, config: EmbeddedConfig) -> None:
        self.config = config
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def grpc_address(self) -> str:
        """`host:port` for clients."""
        return f"{LOOPBACK}:{self.config.grpc_port}"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running server.

        Raises:
            RuntimeError: it was not started.
        """
        if self._process is None:
            raise RuntimeError("the embedded Triton has not been started")
        return self._process

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server without waiting for it.

        Raises:
            TritonStartError: something it needs is missing, or a port is taken.
            RuntimeError: called outside the main thread.
        """
        if threading.current_thread() is not threading.main_thread():
            # Linux sends the signal of a parent's death when the thread that started the child
            # ends, which would end the server together with a worker thread.
            raise RuntimeError("the embedded Triton can be started by the main thread only")
        if not self.config.repository.is_dir():
            raise TritonStartError(f"there is no model repository at {self.config.repository}")
        runtime = locate_runtime()
        command = server_command(runtime, build_backends(runtime, self.config.work), self.config)
        for name, port in self.config.ports.items():
            _require_free(name, port)
        self.config.log.parent.mkdir(parents=True, exist_ok=True)
        with self.config.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), *command],
                env=server_environment(runtime),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A group of its own: Ctrl-C reaches the caller, which stops the server in its turn.
                process_group=0,
            )

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Return as soon as the server takes requests.

        Raises:
            TritonStartError: it ended, or took too long; carries the end of its log.
        """
        give_up = time.monotonic() + timeout_s
        while not probe(self.grpc_address, timeout_s=1.0):
            code = self.process.poll()
            if code is not None:
                raise TritonStartError(f"tritonserver ended with code {code}{self._last_words()}")
            if time.monotonic() > give_up:
                raise TritonStartError(
                    f"tritonserver is not ready after {timeout_s:.0f} s{self._last_words()}"
                )
            time.sleep(0.05)

    def wait(self) -> None:
        """Return never, unless the server ends by itself.

        Raises:
            TritonStartError: it ended; carries the end of its log.
        """
        code = self.process.wait()
        raise TritonStartError(f"tritonserver ended with code {code}{self._last_words()}")

    def stop(self) -> None:
        """Stop the server and everything it started; nothing happens if it does not run."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=_KILL_AFTER_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for leftover in Path("/dev/shm").glob(_shared_memory_prefix(os.getpid()) + "*"):
            leftover.unlink(missing_ok=True)
        self._process = None

    def _last_words(self) -> str:
        with self.config.log.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode(errors="replace").splitlines()
        tail = "\n".join(f"  {line}" for line in lines[-_TAIL_LINES:])
        return (
            f"; its log {self.config.log} ends with:\n{tail}\n"
            f"ebbing doctor checks what it needs from this machine"
        )


def _flag(arguments: list[str]) -> str:
    return "true" if arguments else "false"


def _shared_memory_prefix(owner: int) -> str:
    return f"ebbing-triton-{owner}-"


def _require_free(name: str, port: int) -> None:
    try:
        socket.create_server((LOOPBACK, port)).close()
    except OSError as error:
        raise TritonStartError(
            f"port {port} for Triton's {name} endpoint cannot be used "
            f"({os.strerror(error.errno or 0)}): "
            f"stop what listens there or choose another with --{name}-port"
        ) from None
