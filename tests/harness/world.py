"""A whole small world, made at once: a log, a release of it, Triton, a gateway that knows both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ebbing.client import Client
from ebbing.progress import Reporter
from server.inference.embedded import EmbeddedTriton
from tests.harness.gateway import GatewayProcess, catalogue, events
from tests.harness.release import LOG, TINY
from tests.harness.releases import publish_again
from tests.harness.triton import embedded_config
from trainer.data.simulate import Simulation, simulate
from trainer.publish import publish
from trainer.train import TrainingRun, train_run


@dataclass(frozen=True)
class World:
    """What is there while it lasts."""

    simulation: Simulation
    repository: Path
    triton: EmbeddedTriton
    gateway: GatewayProcess
    client: Client
    releases: range
    """Numbers of the releases, which are all the same."""


@contextmanager
def world(
    folder: Path, reporter: Reporter, releases: int = 1, **settings: object
) -> Iterator[World]:
    """Make it in a folder, with so many copies of the release; ``settings`` are the gateway's."""
    simulation = simulate(LOG)
    simulation.write(folder / "data")
    train_run(TrainingRun(folder / "data", folder / "run", TINY), reporter)
    config = embedded_config(folder)
    first = publish(folder / "run", config.repository, "2025-06-01T00:00:00+00:00").release
    for number in range(first + 1, first + releases):
        publish_again(config.repository, first, number)
    with (
        EmbeddedTriton(config) as triton,
        GatewayProcess(
            folder, config.repository, triton.grpc_address, folder / "state.db", **settings
        ) as gateway,
        gateway.client() as client,
    ):
        client.write_items(catalogue(simulation))
        client.write_events(events(simulation))
        yield World(
            simulation, config.repository, triton, gateway, client, range(first, first + releases)
        )
