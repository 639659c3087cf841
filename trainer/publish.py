"""Publishing: a run becomes the next release of a Triton repository, whole or not at all.

Everything is checked and staged before anything is renamed. Version folders are renamed into
place first and the release's own folder last: its appearance is the commit point, and version
folders that no release names are the debris of an interrupted publish, which the next one clears.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ebbing.durable import sync
from ebbing.history import LAYOUT_DIGEST, MODEL_TENSORS
from ebbing.manifest import (
    FORGETTING,
    MANIFEST,
    REQUIRED_MODELS,
    SIGNATURE,
    Manifest,
    ModelFiles,
    releases,
    sha256_of,
)
from ebbing.progress import Reporter
from ebbing.signing import SigningKey
from trainer.checks import UnfitError, check_contract, check_model, models_of, precision_of
from trainer.comparison import Comparison, NotBetterError, decide
from trainer.latency import LatencyLimit
from trainer.precision import TOLERANCES
from trainer.runs import Run, RunError

STAGING = ".staging"
"""Folder in `releases/` where a release is put together; on the repository's own file system."""

Rename = Callable[[Path, Path], object]

PROVENANCE = (
    *("recipe", "recipe_config", "seed", "code_version", "window", "counts", "data"),
    *("protocol", "held_out", "tests_digest", "stopped_by_budget", "started_from"),
)
"""What a manifest keeps of run.json, where it is there."""


class PublishError(Exception):
    """A publish that was refused; names the file, what is wrong with it and the remedy."""


def publish(
    folder: Path,
    repository: Path,
    created: str,
    *,
    comparison: Comparison | None = None,
    key: SigningKey | None = None,
    limit: LatencyLimit | None = None,
    reporter: Reporter | None = None,
    clock: Callable[[], float] = time.perf_counter,
    rename: Rename = os.rename,
) -> Manifest:
    """Publish the run in `folder`.

    Args:
        folder: the run.
        repository: the models' config.pbtxt, and what has been published.
        created: the moment, ISO 8601, UTC.
        comparison: how it is shown to be better than the newest release.
        key: signs the manifest, if given.
        limit: how long its models may take.
        reporter: told how far measuring both on a log is.
        clock: seconds, to measure the models with.
        rename: moves a finished folder into place; tests interrupt it.

    Raises:
        PublishError: the run or the repository is not fit to be published; nothing has changed.
    """
    try:
        for model in REQUIRED_MODELS:
            check_contract(repository / model / "config.pbtxt", model)
        run = Run.read(folder)
        run.forgetting()
        models = models_of(run)
        for model in models:
            check_contract(repository / model / "config.pbtxt", model)
        with _exclusive(repository), _staging(repository) as staging:
            decision = decide(run, repository, comparison or Comparison(), reporter or Reporter())
            parity, latency = _checked(run, models, limit or LatencyLimit(), clock)
            release = _next_release(repository)
            files = _copy(run, models, staging)
            manifest = Manifest(
                release=release,
                created=created,
                layout_digest=LAYOUT_DIGEST,
                models={
                    model: ModelFiles(
                        release, {f"{model}/{release}/model.pt": files[f"{model}/model.pt"]}
                    )
                    for model in models
                },
                forgetting_sha256=files[FORGETTING],
                training={n: run.declared[n] for n in PROVENANCE if n in run.declared},
                metrics=run.declared.get("metrics", {}),
                parity=parity,
                latency=latency,
                decision=decision,
            )
            _declare(manifest, key, staging)
            _commit(manifest, repository, staging, rename)
    except (NotBetterError, RunError, UnfitError) as error:
        raise PublishError(str(error)) from error
    except OSError as error:
        raise PublishError(
            f"{error.filename or repository}: {error.strerror or error}; nothing has changed: see "
            "that there is room and that it may be written to, and publish again"
        ) from error
    return manifest


