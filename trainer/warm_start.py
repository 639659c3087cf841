"""Going on from an earlier run: what its retrieval model has learned, carried over to a new log.

The catalogues may differ: what both have keeps its vector, and a new item begins where its
interests are. The earlier run's tests stay tests, and an event that it was trained on validates
nothing here.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ebbing.manifest import sha256_of
from trainer.models.sequence import SequenceConfig, SequenceModel
from trainer.models.vocabulary import FIRST_ITEM_ROW, Vocabulary
from trainer.place import TrainingError
from trainer.runs import Run, RunError
from trainer.trained import Trained

WEIGHTS = "weights.pt"
"""File of a run folder that another training can go on from."""


@dataclass(frozen=True)
class Weights:
    """What a retrieval model has learned, and of which items and interests."""

    keys: Tensor
    """(I,) int64 item keys, ascending: those of the rows from `FIRST_ITEM_ROW` on."""
    interests: Sequence[str]
    """Interest of each of the interests' vectors."""
    model: Mapping[str, Tensor]
    """State of the model."""
    shape: Mapping[str, Any]
    """What the model is, as its config says; dropout may change."""

    @classmethod
    def of(cls, model: SequenceModel, vocabulary: Vocabulary, config: SequenceConfig) -> Weights:
        """Those of a model, which is as its config says."""
        return cls(vocabulary.keys, model.items.names, model.state_dict(), _shape(config))

    def write(self, path: Path) -> None:
        """Write them."""
        torch.save(
            {
                "keys": self.keys,
                "interests": list(self.interests),
                "model": dict(self.model),
                "shape": dict(self.shape),
            },
            path,
        )

    @classmethod
    def read(cls, path: Path) -> Weights:
        """Read them back.

        Raises:
            RunError: the file does not read.
        """
        try:
            return cls(**torch.load(path, map_location="cpu", weights_only=True))
        except (OSError, RuntimeError, EOFError, TypeError, pickle.UnpicklingError) as error:
            raise RunError(
                f"{path} holds no weights that training can go on from: train anew without --from"
            ) from error


@dataclass(frozen=True)
class Earlier:
    """The run that training goes on from."""

    folder: Path
    weights: Weights
    trained: Trained
    """What it was trained on."""
    declared: Mapping[str, Any]
    """What is told of it: run, recipe, code_version, window, weights (a SHA-256)."""

    @classmethod
    def read(cls, folder: Path) -> Earlier:
        """Read it.

        Raises:
            RunError: the folder is no whole run, or one whose training cannot go on.
        """
        run, path = Run.read(folder), folder / WEIGHTS
        told = {name: run.declared.get(name) for name in ("recipe", "code_version", "window")}
        if WEIGHTS not in run.declared["files"]:
            raise RunError(
                f"{folder}: the recipe {told['recipe']} leaves no {WEIGHTS} that training can go "
                "on from: train anew without --from"
            )
        declared = {"run": folder.name, **told, "weights": sha256_of(path)}
        return cls(folder, Weights.read(path), run.trained(), declared)


@torch.no_grad()
def carry_over(
    earlier: Earlier, model: SequenceModel, vocabulary: Vocabulary, config: SequenceConfig
) -> int:
    """Give a model, which is as its config says, what the earlier one has learned.

    Returns:
        How many items both know.

    Raises:
        TrainingError: the earlier one is of another shape.
    """
    weights, own = earlier.weights, model.state_dict()
    if dict(weights.shape) != _shape(config):
        raise TrainingError(
            f"{earlier.folder}: its retrieval model (recipe {earlier.declared['recipe']}) has "
            "another shape than this recipe's: go on from a run of the same recipe, or train anew "
            "without --from"
        )
    learned = dict(weights.model)
    rows = vocabulary(weights.keys)
    known = rows >= FIRST_ITEM_ROW
    items = torch.cat([torch.arange(FIRST_ITEM_ROW), torch.where(known, rows, -1)])
    place = {name: n for n, name in enumerate(model.items.names)}
    interests = torch.tensor([place.get(name, -1) for name in weights.interests], dtype=torch.int64)
    if known.any():
        own["popularity"].fill_(weights.model["popularity"][FIRST_ITEM_ROW:].mean())
    for name, to in (
        ("items.own.weight", items),
        ("items.interest.weight", interests),
        ("popularity", items),
    ):
        # Where no item has interests, the table holds one vector of none.
        own[name][to[to >= 0]] = learned[name][: len(to)][to >= 0]
        learned[name] = own[name]
    model.load_state_dict(learned)
    return int(known.sum())


def _shape(config: SequenceConfig) -> dict[str, Any]:
    return {name: value for name, value in asdict(config).items() if name != "dropout"}
