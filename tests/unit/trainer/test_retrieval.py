from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from ebbing.progress import Reporter
from trainer.data.log import EventLog
from trainer.data.simulate import Simulation
from trainer.models.sequence import SequenceConfig
from trainer.place import TrainingError
from trainer.retrieval import RetrievalConfig, Surroundings, item_rows, train_retrieval

CONFIG = RetrievalConfig(model=SequenceConfig(dim=16), epochs=3, warmup_steps=5)


def test_the_same_seed_gives_the_same_model(simulation: Simulation, reporter: Reporter) -> None:
    one, two = (train_retrieval(simulation.log, CONFIG, 3, reporter) for _ in range(2))
    assert one.curves == two.curves
    torch.testing.assert_close(one.model.table, two.model.table, rtol=0, atol=0)
    assert not one.stopped_by_budget


def test_training_lowers_the_loss(simulation: Simulation, reporter: Reporter) -> None:
    curves = train_retrieval(simulation.log, CONFIG, 3, reporter).curves
    assert curves[-1].train_loss < curves[0].train_loss
    assert all(math.isfinite(point.validation_loss) for point in curves)


def test_a_budget_ends_training(simulation: Simulation, reporter: Reporter) -> None:
    ticks = itertools.count()
    config = RetrievalConfig(model=SequenceConfig(dim=16), batch_positions=256)
    around = Surroundings(clock=lambda: float(next(ticks)))
    result = train_retrieval(simulation.log, config, 3, reporter, budget_s=5.0, around=around)
    assert result.stopped_by_budget
    assert result.curves


def test_a_diverging_loss_stops_with_a_remedy(simulation: Simulation, reporter: Reporter) -> None:
    config = RetrievalConfig(model=SequenceConfig(dim=16), learning_rate=float("inf"))
    with pytest.raises(TrainingError, match="lower the recipe's learning rate"):
        train_retrieval(simulation.log, config, 3, reporter)


def test_users_without_events_are_no_obstacle(reporter: Reporter) -> None:
    log = EventLog.of(
        ["idle", "a"], ["x", "y"], [(), ()],
        np.array([1, 1]), np.array([0, 1]), np.array([1, 1]), np.array([0.0, 9.0]),
    )  # fmt: skip
    result = train_retrieval(log, CONFIG, 3, reporter)
    assert math.isnan(result.curves[0].validation_loss)


def test_rows_and_items_are_inverse(simulation: Simulation) -> None:
    vocabulary, row_of, item_of = item_rows(simulation.log)
    assert item_of[:2].tolist() == [-1, -1]
    assert item_of[row_of].tolist() == list(range(len(simulation.log.item_ids)))
    assert vocabulary.size() == len(item_of)