@contextmanager
def _exclusive(repository: Path) -> Iterator[None]:
    """Hold the repository's publish lock; the system gives it back if the process dies."""
    (repository / "releases").mkdir(exist_ok=True)
    with (repository / "releases" / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PublishError(
                f"{repository}: another publish is under way; try again when it is done"
            ) from None
        yield


@contextmanager
def _staging(repository: Path) -> Iterator[Path]:
    """A folder to put a release together in; what is left of it, or was left before, goes."""
    _clear_debris(repository)
    staging = repository / "releases" / STAGING
    staging.mkdir()
    try:
        yield staging
    except BaseException:
        # Without its release all of it is debris; after a kill the next publish clears it.
        _clear_debris(repository)
        raise
    staging.rmdir()


def _clear_debris(repository: Path) -> None:
    """Remove what an interrupted publish left: staged files, and versions no release names.

    Only versions above the newest release can be its debris; older ones are not ours to judge.
    """
    shutil.rmtree(repository / "releases" / STAGING, ignore_errors=True)
    newest = max(releases(repository), default=0)
    for model in MODEL_TENSORS:
        for version in _versions(repository / model):
            if version > newest:
                shutil.rmtree(repository / model / str(version))


def _versions(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    return [int(entry.name) for entry in folder.iterdir() if entry.name.isdecimal()]


def _next_release(repository: Path) -> int:
    taken = [*_versions(repository / "releases")]
    for model in MODEL_TENSORS:
        taken += _versions(repository / model)
    return max(taken, default=0) + 1


def _checked(
    run: Run,
    models: Sequence[str],
    limit: LatencyLimit,
    clock: Callable[[], float],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a manifest says of the models' parity and latency."""
    precision = precision_of(run)
    parity: dict[str, Any] = {
        "precision": precision,
        "tolerance": TOLERANCES[precision].largest,
    }
    latency: dict[str, Any] = {"limit_p99_ms": limit.p99_ms, "threads": 1}
    for model in models:
        parity[model], latency[model] = check_model(run, model, limit, clock)
    return parity, latency


def _copy(run: Run, models: Sequence[str], staging: Path) -> dict[str, str]:
    """Copy a run's files into the staging folder; returns their sha256 by their names in the run.

    Raises:
        PublishError: one is no longer what was checked.
    """
    (staging / "release").mkdir()
    targets = {FORGETTING: staging / "release" / FORGETTING}
    for model in models:
        (staging / model).mkdir()
        targets[f"{model}/model.pt"] = staging / model / "model.pt"
    for name, target in targets.items():
        shutil.copyfile(run.folder / name, target)
        if sha256_of(target) != run.declared["files"][name]:
            raise PublishError(
                f"{run.folder / name} changed while it was published: see that nobody trains into "
                "the folder, and publish again"
            )
    return {name: run.declared["files"][name] for name in targets}


def _declare(manifest: Manifest, key: SigningKey | None, staging: Path) -> None:
    """Write the manifest and its signature; all that is staged is on disk when this returns."""
    text = manifest.to_json()
    (staging / "release" / MANIFEST).write_text(text, encoding="utf-8")
    if key:
        signature = key.sign(text.encode())
        (staging / "release" / SIGNATURE).write_text(signature, encoding="ascii")
    for path in sorted(staging.rglob("*"), reverse=True):
        sync(path)
    sync(staging)


def _commit(manifest: Manifest, repository: Path, staging: Path, rename: Rename) -> None:
    """Rename everything into place, the release's own folder last."""
    for model, files in manifest.models.items():
        rename(staging / model, repository / model / str(files.version))
        sync(repository / model)
    rename(staging / "release", Manifest.folder(repository, manifest.release))
    try:
        sync(repository / "releases")
    except OSError as error:
        raise PublishError(
            f"release {manifest.release} is published, but {repository / 'releases'} could not be "
            f"synced ({error.strerror}), so that a power cut may undo it: check the disk"
        ) from error
