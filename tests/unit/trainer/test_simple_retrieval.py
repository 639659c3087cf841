from __future__ import annotations

from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from ebbing.history import item_key
from ebbing.progress import Reporter
from trainer.data.log import EventLog
from trainer.data.replay import ReplayConfig
from trainer.publish import publish
from trainer.ranking import RankingConfig
from trainer.recipes import Recipe
from trainer.retrieval import item_rows
from trainer.simple_retrieval import DecayConfig, PopularConfig, SimpleConfig, fit_simple
from trainer.train import TrainingRun, train_run

DAY_S = 86_400.0


@pytest.fixture
def log() -> EventLog:
    """Item c was popular long ago, a and b are lately."""
    return EventLog.of(
        ["u"], ["a", "b", "c", "d"],
        [(("x", 1.0),), (("x", 0.5), ("y", 0.5)), (("y", 1.0),), ()],
        np.zeros(8, np.int64), np.array([2, 2, 2, 2, 2, 1, 0, 0]), np.ones(8, np.int32),
        np.array([0.0, 0, 0, 0, 0, 500, 500, 500]) * DAY_S,
    )  # fmt: skip


def fitted(log: EventLog, config: SimpleConfig) -> torch.nn.Module:
    return fit_simple(log, config, *item_rows(log))


def test_popular_is_what_was_engaged_in_the_window(log: EventLog) -> None:
    nothing = torch.zeros(1, 50, dtype=torch.int64)
    asked = (nothing, nothing.float(), nothing.int())
    lately = fitted(log, PopularConfig(window_days=100))(*asked)[0]
    ever = fitted(log, PopularConfig(window_days=1000))(*asked)[0]
    assert lately.tolist() == [[item_key(item) for item in "abcd"]]
    assert ever.tolist() == [[item_key(item) for item in "cabd"]]


def test_an_interest_is_spread_over_its_items_by_popularity(log: EventLog) -> None:
    model = fitted(log, DecayConfig())
    _, row_of, _ = item_rows(log)
    # Interest x: twice a, once b; interest y: once b, five times c.
    assert model.within[row_of[0]].tolist() == pytest.approx([2 / 3, 0])
    assert model.within[row_of[1]].tolist() == pytest.approx([1 / 3, 1 / 6])
    assert model.within[row_of[2]].tolist() == pytest.approx([5 / 6, 0])
    assert model.within[row_of[3]].tolist() == [0, 0]
    assert float(model.popularity.sum()) == pytest.approx(1.0)


@pytest.mark.parametrize("config", [PopularConfig(), DecayConfig()])
def test_baselines_train_and_publish_like_any_recipe(
    data: Path, repository: Path, tmp_path: Path, config: SimpleConfig
) -> None:
    recipe = Recipe("plain", config, RankingConfig(examples=ReplayConfig(events=80), epochs=1))
    reporter = Reporter(Console(file=StringIO()))
    result = train_run(TrainingRun(data, tmp_path / "run", recipe), reporter)
    assert result["parity"]["retrieval"] < 1e-4
    assert publish(tmp_path / "run", repository, "2025-06-01T00:00:00+00:00").release == 1
