"""A small log and a run trained on it, made once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from ebbing.history import MODEL_TENSORS
from ebbing.progress import Reporter
from trainer.data.replay import ReplayConfig
from trainer.data.simulate import Simulation, SimulationConfig, simulate
from trainer.item_encoding import ItemEncoderConfig
from trainer.models.ranker import RankerConfig
from trainer.ranking import RankingConfig
from trainer.recipes import Recipe
from trainer.retrieval import RetrievalConfig
from trainer.train import TrainingRun, train_run

REPOSITORY = Path(__file__).parents[3] / "triton_repo"

TINY = Recipe(
    "tiny",
    RetrievalConfig(epochs=3, warmup_steps=5),
    RankingConfig(RankerConfig(), ReplayConfig(events=150), epochs=2),
    ItemEncoderConfig(),
)


@pytest.fixture
def reporter() -> Reporter:
    return Reporter(Console(file=StringIO()))


@pytest.fixture(scope="session")
def simulation() -> Simulation:
    return simulate(SimulationConfig(users=40, items=480, days=150))


@pytest.fixture(scope="session")
def data(simulation: Simulation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    simulation.write(folder)
    return folder


@pytest.fixture(scope="session")
def train_tiny(data: Path) -> Callable[..., dict]:
    def train(out: Path, until: str | None = None) -> dict:
        asked = TrainingRun(data, out, TINY, until=until)
        return train_run(asked, Reporter(Console(file=StringIO())))

    return train


@pytest.fixture(scope="session")
def trained(train_tiny: Callable[[Path], dict], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    train_tiny(folder)
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained run, to damage."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with the committed contracts and nothing published."""
    for model in MODEL_TENSORS:
        (tmp_path / "repository" / model).mkdir(parents=True)
        shutil.copy(REPOSITORY / model / "config.pbtxt", tmp_path / "repository" / model)
    return tmp_path / "repository"
