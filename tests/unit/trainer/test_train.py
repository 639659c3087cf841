from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ebbing.history import LAYOUT_DIGEST
from ebbing.interest.forgetting import ForgettingParameters
from ebbing.manifest import sha256_of
from ebbing.progress import Reporter
from tests.unit.trainer.conftest import TINY
from trainer.checkpoints import code_version
from trainer.data.load import DataConfig
from trainer.data.log import LogError
from trainer.evaluation.of_run import evaluate_run
from trainer.recipes import RECIPES
from trainer.runs import Run, RunError
from trainer.train import TrainingRun, train_run


def test_a_run_holds_all_that_is_published(trained: Path) -> None:
    declared = json.loads((trained / "run.json").read_text())
    assert declared["layout_digest"] == LAYOUT_DIGEST
    assert declared["counts"]["users"] == 40
    assert declared["window"]["first"] < declared["window"]["last"] < "2025-06-01"
    for name, digest in declared["files"].items():
        assert sha256_of(trained / name) == digest
    ForgettingParameters.from_json((trained / "forgetting.json").read_text())
    report = (trained / "report.md").read_text()
    assert "leave-one-out" in report
    for model in ("retrieval", "ranking"):
        assert f"({model}.png)" in report
    for drawn in re.findall(r"\]\(([^)]+)\)", report):
        assert (trained / drawn).read_bytes().startswith(b"\x89PNG")
    for part in ("## The whole catalogue", "## Data", "## How training went", "## Forgetting"):
        assert part in report


def test_a_run_says_how_it_was_trained(trained: Path) -> None:
    declared = json.loads((trained / "run.json").read_text())
    assert declared["training"]["source"] == code_version()
    assert declared["training"]["events_per_second"] > 0
    assert 1 <= declared["training"]["best"]["epoch"] <= 3
    assert declared["peak_memory_bytes"] > 2**20
    assert list((trained / "tensorboard").iterdir())


def test_a_resumed_run_is_the_same_run(run: Path, data: Path, reporter: Reporter) -> None:
    before = json.loads((run / "run.json").read_text())
    (run / "run.json").unlink()
    again = train_run(TrainingRun(data, run, TINY, resume=True), reporter)
    for part in ("metrics", "samples"):
        assert json.loads(json.dumps(again[part])) == before[part]


def test_the_same_seed_gives_the_same_run(
    trained: Path, train_tiny: Callable[[Path], dict], tmp_path: Path
) -> None:
    again = train_tiny(tmp_path)
    before = json.loads((trained / "run.json").read_text())
    for part in ("metrics", "samples"):
        assert json.loads(json.dumps(again[part])) == before[part]


def test_a_run_says_how_its_log_was_read(trained: Path) -> None:
    told = Run.read(trained)
    assert told.declared["data"]["format"] == "plain"
    assert told.declared["data"]["read"]["users"] == 40
    assert told.reading() == DataConfig()
    assert "Format plain: " in (trained / "report.md").read_text()


def test_a_failed_run_declares_nothing(run: Path, tmp_path: Path, reporter: Reporter) -> None:
    with pytest.raises(LogError):
        train_run(TrainingRun(tmp_path, run, RECIPES["article_mlp"]()), reporter)
    with pytest.raises(RunError, match=r"run\.json is missing"):
        Run.read(run)


def test_a_run_evaluates_as_it_was_trained(run: Path, data: Path, reporter: Reporter) -> None:
    figures = evaluate_run(run, data, reporter).to_json()
    trained = Run.read(run).declared["metrics"]
    for group in ("full_catalogue", "reranking"):
        for order, row in figures[group].items():
            assert row == pytest.approx(trained[group][order])


def test_the_articles_recipe_is_the_articles() -> None:
    ranking = RECIPES["article_mlp"]().ranking
    assert ranking.model.hidden == (128, 64, 32)
    assert (ranking.epochs, ranking.batch, ranking.validation_share) == (10, 32, 0.2)
