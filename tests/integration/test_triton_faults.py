"""A Triton that dies, comes back, or loses a model: answers go on, and then are whole again."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from ebbing.client import Client, EbbingError
from ebbing.v1 import recommendation_service_pb2 as pb
from server.inference.triton import probe
from tests.harness.gateway import (
    ROOT,
    GatewayProcess,
    StartGateway,
    catalogue,
    ebbing_command,
    environment,
    events,
)
from tests.harness.processes import command, descendants, running
from tests.harness.release import LOG, TinyRelease
from tests.harness.triton import free_ports
from trainer.data.simulate import PROTAGONIST

END = LOG.end
PATIENCE_S = 120


def wait_until(true: Callable[[], bool], what: str) -> None:
    """Return when something has become true."""
    for _ in range(10 * PATIENCE_S):
        if true():
            return
        time.sleep(0.1)
    pytest.fail(f"not even after {PATIENCE_S} s: {what}")


class TritonCommand:
    """`ebbing triton` on a port of its own, to be killed and started again."""

    def __init__(self, folder: Path, repository: Path) -> None:
        port, metrics_port = free_ports(2)
        self.address = f"127.0.0.1:{port}"
        self.said = folder / "triton-command.log"
        self._command = ebbing_command(
            "triton",
            *("--repository", repository),
            *("--work", folder / "triton"),
            *("--grpc-port", port),
            *("--metrics-port", metrics_port),
        )

    def start(self) -> None:
        """Start it; return when it takes requests."""
        with self.said.open("wb") as said:
            self.process = subprocess.Popen(
                self._command, cwd=ROOT, env=environment(), stdout=said, stderr=subprocess.STDOUT
            )
        wait_until(lambda: probe(self.address, 1.0) or not self._alive(), "Triton answers")
        assert self._alive(), self.said.read_text()

    def started(self, part: str) -> list[int]:
        """The processes it started whose command line has a part."""
        return [pid for pid in descendants(self.process.pid) if part in command(pid)]

    def stop(self) -> None:
        """End it, however it is."""
        if self._alive():
            self.process.terminate()
        self.process.wait()

    def _alive(self) -> bool:
        return self.process.poll() is None


@pytest.fixture
def own(release: TinyRelease, tmp_path: Path) -> Iterator[TritonCommand]:
    """A Triton that a test may do anything to."""
    triton = TritonCommand(tmp_path, release.repository)
    triton.start()
    yield triton
    triton.stop()


@pytest.fixture
def served(own: TritonCommand, start_gateway: StartGateway, release: TinyRelease) -> GatewayProcess:
    """A gateway on that Triton, with the generated catalogue and log."""
    gateway = start_gateway(triton=own.address)
    with gateway.client() as client:
        client.write_items(catalogue(release.simulation))
        client.write_events(events(release.simulation))
    return gateway


def whole(client: Client) -> bool:
    """Whether models have a say in what is recommended."""
    return not client.recommend(PROTAGONIST, END).degraded


def test_a_triton_that_dies_and_comes_back(own: TritonCommand, served: GatewayProcess) -> None:
    with served.client() as client:
        before = client.recommend(PROTAGONIST, END)
        assert not before.degraded
        started = descendants(own.process.pid)
        (server,) = own.started("bin/tritonserver ")
        assert own.started("python_backend_stub")
        os.kill(server, signal.SIGKILL)
        # The command ends with its server, leaves nothing behind, and says in a line what happened.
        assert own.process.wait() == 1
        wait_until(lambda: not any(map(running, started)), "all of Triton's processes are gone")
        said = own.said.read_text()
        assert "ebbing: tritonserver ended with code -9" in said
        assert "Traceback" not in said

        slate = client.recommend(PROTAGONIST, END)
        assert slate.degraded
        assert slate.degraded_reason == "TRITON_UNAVAILABLE"
        assert len(slate.items) == len(before.items)
        assert {item.source for item in slate.items} == {pb.CANDIDATE_SOURCE_POPULAR}
        assert list(slate.interest_priority) == list(before.interest_priority)
        with pytest.raises(EbbingError) as caught:
            client.score(PROTAGONIST, ["jazz-01-part-1"], END)
        assert caught.value.code is grpc.StatusCode.UNAVAILABLE
        assert caught.value.reason == "MODELS_UNAVAILABLE"
        assert caught.value.retry_delay_s
        assert "models" in caught.value.message
        assert "127.0.0.1" not in caught.value.message
        # What needs no model goes on as ever.
        client.write_event(PROTAGONIST, "view", END, item_id="chess-01-part-1", event_id="offline")
        assert client.interest_profile(PROTAGONIST, END).event_count

        own.start()
        wait_until(lambda: whole(client), "the gateway has its models again")
        after = client.recommend(PROTAGONIST, END)
        assert not after.degraded
        assert {item.source for item in after.items} == {pb.CANDIDATE_SOURCE_RETRIEVAL}
        client.score(PROTAGONIST, ["jazz-01-part-1"], END)
        wait_until(lambda: "models restored" in served.log.read_text(), "the models are warm")
    assert served.terminate() == 0

    started = descendants(own.process.pid)
    own.process.terminate()
    assert own.process.wait() == 0
    assert not any(map(running, started))
    assert "Triton has stopped." in own.said.read_text()


def test_a_model_whose_process_died(own: TritonCommand, served: GatewayProcess) -> None:
    """Triton goes on saying that it is ready; the gateway finds out and has it loaded again."""
    with served.client() as client:
        stubs = own.started("ranking/1/model.pt")
        for stub in stubs:
            os.kill(stub, signal.SIGKILL)
        assert not whole(client)
        wait_until(lambda: whole(client), "the gateway has its models again")
        assert all(whole(client) for _ in range(10))
    assert not set(stubs) & set(own.started("ranking/1/model.pt"))

    # A gateway that waits for its Triton ends as soon as it is told to.
    own.stop()
    with served.client() as client:
        assert not whole(client)
    assert served.terminate() == 0
