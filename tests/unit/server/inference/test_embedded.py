"""The embedded Triton without starting one: its command, its folders, its complaints."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ebbing.cli import CommandError
from server import cli
from server.inference import embedded
from server.inference.embedded import (
    EmbeddedConfig,
    EmbeddedTriton,
    official_command,
    server_command,
)
from server.inference.errors import TritonStartError
from server.inference.runtime import Runtime


@pytest.fixture
def config(tmp_path: Path, free_port: Callable[[], int]) -> EmbeddedConfig:
    (tmp_path / "repository").mkdir()
    return EmbeddedConfig(
        repository=tmp_path / "repository",
        work=tmp_path / "work",
        log=tmp_path / "logs" / "triton.log",
        grpc_port=free_port(),
        metrics_port=free_port(),
    )


@pytest.fixture
def free_port() -> Callable[[], int]:
    def find() -> int:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            return int(listener.getsockname()[1])

    return find


def test_the_command_loads_nothing_by_itself_and_stays_on_the_loopback(
    runtime: Runtime, config: EmbeddedConfig
) -> None:
    command = server_command(runtime, Path("/backends"), config)
    assert command[0] == str(runtime.server)
    assert "--model-control-mode=explicit" in command
    assert "--backend-directory=/backends" in command
    assert f"--grpc-port={config.grpc_port}" in command
    assert f"--metrics-port={config.metrics_port}" in command
    assert "--allow-http=false" in command
    addresses = [part for part in command if "-address=" in part]
    assert len(addresses) == 3
    assert all(part.endswith("=127.0.0.1") for part in addresses)


def test_endpoints_can_be_switched(runtime: Runtime, config: EmbeddedConfig) -> None:
    other = replace(config, metrics_port=None, http_port=9000)
    command = server_command(runtime, Path("/backends"), other)
    assert "--allow-metrics=false" in command
    assert {"--allow-http=true", "--http-port=9000"} <= set(command)
    assert other.ports == {"grpc": config.grpc_port, "http": 9000}


def test_a_port_that_is_taken_is_named(
    config: EmbeddedConfig, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "locate_runtime", lambda: runtime)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(TritonStartError, match=rf"port {port} .*metrics.*--metrics-port"):
            EmbeddedTriton(replace(config, metrics_port=port)).start()


def test_a_missing_repository_is_named(config: EmbeddedConfig, tmp_path: Path) -> None:
    server = EmbeddedTriton(replace(config, repository=tmp_path / "none"))
    with pytest.raises(TritonStartError, match="none"):
        server.start()
    server.stop()
    with pytest.raises(RuntimeError, match="not been started"):
        _ = server.process


@pytest.mark.skipif(sys.platform != "linux", reason="Triton runs on Linux")
def test_a_server_that_ends_at_once_leaves_its_last_words(
    config: EmbeddedConfig, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "locate_runtime", lambda: runtime)
    config.log.parent.mkdir()
    config.log.write_text("of an earlier run\n")
    with pytest.raises(TritonStartError) as caught, EmbeddedTriton(config):
        pass
    message = str(caught.value)
    assert "code 3" in message
    assert "a last word" in message
    assert "ebbing doctor" in message
    assert "earlier" not in message


def test_only_the_main_thread_may_start_it(config: EmbeddedConfig) -> None:
    caught: list[BaseException] = []

    def start() -> None:
        try:
            EmbeddedTriton(config).start()
        except RuntimeError as error:
            caught.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in str(caught[0])


def test_the_official_command_serves_the_same_repository(tmp_path: Path) -> None:
    command = official_command(tmp_path, grpc_port=9001, metrics_port=9002)
    assert command[:3] == ["docker", "run", "--rm"]
    assert f"--volume={tmp_path}:/models:ro" in command
    assert "--publish=127.0.0.1:9001:8001" in command
    assert "--publish=127.0.0.1:9002:8002" in command
    image = command.index(embedded.OFFICIAL_IMAGE)
    assert command[image + 1] == "tritonserver"
    assert "--model-control-mode=explicit" in command[image:]


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    repository = tmp_path / "with space"
    cli.triton(repository=repository, print_command=True)
    assert capsys.readouterr().out.startswith("docker run --rm ")
    assert not list(tmp_path.iterdir()), "and does nothing else"


def test_the_command_fails_in_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # those of the test run stay
    with pytest.raises(CommandError, match="no model repository"):
        cli.triton(repository=tmp_path / "none", work=tmp_path)
