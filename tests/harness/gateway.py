"""Gateways as real processes, started the way a person starts them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import pytest

from ebbing.client import Client, ClientOptions, catalog_item, user_event
from ebbing.events import EventType
from ebbing.v1.user_event_pb2 import UserEvent
from tests.harness.release import TinyRelease
from tests.harness.triton import RunningTriton
from trainer.data.simulate import Simulation

# A machine that is busy with other tests is slow, not broken: no test waits for these to pass.
UNHURRIED = {"triton_timeout_s": 60, "default_deadline_s": 60}
ROOT = Path(__file__).parents[2]
PATIENCE = ClientOptions(deadline_s=60.0, batch_deadline_s=120.0, max_attempts=1)
"""Deadlines that a busy machine keeps, and every failure is seen."""


def ebbing_command(*arguments: object) -> list[str]:
    """The command line with arguments, run by this interpreter."""
    return [sys.executable, "-m", "ebbing", *map(str, arguments)]


def environment(**settings: object) -> dict[str, str]:
    """This environment without settings of a gateway but the given ones."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("EBBING_")}
    return {**clean, **{f"EBBING_{k.upper()}": str(v) for k, v in settings.items()}}


def ran(*arguments: object, **settings: object) -> subprocess.CompletedProcess[str]:
    """A command, ended."""
    return subprocess.run(
        ebbing_command(*arguments),
        cwd=ROOT,
        env=environment(**settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


class GatewayProcess:
    """One `ebbing serve`; as a context manager it serves on entry and is gone on exit."""

    command: Sequence[str] = ebbing_command("serve")
    """How it is started."""

    def __init__(
        self, folder: Path, repository: Path, triton: str, state: Path, **settings: object
    ) -> None:
        """Set up; ``settings`` by their names in ``server.settings``."""
        self.log = folder / f"gateway-{len(list(folder.glob('gateway-*')))}.log"
        self.log.touch()
        self._settings: Mapping[str, object] = {
            "repository": repository,
            "triton": triton,
            "state": state,
            "port": 0,
            "metrics_port": 0,
            **UNHURRIED,
            **settings,
        }
        self.address = self.metrics_address = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        code = self.process.poll()
        by_itself = code is not None and not self._told_to_end
        self.kill()
        assert not by_itself, f"the gateway ended by itself ({code}):\n{self.log.read_text()}"

    def start(self) -> None:
        """Start it, on the same port as before; return when it serves."""
        self._told_to_end = False
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=ROOT,
                env=environment(**self._settings),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        lines = [self.process.stdout.readline() for _ in range(2)]
        if not all(lines):
            self._ended()
            pytest.fail(f"the gateway did not start:\n{self.log.read_text()}")
        self.address, self.metrics_address = (line.split("://")[1].split()[0] for line in lines)
        self.metrics_address = self.metrics_address.removesuffix("/metrics")
        self._settings = {**self._settings, "port": self.address.rpartition(":")[2]}

    def kill(self) -> None:
        """End it as a power cut would."""
        self._told_to_end = True
        self.process.send_signal(signal.SIGKILL)
        self._ended()

    def terminate(self) -> int:
        """End it as a service manager would; its exit status."""
        self._told_to_end = True
        self.process.send_signal(signal.SIGTERM)
        return self._ended()

    def client(self) -> Client:
        """A client that tries everything once."""
        return Client(self.address, options=PATIENCE)

    def _ended(self) -> int:
        code = self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


def catalogue(simulation: Simulation) -> list[Any]:
    """The items of a generated log."""
    log = simulation.log
    return [
        catalog_item(item_id, dict(interests))
        for item_id, interests in zip(log.item_ids, log.interests, strict=True)
    ]


def events(simulation: Simulation) -> list[UserEvent]:
    """The events of a generated log; the order of their ids is the true order among equal times."""
    log = simulation.log
    return [
        user_event(
            log.user_ids[log.users[row]],
            EventType(int(log.types[row])),
            float(log.times[row]),
            item_id=log.item_ids[log.items[row]],
            event_id=f"log-{row:06d}",
        )
        for row in range(len(log))
    ]


StartGateway = Callable[..., GatewayProcess]


@pytest.fixture
def start_gateway(
    release: TinyRelease, triton: RunningTriton, tmp_path: Path
) -> Iterator[StartGateway]:
    """Starts gateways of a test's own, all on one state file unless told otherwise."""
    with ExitStack() as stack:

        def start(**settings: Any) -> GatewayProcess:
            given = {
                "repository": release.repository,
                "triton": triton.grpc_address,
                "state": tmp_path / "state.db",
                **settings,
            }
            return stack.enter_context(GatewayProcess(tmp_path, **given))

        yield start


@pytest.fixture(scope="session")
def gateway(
    release: TinyRelease, triton: RunningTriton, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """The gateway that tests share, with the generated catalogue and log; users of the tests' own
    keep them apart."""
    folder = tmp_path_factory.mktemp("gateway")
    state = folder / "state.db"
    with GatewayProcess(folder, release.repository, triton.grpc_address, state) as running:
        with running.client() as client:
            client.write_items(catalogue(release.simulation))
            answer = client.write_events(events(release.simulation))
            assert answer.accepted_count == len(release.simulation.log)
        yield running
        assert running.terminate() == 0, running.log.read_text()


@pytest.fixture(scope="session")
def client(gateway: GatewayProcess) -> Iterator[Client]:
    """A client of the shared gateway."""
    with gateway.client() as client:
        yield client
