"""A training run by several processes: those that `--processes` starts, or torchrun."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import torch

from ebbing.progress import Reporter
from trainer.distributed import WorkerError, joined, launch
from trainer.place import DeviceName
from trainer.train import TrainingRun, train_run


def train_here(run: TrainingRun, environment: Mapping[str, str]) -> dict[str, Any]:
    """Be the process that `environment` declares; the first returns what run.json holds.

    Raises:
        WorkerError: the processes do not find each other, or one of them is gone.
        LogError, …: as `train_run`.
    """
    with joined(environment, _device(run.device)) as group:
        try:
            return train_run(run, Reporter(quiet=group.rank > 0), workers=group)
        except RuntimeError as error:
            # What gloo and nccl say when a peer is gone.
            if not any(words in str(error) for words in ("Connection closed", "Connection reset")):
                raise
            raise WorkerError(
                f"process {group.rank} of {group.count} lost another one, which was killed or "
                "failed: its own message says why"
            ) from error


def train_with(processes: int, run: TrainingRun) -> dict[str, Any]:
    """Train with so many processes of this machine; returns what run.json holds.

    Raises:
        WorkerError: one of them was killed or failed, or there are fewer GPUs.
    """
    gpus = torch.cuda.device_count()
    if _device(run.device) == "cuda" and processes > gpus:
        raise WorkerError(
            f"{processes} processes need as many GPUs, and there are {gpus}: start fewer, or use "
            "--device cpu"
        )
    launch(processes, _run, (run,))
    result: dict[str, Any] = json.loads((run.out / "run.json").read_text(encoding="utf-8"))
    return result


def _run(run: TrainingRun) -> None:
    train_here(run, os.environ)


def _device(asked: DeviceName) -> str:
    return "cuda" if asked != "cpu" and torch.cuda.is_available() else "cpu"
