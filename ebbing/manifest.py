"""What a published release declares, and where its files lie in the repository.

Release N is version N of each model, the forgetting parameters and the manifest, published and
rolled back together. A release exists once its manifest does; model versions that no manifest
names are the debris of an interrupted publish and are never served.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ebbing.history import LAYOUT_DIGEST
from ebbing.interest.forgetting import ForgettingParameters

__all__ = [
    "REQUIRED_MODELS",
    "Manifest",
    "ManifestError",
    "ModelFiles",
    "releases",
    "sha256_of",
]

RELEASES = "releases"
MANIFEST = "manifest.json"
FORGETTING = "forgetting.json"
REQUIRED_MODELS = ("retrieval", "ranking")
"""Models every release has; the others of the layout it may have."""


class ManifestError(Exception):
    """A release that is missing, incomplete or not what it declares; says what to do."""


@dataclass(frozen=True)
class ModelFiles:
    """One model of a release."""

    version: int
    """Version folder of the model in the repository."""
    files: dict[str, str]
    """sha256 in hex of each file, by path relative to the repository."""


@dataclass(frozen=True)
class Manifest:
    """The declaration of one release."""

    release: int
    """Release number, from 1."""
    created: str
    """When it was published, ISO 8601, UTC."""
    layout_digest: str
    """``ebbing.history.LAYOUT_DIGEST`` of the code that trained it."""
    models: dict[str, ModelFiles]
    """The models of the release by name."""
    forgetting_sha256: str
    """sha256 in hex of the release's forgetting parameters."""
    training: dict[str, Any]
    """Provenance: data window, counts, seeds, code version."""
    metrics: dict[str, Any]
    """Offline metrics of the models."""
    parity: dict[str, Any]
    """Largest differences between eager model and export, with the tolerance."""

    @staticmethod
    def folder(repository: Path, release: int) -> Path:
        """Where a release's manifest and parameters lie."""
        return repository / RELEASES / str(release)

    @classmethod
    def read(cls, repository: Path, release: int) -> Manifest:
        """Read a release's manifest.

        Raises:
            ManifestError: there is no such release, or its manifest does not read.
        """
        path = cls.folder(repository, release) / MANIFEST
        try:
            fields = json.loads(path.read_text())
            fields["models"] = {n: ModelFiles(**m) for n, m in fields["models"].items()}
            return cls(**fields)
        except FileNotFoundError:
            known = ", ".join(map(str, releases(repository))) or "none"
            raise ManifestError(
                f"release {release} is not in {repository} (published: {known}): "
                "publish one with 'ebbing publish RUN'"
            ) from None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ManifestError(f"{path} does not read as a manifest: publish again") from error

    def to_json(self) -> str:
        """JSON text of the manifest."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"

    def verify(self, repository: Path) -> ForgettingParameters:
        """Check that the release is whole, unchanged and of this code's layout.

        Returns:
            The release's forgetting parameters.

        Raises:
            ManifestError: names the file that is missing or differs, and the remedy.
        """
        if self.layout_digest != LAYOUT_DIGEST:
            raise ManifestError(
                f"release {self.release} was trained for another input layout "
                f"({self.layout_digest[:12]}, this code has {LAYOUT_DIGEST[:12]}): "
                "train and publish with this version"
            )
        for model in self.models.values():
            for relative, digest in model.files.items():
                _check(repository / relative, digest, self.release)
        path = self.folder(repository, self.release) / FORGETTING
        _check(path, self.forgetting_sha256, self.release)
        try:
            return ForgettingParameters.from_json(path.read_text())
        except ValueError as error:
            raise ManifestError(f"{path}: {error}") from error


def _check(path: Path, digest: str, release: int) -> None:
    if not path.is_file():
        raise ManifestError(f"{path} of release {release} is missing: publish the release again")
    if sha256_of(path) != digest:
        raise ManifestError(
            f"{path} differs from what release {release} declares (corrupt or truncated): "
            "restore the file or publish the release again"
        )


def sha256_of(path: Path) -> str:
    """sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def releases(repository: Path) -> list[int]:
    """Numbers of the complete releases in a repository, ascending."""
    folder = repository / RELEASES
    if not folder.is_dir():
        return []
    return sorted(
        int(entry.name)
        for entry in folder.iterdir()
        if entry.name.isdecimal() and (entry / MANIFEST).is_file()
    )
