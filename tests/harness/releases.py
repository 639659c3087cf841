"""Further releases of a repository: the same again, or with a model that misbehaves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from torch import Tensor, nn

from ebbing.manifest import Manifest, sha256_of


class Nan(nn.Module):
    """A retrieval model whose scores are no numbers."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(
        self, keys: Tensor, ages: Tensor, types: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        best, scores, user, unknown = self.inner(keys, ages, types)
        return best, scores * float("nan"), user, unknown


class Slow(nn.Module):
    """A retrieval model that takes its time: so many products of matrices more."""

    def __init__(self, inner: nn.Module, products: int) -> None:
        super().__init__()
        self.inner = inner
        self.products = products
        self.register_buffer("matrix", torch.eye(256))

    def forward(
        self, keys: Tensor, ages: Tensor, types: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        best, scores, user, unknown = self.inner(keys, ages, types)
        spent = self.matrix
        for _ in range(self.products):
            spent = spent @ self.matrix
        # Adds nothing, but cannot be left out.
        return best, scores + (spent[0, 1] * 0.0), user, unknown


def publish_again(
    repository: Path, release: int, number: int, wrap: type[nn.Module] | None = None, *args: object
) -> int:
    """Publish a copy of a release under another number, its retrieval model wrapped; the number."""
    manifest = Manifest.read(repository, release)
    folder = Manifest.folder(repository, number)
    fields = json.loads(manifest.to_json())
    for name, files in manifest.models.items():
        target = repository / name / str(number)
        shutil.copytree(repository / name / str(files.version), target)
        if wrap and name == "retrieval":
            inner = torch.jit.load(target / "model.pt")
            torch.jit.save(torch.jit.script(wrap(inner, *args)), target / "model.pt")
        fields["models"][name] = {
            "version": number,
            "files": {
                str(path.relative_to(repository)): sha256_of(path)
                for path in sorted(target.rglob("*"))
                if path.is_file()
            },
        }
    fields["release"] = number
    shutil.copytree(Manifest.folder(repository, release), folder)
    (folder / "manifest.json").write_text(json.dumps(fields))
    return number
