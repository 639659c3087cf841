from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ebbing.progress import Reporter
from trainer.checkpoints import Checkpoints, identity
from trainer.curves import tensorboard
from trainer.data.simulate import Simulation
from trainer.fitting import Fitting
from trainer.models.sequence import SequenceConfig
from trainer.place import TrainingError
from trainer.retrieval import RetrievalConfig, Surroundings, train_retrieval
from trainer.validation import Held, Validation

CONFIG = RetrievalConfig(
    model=SequenceConfig(dim=16), epochs=8, batch_positions=512, warmup_steps=5, patience=2
)


def test_training_stops_when_validation_no_longer_improves_and_keeps_the_best(
    simulation: Simulation, reporter: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = iter([0.1, 0.3, 0.2, 0.25, 0.9])
    seen: list[torch.Tensor] = []

    def measure(held: Held, model: torch.nn.Module, device: torch.device) -> Validation:
        seen.append(model.popularity.detach().clone())
        return Validation(1.0, 0.0, next(figures))

    monkeypatch.setattr(Held, "measure", measure)
    result = train_retrieval(simulation.log, CONFIG, 3, reporter)
    assert [point.validation_ndcg for point in result.curves] == [0.1, 0.3, 0.2, 0.25]
    assert result.best == {"epoch": 2, "validation_ndcg_at_10": 0.3}
    assert torch.equal(result.model.popularity, seen[1])
    assert not result.stopped_by_budget


@pytest.mark.parametrize("goes_to", [math.nan, math.inf, 1e4])
def test_a_loss_that_goes_astray_stops_and_leaves_what_was_good(
    simulation: Simulation,
    reporter: Reporter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    goes_to: float,
) -> None:
    config = replace(CONFIG, checkpoint_steps=1, batch_positions=256)
    steps = 0
    step = Fitting._step

    def astray(fitting: Fitting, *arguments: object) -> int:
        nonlocal steps
        steps += 1
        n = step(fitting, *arguments)
        if steps == 7:
            fitting.unchecked[-1] = torch.tensor([n * goes_to, n])
        return n

    monkeypatch.setattr(Fitting, "_step", astray)
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(TrainingError, match=r"step 7: lower .* is kept in .*checkpoint\.pt"):
        train_retrieval(simulation.log, config, 3, reporter, around=Surroundings(checkpoint=path))
    state = Checkpoints(path, identity(simulation.log, config, 3, 1)).read()
    assert state
    assert state["progress"]["step"] == 6
    assert all(weights.isfinite().all() for weights in state["model"].values())


def test_weights_that_are_no_numbers_are_not_kept(
    simulation: Simulation, reporter: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Fitting._step

    def spoiled(fitting: Fitting, *arguments: object) -> int:
        n = step(fitting, *arguments)
        with torch.no_grad():
            fitting.model.popularity[5] = math.nan
        return n

    monkeypatch.setattr(Fitting, "_step", spoiled)
    config = replace(CONFIG, checkpoint_steps=1)
    with pytest.raises(TrainingError, match="weights are none any more in epoch 1, by step 1"):
        train_retrieval(simulation.log, config, 3, reporter)


def test_a_training_is_watched(simulation: Simulation, reporter: Reporter) -> None:
    told: list[tuple[int, set[str]]] = []

    def watch(step: int, figures: Mapping[str, float]) -> None:
        told.append((step, set(figures)))

    config = replace(CONFIG, epochs=1)
    train_retrieval(simulation.log, config, 3, reporter, around=Surroundings(watch=watch))
    assert {"train/loss", "train/learning_rate", "train/events_per_second"} in [t for _, t in told]
    assert told[-1][1] == {
        "validation/loss", "validation/hit_rate_at_10", "validation/ndcg_at_10",
    }  # fmt: skip


def test_what_is_watched_is_an_event_file(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with tensorboard(tmp_path) as watch:
        watch(3, {"train/loss": 0.5})
    found = EventAccumulator(str(tmp_path)).Reload()
    points = [(point.step, float(point.tensor_proto.float_val[0]))
              for point in found.Tensors("train/loss")]  # fmt: skip
    assert points == [(3, 0.5)]


def test_bfloat16_trains_alike(simulation: Simulation, reporter: Reporter) -> None:
    losses = [
        train_retrieval(
            simulation.log, replace(CONFIG, epochs=2, precision=precision), 3, reporter
        ).curves[-1].train_loss
        for precision in ("fp32", "bf16")
    ]  # fmt: skip
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_too_little_memory_is_said_before_the_start(
    simulation: Simulation, reporter: Reporter
) -> None:
    around = Surroundings(free_memory=lambda: 1000)
    with pytest.raises(TrainingError, match=r"0\.0 GiB are free: lower the recipe's"):
        train_retrieval(simulation.log, CONFIG, 3, reporter, around=around)
