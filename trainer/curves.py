"""What is drawn of a training: figures of each epoch, and where they are sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

Watch = Callable[[int, Mapping[str, float]], None]
"""Told of figures by name, such as `{"train/loss": 0.3}`, at a step."""


@dataclass(frozen=True)
class EpochFigures:
    """One point of the training curves."""

    epoch: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    validation_ndcg: float = float("nan")
    """NDCG at 10 over the whole catalogue, of a model that ranks one."""


@contextmanager
def tensorboard(folder: Path) -> Iterator[Watch]:
    """Write what is told into event files in `folder`, for `tensorboard --logdir`.

    A run that is resumed adds a file; TensorBoard shows both as one curve.
    """
    # Only a run that is watched pays for the import.
    from tensorboard.summary import Writer  # noqa: PLC0415

    writer = Writer(str(folder))

    def watch(step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    try:
        yield watch
    finally:
        writer.close()
