"""Releases that are whole, and every way in which one is not: the file and the remedy are named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ebbing.history import LAYOUT_DIGEST
from ebbing.interest.forgetting import ForgettingParameters
from ebbing.manifest import (
    REQUIRED_MODELS,
    Manifest,
    ManifestError,
    ModelFiles,
    releases,
    sha256_of,
)
from tests.harness.archive import write_archive

MODEL = "retrieval/1/model.pt"


def publish(repository: Path, release: int = 1) -> Manifest:
    """A whole release, as far as manifests are concerned."""
    models = {}
    for name in REQUIRED_MODELS:
        relative = f"{name}/{release}/model.pt"
        model = repository / relative
        model.parent.mkdir(parents=True, exist_ok=True)
        write_archive(model, "def f(x: Tensor) -> Tensor:\n  return torch.neg(x)\n")
        models[name] = ModelFiles(release, {relative: sha256_of(model)})
    folder = Manifest.folder(repository, release)
    folder.mkdir(parents=True)
    forgetting = folder / "forgetting.json"
    forgetting.write_text(ForgettingParameters.builtin().to_json())
    manifest = Manifest(
        release=release,
        created="2026-01-01T00:00:00Z",
        layout_digest=LAYOUT_DIGEST,
        models=models,
        forgetting_sha256=sha256_of(forgetting),
        training={"seed": 1},
        metrics={"ndcg_at_10": 0.05},
        parity={"tolerance": 1e-4},
    )
    (folder / "manifest.json").write_text(manifest.to_json())
    return manifest


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    publish(tmp_path)
    return tmp_path


def test_a_whole_release_reads_back_and_verifies(repository: Path) -> None:
    manifest = Manifest.read(repository, 1)
    assert manifest.models["retrieval"].files.keys() == {MODEL}
    assert manifest.metrics == {"ndcg_at_10": 0.05}
    forgetting = manifest.verify(repository)
    assert forgetting.to_json() == ForgettingParameters.builtin().to_json()
    assert json.loads(manifest.to_json())["release"] == 1


def test_releases_are_those_with_a_manifest_in_order_of_number(repository: Path) -> None:
    for release in (10, 2):
        publish(repository, release)
    for debris in ("3", "x", ".staging-4", "-5"):
        (repository / "releases" / debris).mkdir()
    (repository / "releases" / "6").write_text("a file")
    assert releases(repository) == [1, 2, 10]


def test_a_repository_without_releases(tmp_path: Path) -> None:
    assert releases(tmp_path) == []
    assert releases(tmp_path / "missing") == []
    with pytest.raises(
        ManifestError, match=r"release 1 is not in .*published: none.*ebbing publish"
    ):
        Manifest.read(tmp_path, 1)


def test_an_unknown_release_names_the_known_ones(repository: Path) -> None:
    publish(repository, 2)
    with pytest.raises(ManifestError, match=r"release 7 .*published: 1, 2.*ebbing publish"):
        Manifest.read(repository, 7)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "3", "{}", '{"models": {}}', '{"models": []}', '{"models": {"a": 1}}'],
)
def test_a_manifest_that_does_not_read_is_named(repository: Path, text: str) -> None:
    path = Manifest.folder(repository, 1) / "manifest.json"
    path.write_text(text)
    with pytest.raises(ManifestError, match="publish again") as caught:
        Manifest.read(repository, 1)
    assert str(path) in str(caught.value)


def test_a_truncated_or_binary_manifest_is_named(repository: Path) -> None:
    path = Manifest.folder(repository, 1) / "manifest.json"
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"\xff\xfe" + whole):
        path.write_bytes(damaged)
        with pytest.raises(ManifestError, match=r"manifest\.json does not read"):
            Manifest.read(repository, 1)


def test_a_manifest_with_fields_this_code_does_not_know_is_refused(repository: Path) -> None:
    path = Manifest.folder(repository, 1) / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "surprise": 1}))
    with pytest.raises(ManifestError, match="does not read"):
        Manifest.read(repository, 1)


@pytest.mark.parametrize("relative", [MODEL, "releases/1/forgetting.json"])
def test_a_missing_file_is_named(repository: Path, relative: str) -> None:
    (repository / relative).unlink()
    with pytest.raises(ManifestError, match="missing: publish the release again") as caught:
        Manifest.read(repository, 1).verify(repository)
    assert str(repository / relative) in str(caught.value)


@pytest.mark.parametrize("relative", [MODEL, "releases/1/forgetting.json"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "one bit"])
def test_a_changed_file_is_named(repository: Path, relative: str, damage: str) -> None:
    path = repository / relative
    whole = bytearray(path.read_bytes())
    if damage == "one bit":
        whole[len(whole) // 2] ^= 1
    else:
        del whole[0 if damage == "empty" else len(whole) // 2 :]
    path.write_bytes(whole)
    with pytest.raises(ManifestError, match=r"corrupt or truncated.*restore the file") as caught:
        Manifest.read(repository, 1).verify(repository)
    assert str(path) in str(caught.value)


def test_another_layout_is_refused_with_the_remedy(repository: Path) -> None:
    manifest = replace(Manifest.read(repository, 1), layout_digest="0" * 64)
    with pytest.raises(ManifestError, match=r"another input layout.*train and publish"):
        manifest.verify(repository)


def test_forgetting_parameters_of_other_features_are_refused(repository: Path) -> None:
    path = Manifest.folder(repository, 1) / "forgetting.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "features": ["log_count"]}))
    manifest = replace(Manifest.read(repository, 1), forgetting_sha256=sha256_of(path))
    with pytest.raises(ManifestError, match=r"forgetting\.json: .*fitted on other features"):
        manifest.verify(repository)


@pytest.mark.parametrize(
    "relative",
    [
        "ranking/1/model.pt",
        "retrieval/2/model.pt",
        "retrieval/1/../1/model.pt",
        "/etc/passwd",
        "retrieval/1/model.py",
        "retrieval/config.pbtxt",
    ],
)
def test_files_that_are_no_models_of_its_are_refused(repository: Path, relative: str) -> None:
    manifest = Manifest.read(repository, 1)
    files = {**manifest.models["retrieval"].files, relative: "0" * 64}
    models = {**manifest.models, "retrieval": ModelFiles(1, files)}
    with pytest.raises(ManifestError, match="which is no model file of its"):
        replace(manifest, models=models).verify(repository)


def test_the_manifest_of_another_release_is_named(repository: Path) -> None:
    folder = Manifest.folder(repository, 2)
    folder.mkdir()
    (folder / "manifest.json").write_text(Manifest.read(repository, 1).to_json())
    with pytest.raises(ManifestError, match=r"2/manifest\.json is the manifest of release 1"):
        Manifest.read(repository, 2)


def test_other_files_beside_a_model_are_named(repository: Path) -> None:
    (repository / "ranking" / "1" / "model.py").write_text("pass")
    with pytest.raises(ManifestError, match=r"ranking/1/model\.py is not among the files"):
        Manifest.read(repository, 1).verify(repository)


def test_a_model_that_does_more_than_compute_is_refused(repository: Path) -> None:
    path = write_archive(
        repository / MODEL, "def f(x: Tensor) -> Tensor:\n  return torch.rand_like(x)\n"
    )
    manifest = Manifest.read(repository, 1)
    models = {**manifest.models, "retrieval": ModelFiles(1, {MODEL: sha256_of(path)})}
    with pytest.raises(ManifestError, match=r"aten::rand_like.*; the release is not served"):
        replace(manifest, models=models).verify(repository)
