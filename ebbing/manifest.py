"""What a published release declares, and where its files lie in the repository.

Release N is version N of each model, the forgetting parameters and the manifest, published and
rolled back together. A release exists once its manifest does; model versions that no manifest
names are the debris of an interrupted publish and are never served.

The manifest has the sha256 of every other file, and its signature, if it has one, lies beside it:
whoever trusts the key that signed it can trust them all.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ebbing.history import LAYOUT_DIGEST, MODEL_TENSORS
from ebbing.interest.forgetting import ForgettingParameters
from ebbing.torchscript import TorchScriptError, check_archive

__all__ = [
    "FORGETTING",
    "MANIFEST",
    "REQUIRED_MODELS",
    "SIGNATURE",
    "Manifest",
    "ManifestError",
    "ModelFiles",
    "Trust",
    "releases",
    "sha256_of",
]

RELEASES = "releases"
MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
FORGETTING = "forgetting.json"
REQUIRED_MODELS = ("retrieval", "ranking")
"""Models every release has; the others of the layout it may have."""


class ManifestError(Exception):
    """A release that is missing, incomplete or not what it declares; says what to do."""


class Trust(Protocol):
    """Whose signatures are believed: `ebbing.signing.TrustedKeys`."""

    def require(self, manifest: bytes, path: Path, signature: Path) -> None:
        """Check the signature of the manifest that lies at ``path``.

        Raises:
            ManifestError: it is missing, or by nobody who is believed.
        """


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
    latency: dict[str, Any] = field(default_factory=dict)
    """What sample requests took where it was published, milliseconds, with the limit."""
    decision: dict[str, Any] = field(default_factory=dict)
    """Why it was published: what it was compared with, on what, or the reason it was forced."""

    @staticmethod
    def folder(repository: Path, release: int) -> Path:
        """Where a release's manifest and parameters lie."""
        return repository / RELEASES / str(release)

    @classmethod
    def read(cls, repository: Path, release: int, trust: Trust | None = None) -> Manifest:
        """Read a release's manifest; with ``trust``, only if somebody who is trusted signed it.

        Raises:
            ManifestError: there is no such release, its manifest does not read, is another
                release's, or is not signed by anybody trusted.
        """
        path = cls.folder(repository, release) / MANIFEST
        try:
            content = path.read_bytes()
            if trust:
                trust.require(content, path, path.with_name(SIGNATURE))
            fields = json.loads(content)
            fields["models"] = {n: ModelFiles(**m) for n, m in fields["models"].items()}
            manifest = cls(**fields)
        except FileNotFoundError:
            known = ", ".join(map(str, releases(repository))) or "none"
            raise ManifestError(
                f"release {release} is not in {repository} (published: {known}): "
                "publish one with 'ebbing publish RUN'"
            ) from None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ManifestError(f"{path} does not read as a manifest: publish again") from error
        if manifest.release != release:
            raise ManifestError(
                f"{path} is the manifest of release {manifest.release}: restore the one of release "
                f"{release}, or publish again"
            )
        return manifest

    def to_json(self) -> str:
        """JSON text of the manifest."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"

    def verify(self, repository: Path) -> ForgettingParameters:
        """Check that the release is whole, unchanged, of this code's layout, and that its models
        do nothing but compute.

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
        missing = set(REQUIRED_MODELS) - set(self.models)
        unknown = set(self.models) - set(MODEL_TENSORS)
        if missing or unknown:
            raise ManifestError(
                f"release {self.release} has models {sorted(self.models)}, this code serves "
                f"{sorted(REQUIRED_MODELS)}: train and publish with this version"
            )
        for name, model in self.models.items():
            self._verify_model(repository, name, model)
        path = self.folder(repository, self.release) / FORGETTING
        _check(path, self.forgetting_sha256, self.release)
        try:
            return ForgettingParameters.from_json(path.read_text())
        except ValueError as error:
            raise ManifestError(f"{path}: {error}") from error

    def _verify_model(self, repository: Path, name: str, model: ModelFiles) -> None:
        """As `verify`, of one model; every file in its version folder is to be a declared one."""
        folder = repository / name / str(model.version)
        for relative, digest in model.files.items():
            path = repository / relative
            if path.parent != folder or ".." in path.parts or path.suffix != ".pt":
                raise ManifestError(
                    f"release {self.release} declares {relative} for version {model.version} of "
                    f"{name}, which is no model file of its: publish the release again"
                )
            _check(path, digest, self.release)
        for path in sorted(folder.iterdir()):
            if path.relative_to(repository).as_posix() not in model.files:
                raise ManifestError(
                    f"{path} is not among the files release {self.release} declares: remove it, "
                    "or publish the release again"
                )
        try:
            for path in sorted(folder.glob("*.pt")):
                check_archive(path)
        except TorchScriptError as error:
            raise ManifestError(f"{error}; the release is not served") from error


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
