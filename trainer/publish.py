"""Publishing: a run becomes the next release of a Triton repository, whole or not at all.

Everything is checked and staged before anything is renamed. Version folders are renamed into
place first and the release's own folder last: its appearance is the commit point, and version
folders that no release names are the debris of an interrupted publish, which the next one clears.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from google.protobuf import text_format
from torch import Tensor
from tritonclient.grpc import model_config_pb2

from ebbing.durable import sync
from ebbing.history import LAYOUT_DIGEST, MODEL_TENSORS, TensorSpec
from ebbing.manifest import Manifest, ModelFiles, releases, sha256_of
from trainer.export import PARITY_ATOL, SAMPLE_DTYPES, ExportError, difference, outputs_of
from trainer.runs import Run, RunError
from trainer.samples import restore

STAGING = ".staging"
"""Folder in `releases/` where a release is put together; on the repository's own file system."""

Rename = Callable[[Path, Path], object]

PROVENANCE = ("recipe", "recipe_config", "seed", "code_version", "window", "counts", "protocol")


class PublishError(Exception):
    """A publish that was refused; names the file, what is wrong with it and the remedy."""


def publish(folder: Path, repository: Path, created: str, rename: Rename = os.rename) -> Manifest:
    """Publish the run in `folder`; `created` is the moment, ISO 8601, UTC.

    `rename` moves a finished folder into place; tests interrupt it.

    Raises:
        PublishError: the run or the repository is not fit to be published; nothing has changed.
    """
    _check_repository(repository)
    try:
        run = Run.read(folder)
        run.forgetting()
        parity = _check_run(run, repository)
    except RunError as error:
        raise PublishError(str(error)) from error
    with _exclusive(repository):
        _clear_debris(repository)
        release = _next_release(repository)
        staging = repository / "releases" / STAGING
        try:
            manifest = _stage(run, staging, release, created, parity)
            for model in manifest.models:
                rename(staging / model, repository / model / str(release))
                sync(repository / model)
            rename(staging / "release", Manifest.folder(repository, release))
            sync(repository / "releases")
        except BaseException:
            # Without its release all of it is debris; after a kill the next publish clears it.
            _clear_debris(repository)
            raise
        staging.rmdir()
    return manifest


def _check_repository(repository: Path) -> None:
    for model in MODEL_TENSORS:
        path = repository / model / "config.pbtxt"
        if not path.is_file():
            raise PublishError(
                f"{path} is missing: {repository} is no repository of Ebbing's models; name the "
                "one that holds their config.pbtxt with --repository"
            )


def _check_run(run: Run, repository: Path) -> dict[str, float]:
    """Check both models against their contracts and what training recorded.

    Returns:
        The largest difference from the recorded answers, by model.
    """
    declared = run.declared.get("layout_digest")
    if declared != LAYOUT_DIGEST:
        raise PublishError(
            f"{run.folder / 'run.json'}: trained for another input layout ({str(declared)[:12]}, "
            f"this code has {LAYOUT_DIGEST[:12]}): train again with this version"
        )
    differences: dict[str, float] = {"tolerance": PARITY_ATOL}
    for model in run.models:
        _check_config(repository / model / "config.pbtxt", model)
        try:
            inputs, outputs = restore(model, run.declared["samples"][model])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise PublishError(
                f"{run.folder / 'run.json'}: no sample requests for {model}: train again"
            ) from error
        differences[model] = _check_model(run, model, inputs, outputs)
    return differences


