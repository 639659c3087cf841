"""A Triton that only plays one, and releases for it to hold."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebbing.history import LAYOUT_DIGEST
from ebbing.interest.forgetting import ForgettingParameters
from ebbing.manifest import MANIFEST, SIGNATURE, Manifest, ModelFiles, sha256_of
from ebbing.signing import SigningKey
from server.inference.errors import InferenceFailed, TritonUnavailable
from tests.harness.archive import write_archive

COMMITTED = Path(__file__).parents[4] / "triton_repo"
MODELS = ("retrieval", "ranking")
Shapes = tuple[tuple[int, ...], ...]


class FakeTriton:
    """Holds models and answers for those it holds: a relevance is the key it was asked about."""

    def __init__(self) -> None:
        self.held: set[tuple[str, int]] = set()
        self.loads: list[tuple[str, tuple[int, ...]]] = []
        self.unloads: list[str] = []
        self.asked: Counter[tuple[str, int, Shapes]] = Counter()
        self.dead: set[str] = set()
        """Models whose process died: Triton says they are there until they are unloaded."""
        self.ready = True
        self.load_failure: Exception | None = None

    async def server_ready(self, timeout_s: float = 1.0) -> bool:
        return self.ready

    async def model_ready(self, model: str, version: int, timeout_s: float = 1.0) -> bool:
        return self.ready and (model, version) in self.held

    async def load(self, model: str, versions: Sequence[int], repository: Path) -> None:
        if self.load_failure:
            raise self.load_failure
        self.loads.append((model, tuple(versions)))
        self.held.update((model, version) for version in versions)

    async def unload(self, model: str) -> None:
        self.unloads.append(model)
        self.dead.discard(model)
        self.held = {(name, version) for name, version in self.held if name != model}

    async def infer(
        self, model: str, version: int, inputs: Mapping[str, NDArray[Any]], timeout_s: float
    ) -> dict[str, NDArray[Any]]:
        await asyncio.sleep(0)
        if not self.ready or (model, version) not in self.held:
            raise TritonUnavailable("no such model", detail="what Triton says")
        if model in self.dead:
            raise InferenceFailed("the stub died")
        shapes = tuple(tensor.shape for tensor in inputs.values())
        self.asked[model, version, shapes] += 1
        rows = shapes[0][0]
        if model == "item_encoder":
            return {
                "ITEM_VECTOR__0": np.ones((rows, 4), np.float32),
                "POPULARITY__1": np.zeros((rows, 1), np.float32),
                "OOV_COUNT__2": np.zeros((rows, 1), np.int32),
            }
        if model == "ranking":
            return {"RELEVANCE__0": inputs["CANDIDATE_KEYS__3"].astype(np.float32)}
        return {
            "ITEM_KEYS__0": np.tile(inputs["HISTORY_KEYS__0"][:, -1:], (1, 3)),
            "SCORES__1": np.tile(np.array([3.0, 2.0, 1.0], np.float32), (rows, 1)),
            "USER_VECTOR__2": np.zeros((rows, 4), np.float32),
            "OOV_COUNT__3": np.full((rows, 1), 2, np.int32),
        }


def publish(repository: Path, release: int, **changes: Any) -> Manifest:
    """A release whose models are files of some bytes."""
    models = {}
    for name in MODELS:
        path = repository / name / str(release) / "model.pt"
        path.parent.mkdir()
        write_archive(path, f"def {name}_{release}() -> int:\n  return 1\n")
        models[name] = ModelFiles(release, {str(path.relative_to(repository)): sha256_of(path)})
    folder = Manifest.folder(repository, release)
    folder.mkdir(parents=True)
    forgetting = folder / "forgetting.json"
    forgetting.write_text(ForgettingParameters.builtin().to_json())
    manifest = replace(
        Manifest(
            release=release,
            created="2026-01-02T03:04:05+00:00",
            layout_digest=LAYOUT_DIGEST,
            models=models,
            forgetting_sha256=sha256_of(forgetting),
            training={},
            metrics={},
            parity={},
        ),
        **changes,
    )
    declare(repository, manifest)
    return manifest


def declare(repository: Path, manifest: Manifest, key: SigningKey | None = None) -> None:
    """Write a release's manifest, signed if there is a key."""
    folder = Manifest.folder(repository, manifest.release)
    (folder / MANIFEST).write_text(manifest.to_json())
    if key:
        (folder / SIGNATURE).write_text(key.sign(manifest.to_json().encode()))
