"""A release trained on a small generated log, within seconds."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from torch import Tensor, nn

from ebbing.progress import Reporter
from ebbing.signing import SigningKey, new_signing_key
from tests.harness.triton import RunningTriton
from trainer.data.replay import ReplayConfig
from trainer.data.simulate import Simulation, SimulationConfig, simulate
from trainer.export import TorchScriptExporter
from trainer.item_encoding import ItemEncoderConfig
from trainer.latency import LatencyLimit
from trainer.models.ranker import RankerConfig
from trainer.publish import publish
from trainer.ranking import RankingConfig
from trainer.recipes import Recipe
from trainer.retrieval import RetrievalConfig
from trainer.train import TrainingRun, train_run

PUBLISHED = "2025-06-01T00:00:00+00:00"

# More items than the retrieval model returns and than the gateway ranks, so that both cut off.
LOG = SimulationConfig(users=60, items=240, days=150)
TINY = Recipe(
    "tiny",
    RetrievalConfig(epochs=3, warmup_steps=5),
    RankingConfig(RankerConfig(), ReplayConfig(events=150), epochs=2),
    ItemEncoderConfig(),
)


@dataclass(frozen=True)
class TinyRelease:
    """A published release and where it came from."""

    number: int
    """Its number."""
    repository: Path
    """The repository it was published into."""
    run: Path
    """The run folder it was published from."""
    simulation: Simulation
    """The log it was trained on."""
    modules: dict[str, nn.Module]
    """The models as they were before their export, by name."""
    public_key: Path
    """Public key of whoever signed it."""


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Simulation, dict]:
    """A run folder, the log behind it and the eager models."""
    folder = tmp_path_factory.mktemp("release")
    simulation = simulate(LOG)
    simulation.write(folder / "data")
    modules: dict[str, nn.Module] = {}

    class KeepingExporter(TorchScriptExporter):
        def export(
            self, module: nn.Module, samples: Sequence[tuple[Tensor, ...]], path: Path
        ) -> float:
            modules[path.parent.name] = module
            return super().export(module, samples, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.train.TorchScriptExporter", KeepingExporter)
        run = TrainingRun(folder / "data", folder / "run", TINY)
        train_run(run, Reporter(Console(file=StringIO())))
    return folder / "run", simulation, modules


@pytest.fixture(scope="session")
def release(
    trained: tuple[Path, Simulation, dict],
    triton: RunningTriton,
    tmp_path_factory: pytest.TempPathFactory,
) -> TinyRelease:
    """The run, published into the repository of the shared Triton, and signed."""
    run, simulation, modules = trained
    key = tmp_path_factory.mktemp("keys") / "signing.key"
    new_signing_key(key, bytes(range(32)))
    quick = LatencyLimit(rows=(1,), calls=1)
    quiet = Reporter(Console(file=StringIO()))
    manifest = publish(
        run, triton.repository, PUBLISHED, key=SigningKey.read(key), limit=quick, reporter=quiet
    )
    return TinyRelease(
        manifest.release,
        triton.repository,
        run,
        simulation,
        modules,
        key.with_name("signing.key.pub"),
    )


@pytest.fixture
def repository_copy(release: TinyRelease, tmp_path: Path) -> Path:
    """A copy of the release's repository, to damage."""
    return Path(shutil.copytree(release.repository, tmp_path / "repository"))