def _check_config(path: Path, model: str) -> None:
    """Compare a config.pbtxt with the layout."""
    config = model_config_pb2.ModelConfig()
    try:
        text_format.Parse(path.read_text(encoding="utf-8"), config)
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise PublishError(f"{path} does not parse: {error}; restore it") from error
    if config.name != model or config.backend != "pytorch" or config.max_batch_size < 1:
        raise PublishError(
            f"{path} declares model {config.name!r}, backend {config.backend!r} and "
            f"max_batch_size {config.max_batch_size}, but needs {model!r}, 'pytorch' and at "
            "least 1: restore it"
        )
    for kind, tensors, specs in zip(
        ("input", "output"), (config.input, config.output), MODEL_TENSORS[model], strict=True
    ):
        found = {
            tensor.name: (
                model_config_pb2.DataType.Name(tensor.data_type).removeprefix("TYPE_"),
                tuple(tensor.dims),
            )
            for tensor in tensors
        }
        wanted = {spec.name: (spec.dtype, spec.dims) for spec in specs}
        for name in sorted(found.keys() | wanted.keys()):
            if found.get(name) != wanted.get(name):
                raise PublishError(
                    f"{path}: {kind} {name} is {_described(found.get(name))}, but the models are "
                    f"{_described(wanted.get(name))}: restore the file, or give the changed "
                    "model a name of its own"
                )


def _check_model(run: Run, model: str, inputs: list[Tensor], expected: list[Tensor]) -> float:
    """Run a model file at two batch sizes; its answers must be as declared and as recorded."""
    path = run.folder / model / "model.pt"
    module = run.model(model)
    specs = MODEL_TENSORS[model][1]
    worst = 0.0
    for rows in (len(inputs[0]), 1):
        try:
            with torch.inference_mode():
                answers = outputs_of(module(*(tensor[:rows] for tensor in inputs)))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise PublishError(f"{path} fails on sample requests: {reason}; train again") from error
        if len(answers) != len(specs):
            raise PublishError(
                f"{path} gives {len(answers)} outputs, config.pbtxt declares {len(specs)}: "
                "train again with this version"
            )
        for answer, wanted, spec in zip(answers, expected, specs, strict=True):
            if not _fits(answer, spec, rows):
                raise PublishError(
                    f"{path}: output {spec.name} is {answer.dtype} {list(answer.shape)} for "
                    f"{rows} requests, config.pbtxt declares {spec.dtype} {list(spec.dims)}: "
                    "train again with this version"
                )
            try:
                worst = max(worst, difference(spec.name, wanted[:rows], answer))
            except ExportError as error:
                raise PublishError(
                    f"{path}: not what training recorded: {error}; train again"
                ) from error
    return worst


def _fits(tensor: Tensor, spec: TensorSpec, rows: int) -> bool:
    shape = tuple(tensor.shape)
    return (
        tensor.dtype == SAMPLE_DTYPES[spec.dtype]
        and len(shape) == 1 + len(spec.dims)
        and shape[0] == rows
        and all(dim in (-1, size) for dim, size in zip(spec.dims, shape[1:], strict=True))
    )


def _described(tensor: tuple[str, tuple[int, ...]] | None) -> str:
    return f"{tensor[0]} {list(tensor[1])}" if tensor else "absent"


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


def _versions(folder: Path) -> list[int]:
    return [int(entry.name) for entry in folder.iterdir() if entry.name.isdecimal()]


def _next_release(repository: Path) -> int:
    taken = [*_versions(repository / "releases")]
    for model in MODEL_TENSORS:
        taken += _versions(repository / model)
    return max(taken, default=0) + 1


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


def _stage(
    run: Run, staging: Path, release: int, created: str, parity: dict[str, float]
) -> Manifest:
    """Put the release together in `staging`, all of it on disk when this returns."""
    models = {}
    for model in run.models:
        (staging / model).mkdir(parents=True)
        copied = staging / model / "model.pt"
        shutil.copyfile(run.folder / model / "model.pt", copied)
        name = f"{model}/{release}/model.pt"
        models[model] = ModelFiles(release, {name: sha256_of(copied)})
    (staging / "release").mkdir()
    forgetting = staging / "release" / "forgetting.json"
    shutil.copyfile(run.folder / "forgetting.json", forgetting)
    manifest = Manifest(
        release=release,
        created=created,
        layout_digest=LAYOUT_DIGEST,
        models=models,
        forgetting_sha256=sha256_of(forgetting),
        training={name: run.declared.get(name) for name in PROVENANCE},
        metrics=run.declared.get("metrics", {}),
        parity=parity,
    )
    (staging / "release" / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    for path in sorted(staging.rglob("*"), reverse=True):
        sync(path)
    sync(staging)
    return manifest
