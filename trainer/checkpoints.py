"""Checkpoints: a training as it stood after a step, so that it can go on as if never interrupted.

Written beside and renamed into place, so that a kill at any moment leaves the one before or the
new one, whole. A checkpoint says what it is of, and another training does not go on from it.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch

import ebbing
from ebbing.durable import sync
from trainer.data.log import EventLog
from trainer.place import TrainingError

State = dict[str, Any]
"""Tensors, numbers and text, nested; nothing else survives `torch.load(weights_only=True)`."""

ANEW = "or train anew without --resume"
REMEDIES = {
    "code": f"finish it with that version, {ANEW}",
    "recipe": f"resume with the recipe it was started with, {ANEW}",
    "seed": f"resume with its --seed, {ANEW}",
    "log": f"resume with the log it was started on, {ANEW}",
    "workers": f"resume with as many processes, {ANEW}",
    "start": f"resume with the same --from, {ANEW}",
}
"""What a training is told apart by, and what to do where it differs."""


class Checkpoints:
    """The checkpoint of one training, in one file."""

    def __init__(self, path: Path, identity: dict[str, str]) -> None:
        """`identity`: what the training is, by the names of `REMEDIES`."""
        self.path = path
        self.identity = identity

    def write(self, state: State) -> None:
        """Keep a state, on disk when this returns, in place of the one before.

        Raises:
            TrainingError: there is no room for it, or no leave to write it.
        """
        part = self.path.with_name(f".{self.path.name}.part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            torch.save({"identity": self.identity, "state": state}, part)
            sync(part)
            part.replace(self.path)
            sync(self.path.parent)
        except (OSError, RuntimeError) as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise TrainingError(
                f"{self.path}: the checkpoint cannot be written ({error}): make room, or choose "
                "another --out"
            ) from error

    def clear(self) -> None:
        """Remove what another training left, so that nobody goes on from it by mistake."""
        self.path.unlink(missing_ok=True)

    def read(self) -> State | None:
        """The state to go on from; None where nothing has been kept.

        Raises:
            TrainingError: the file is damaged, or is of another training.
        """
        try:
            kept = torch.load(self.path, map_location="cpu", weights_only=True)
            identity, state = kept["identity"], kept["state"]
        except FileNotFoundError:
            return None
        except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as e:
            raise TrainingError(
                f"{self.path} does not read as a checkpoint (corrupt or truncated): restore the "
                f"file, {ANEW}"
            ) from e
        for name, remedy in REMEDIES.items():
            if identity.get(name) != self.identity[name]:
                raise TrainingError(
                    f"{self.path} is of another {name}: {identity.get(name)}, not "
                    f"{self.identity[name]}; {remedy}"
                )
        return state


def identity(
    log: EventLog, config: Any, seed: int, workers: int, start: str = ""
) -> dict[str, str]:
    """What a training is: the same identity ends in the same model.

    Args:
        log: what it learns from.
        config: the frozen dataclass that says how.
        seed: where its random numbers start.
        workers: how many processes share it.
        start: digest of the model it goes on from, if from one.
    """
    return {
        "code": code_version(),
        "recipe": _short(json.dumps(asdict(config), sort_keys=True).encode()),
        "seed": str(seed),
        "log": _log_digest(log),
        "workers": str(workers),
        "start": start[:12] or "nothing",
    }


@cache
def code_version() -> str:
    """Version of the package and of the trainer's source as it lies here, as `0.1.0+3f9a…`."""
    source = Path(__file__).parent
    files = sorted(source.rglob("*.py"))
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    return f"{ebbing.__version__}+{_short(''.join(digests).encode())}"


def _log_digest(log: EventLog) -> str:
    digest = hashlib.sha256(json.dumps([log.item_ids, log.interests]).encode())
    for column in (log.users, log.items, log.types, log.times):
        digest.update(column.tobytes())
    return digest.hexdigest()[:12]


def _short(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
