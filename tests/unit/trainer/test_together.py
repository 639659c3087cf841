"""Whole training runs by two processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from trainer.data.replay import ReplayConfig
from trainer.distributed import WorkerError
from trainer.ranking import RankingConfig
from trainer.recipes import RECIPES, Recipe, sequence_xl
from trainer.retrieval import RetrievalConfig
from trainer.runs import Run
from trainer.together import train_with
from trainer.train import TrainingRun

TINY = Recipe(
    "tiny",
    RetrievalConfig(epochs=1, by_rows=True, negatives=64),
    RankingConfig(examples=ReplayConfig(events=100), epochs=1),
)


def test_a_run_by_two_processes_is_a_run(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = train_with(2, TrainingRun(data, out, TINY, device="cpu"))
    assert result["recipe"] == "tiny"
    assert result["training"]["best"]["epoch"] == 1
    # Only the first process writes, and what it declares is there.
    assert Run.read(out).model("retrieval")
    assert len(list((out / "tensorboard").iterdir())) == 1


def test_what_is_wrong_with_the_log_is_told_as_by_one_process(tmp_path: Path) -> None:
    run = TrainingRun(tmp_path / "none", tmp_path / "run", TINY, device="cpu")
    with pytest.raises(WorkerError, match=r"LogError: .*none"):
        train_with(2, run)
    assert not (tmp_path / "run").exists()


def test_more_processes_than_gpus_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    run = TrainingRun(tmp_path, tmp_path / "run", TINY, device="cuda")
    with pytest.raises(WorkerError, match="3 processes need as many GPUs, and there are 2"):
        train_with(3, run)


def test_the_large_recipe_is_the_flagship_by_rows() -> None:
    large, flagship = sequence_xl().retrieval, RECIPES["sequence"]().retrieval
    assert isinstance(large, RetrievalConfig)
    assert isinstance(flagship, RetrievalConfig)
    assert large.by_rows
    same = replace(large.model, dim=flagship.model.dim, heads=flagship.model.heads)
    assert same == flagship.model
