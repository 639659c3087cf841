"""Run folders: what `ebbing train` wrote, read back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ebbing.history import MODEL_TENSORS
from ebbing.interest.forgetting import ForgettingParameters
from ebbing.manifest import sha256_of
from ebbing.torchscript import TorchScriptError
from trainer.data.load import DataConfig
from trainer.export import load_exported
from trainer.trained import Trained


class RunError(Exception):
    """A run folder that is missing, incomplete or damaged; the message names the file."""


@dataclass(frozen=True)
class Run:
    """A run whose files are as training left them."""

    folder: Path
    declared: dict[str, Any]
    """What run.json holds."""

    @classmethod
    def read(cls, folder: Path) -> Run:
        """Read a run and check its files.

        Raises:
            RunError: run.json is missing or unreadable, or a file differs from what it declares.
        """
        path = folder / "run.json"
        try:
            declared = json.loads(path.read_text(encoding="utf-8"))
            files = dict(declared["files"])
        except FileNotFoundError:
            raise RunError(
                f"{path} is missing: give a folder that 'ebbing train' finished"
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path} does not read as a run: train again") from error
        for name, digest in files.items():
            if not (folder / name).is_file():
                raise RunError(f"{folder / name} is missing: train again")
            if sha256_of(folder / name) != digest:
                raise RunError(
                    f"{folder / name} differs from what training wrote (corrupt or truncated): "
                    "restore the file or train again"
                )
        return cls(folder, declared)

    @property
    def models(self) -> list[str]:
        """Names of the models the run has, in the order of the layout."""
        return [name for name in MODEL_TENSORS if f"{name}/model.pt" in self.declared["files"]]

    def model(self, name: str) -> nn.Module:
        """Load an exported model.

        Raises:
            RunError: it does not load, or does more than compute.
        """
        return load_model(self.folder / name / "model.pt")

    def forgetting(self) -> ForgettingParameters:
        """The fitted forgetting parameters.

        Raises:
            RunError: they do not read, or belong to other code.
        """
        path = self.folder / "forgetting.json"
        try:
            return ForgettingParameters.from_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"{path}: {error}; train again") from error

    def reading(self) -> DataConfig:
        """How the run's log was read and cleaned; others are to be, too.

        Raises:
            RunError: run.json does not say it.
        """
        try:
            return DataConfig.from_json(self.declared["data"]["config"])
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(
                f"{self.folder / 'run.json'} does not say how its log was read: train again"
            ) from error

    @property
    def held_out(self) -> dict[str, Any]:
        """What training left out for tests: `protocol`, and of the temporal one its `cut`.

        Raises:
            RunError: run.json does not say.
        """
        held_out: dict[str, Any] | None = self.declared.get("held_out")
        if held_out is None:
            raise RunError(
                f"{self.folder / 'run.json'}: was written by other code "
                f"({self.declared.get('code_version')}), which did not say what it held out for "
                "tests: train again"
            )
        return held_out

    def trained(self) -> Trained:
        """What it was trained on.

        Raises:
            RunError: the run does not say.
        """
        path = self.folder / "trained.npy"
        try:
            return Trained.read(path)
        except (OSError, ValueError) as error:
            raise RunError(
                f"{path}: does not say what the run was trained on ({error}): train again"
            ) from error


def load_model(path: Path) -> nn.Module:
    """Load an exported model.

    Raises:
        RunError: it does not load, or does more than compute.
    """
    try:
        return load_exported(path)
    except TorchScriptError as error:
        raise RunError(str(error)) from error
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RunError(
            f"{path} is not a loadable TorchScript module: {reason}; train again"
        ) from error
