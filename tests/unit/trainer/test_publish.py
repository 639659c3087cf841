from __future__ import annotations

import importlib.util
import itertools
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

import trainer.publish
from ebbing.history import MODEL_TENSORS
from ebbing.manifest import Manifest, ManifestError, releases, sha256_of
from ebbing.progress import Reporter
from ebbing.signing import SigningKey, new_signing_key
from tests.harness.archive import write_archive
from tests.unit.trainer.conftest import TINY
from trainer.comparison import Comparison
from trainer.export import load_exported
from trainer.latency import LatencyLimit
from trainer.publish import PublishError, Rename
from trainer.publish import publish as publish_better
from trainer.samples import restore
from trainer.train import TrainingRun, train_run

CREATED = "2025-06-01T00:00:00+00:00"
CONTRACTS = Path(__file__).parents[3] / "triton_repo"
QUICK = LatencyLimit(rows=(1, 3), calls=2)
REPORTER = Reporter(Console(file=StringIO()))
RENAMES = len(MODEL_TENSORS) + 1


def publish(run: Path, repository: Path, created: str, rename: Rename = os.rename) -> Manifest:
    """Publish a run, whether it is better than what is there or not."""
    forced = Comparison(force="a test")
    return publish_better(
        run, repository, created, comparison=forced, limit=QUICK, reporter=REPORTER, rename=rename
    )


def tree(folder: Path) -> dict[str, str]:
    """What a repository holds, but for the lock."""
    return {
        str(path.relative_to(folder)): sha256_of(path)
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def declare(run: Path, **changes: object) -> None:
    """Change run.json, with the digests of the files as they now are."""
    declared = json.loads((run / "run.json").read_text())
    declared["files"] = {name: sha256_of(run / name) for name in declared["files"]}
    (run / "run.json").write_text(json.dumps({**declared, **changes}))


def failing_at(step: int, error: BaseException) -> Callable[[Path, Path], None]:
    done = 0

    def rename(source: Path, target: Path) -> None:
        nonlocal done
        if done == step:
            raise error
        done += 1
        source.rename(target)

    return rename


def test_a_release_is_whole_and_verifies(run: Path, repository: Path) -> None:
    manifest = publish(run, repository, CREATED)
    assert manifest.release == 1
    assert manifest.created == CREATED
    assert releases(repository) == [1]
    assert Manifest.read(repository, 1) == manifest
    assert manifest.verify(repository).to_json() == (run / "forgetting.json").read_text()
    for model in MODEL_TENSORS:
        assert (repository / model / "1" / "model.pt").is_file()
        assert manifest.parity[model] <= manifest.parity["tolerance"]
    assert manifest.training["recipe"] == "tiny"
    assert manifest.metrics["full_catalogue"]["retrieval"]["tests"] > 0
    assert not (repository / "releases" / ".staging").exists()


def test_releases_count_up(run: Path, repository: Path) -> None:
    assert [publish(run, repository, CREATED).release for _ in range(3)] == [1, 2, 3]
    shutil.rmtree(repository / "releases" / "1")
    assert publish(run, repository, CREATED).release == 4


@pytest.mark.parametrize("step", range(RENAMES))
@pytest.mark.parametrize("error", [OSError("disk"), KeyboardInterrupt()])
def test_an_interrupted_publish_changes_nothing(
    run: Path, repository: Path, step: int, error: BaseException
) -> None:
    publish(run, repository, CREATED)
    before = tree(repository)
    refused = PublishError if isinstance(error, OSError) else type(error)
    with pytest.raises(refused):
        publish(run, repository, CREATED, rename=failing_at(step, error))
    assert tree(repository) == before
    assert publish(run, repository, CREATED).release == 2


@pytest.mark.parametrize("step", range(RENAMES))
def test_a_killed_publish_leaves_debris_the_next_one_clears(
    run: Path, repository: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(run, repository, CREATED)
    with monkeypatch.context() as killed:
        # A killed process cleans nothing up.
        killed.setattr(trainer.publish, "_clear_debris", lambda _: None)
        with pytest.raises(SystemExit):
            publish(run, repository, CREATED, rename=failing_at(step, SystemExit()))
    assert releases(repository) == [1]
    Manifest.read(repository, 1).verify(repository)
    assert publish(run, repository, CREATED).release == 2
    assert len(tree(repository)) == len(MODEL_TENSORS) + 2 * 5
    Manifest.read(repository, 2).verify(repository)


def test_what_is_killed_after_the_commit_point_is_published(run: Path, repository: Path) -> None:
    def rename(source: Path, target: Path) -> None:
        source.rename(target)
        if target.parent.name == "releases":
            raise SystemExit

    with pytest.raises(SystemExit):
        publish(run, repository, CREATED, rename=rename)
    Manifest.read(repository, 1).verify(repository)


def test_two_publishes_at_once_are_refused(run: Path, repository: Path) -> None:
    def rename(source: Path, target: Path) -> None:
        with pytest.raises(PublishError, match="another publish is under way"):
            publish(run, repository, CREATED)
        source.rename(target)

    assert publish(run, repository, CREATED, rename=rename).release == 1


@pytest.mark.parametrize("name", ["retrieval/model.pt", "ranking/model.pt", "forgetting.json"])
@pytest.mark.parametrize("how", ["truncated", "flipped", "missing"])
def test_damaged_files_are_refused_by_name(
    run: Path, repository: Path, name: str, how: str
) -> None:
    before = tree(repository)
    content = (run / name).read_bytes()
    if how == "truncated":
        (run / name).write_bytes(content[: len(content) // 2])
    elif how == "flipped":
        middle = len(content) // 2
        (run / name).write_bytes(
            content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        )
    else:
        (run / name).unlink()
    with pytest.raises(PublishError, match=re.escape(str(run / name)) + r".*train again"):
        publish(run, repository, CREATED)
    assert tree(repository) == before


@pytest.mark.parametrize("content", [b"", b"not a model", None])
def test_a_model_that_does_not_load_is_refused(
    run: Path, repository: Path, content: bytes | None
) -> None:
    path = run / "retrieval" / "model.pt"
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    declare(run)
    with pytest.raises(PublishError, match=r"model\.pt is not a loadable TorchScript module"):
        publish(run, repository, CREATED)


def test_the_wrong_model_is_refused(run: Path, repository: Path) -> None:
    shutil.copy(run / "ranking" / "model.pt", run / "retrieval" / "model.pt")
    declare(run)
    with pytest.raises(PublishError, match=r"retrieval/model\.pt fails on sample requests"):
        publish(run, repository, CREATED)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("keys", "gives 1 outputs"),
        ("keys.float(), ages, ages, types[:, :1]", "ITEM_KEYS__0 is torch.float32 [4, 50] for 4"),
        ("keys[:1], ages, ages, types[:, :1]", "ITEM_KEYS__0 is torch.int64 [1, 50] for 4"),
        ("keys, ages, ages, types[:, :1]", "ITEM_KEYS__0: [4, 200] torch.int64 became [4, 50]"),
    ],
)
def test_outputs_other_than_declared_are_refused(
    run: Path, repository: Path, tmp_path: Path, returned: str, message: str
) -> None:
    source = tmp_path / "answer.py"
    source.write_text(
        "import torch\nfrom torch import Tensor\n"
        "class Answer(torch.nn.Module):\n"
        "    def forward(self, keys: Tensor, ages: Tensor, types: Tensor):\n"
        f"        return {returned}\n"
    )
    spec = importlib.util.spec_from_file_location("answer", source)
    assert spec is not None
    assert spec.loader is not None
    answer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(answer)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        torch.jit.save(torch.jit.script(answer.Answer()), run / "retrieval" / "model.pt")
    declare(run)
    with pytest.raises(PublishError) as caught:
        publish(run, repository, CREATED)
    assert "retrieval/model.pt" in str(caught.value)
    assert message in str(caught.value)


def test_answers_other_than_recorded_are_refused(run: Path, repository: Path) -> None:
    samples = json.loads((run / "run.json").read_text())["samples"]
    relevance = samples["ranking"]["outputs"]["RELEVANCE__0"]
    relevance[0][0] += 0.5
    declare(run, samples=samples)
    with pytest.raises(PublishError, match=r"recorded: RELEVANCE__0 differs by 0\.5"):
        publish(run, repository, CREATED)


@pytest.mark.parametrize("changes", [{"layout_digest": "0" * 64}, {"samples": {}}])
def test_runs_of_other_code_are_refused(
    run: Path, repository: Path, changes: dict[str, object]
) -> None:
    declare(run, **changes)
    with pytest.raises(PublishError, match=r"run\.json.*train again"):
        publish(run, repository, CREATED)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("HISTORY_AGES__1", "AGES__1", "input AGES__1 is FP32 [50], but the models are absent"),
        ("TYPE_INT32", "TYPE_INT64", "input HISTORY_TYPES__2 is INT64 [50], but the models are"),
        ("dims: [ 50 ]", "dims: [ 40 ]", "input HISTORY_AGES__1 is FP32 [40]"),
        ('backend: "pytorch"', 'backend: "onnxruntime"', "backend 'onnxruntime'"),
        ("max_batch_size: 64", "max_batch_size: 0", "max_batch_size 0"),
        ("input [", "inputs [", "does not parse"),
    ],
)
def test_a_config_that_disagrees_is_refused(
    run: Path, repository: Path, old: str, new: str, message: str
) -> None:
    path = repository / "retrieval" / "config.pbtxt"
    path.write_text(path.read_text().replace(old, new))
    before = tree(repository)
    with pytest.raises(PublishError) as caught:
        publish(run, repository, CREATED)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)
    assert tree(repository) == before


def test_a_folder_that_is_no_repository_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(PublishError, match=r"config\.pbtxt is missing.*--repository"):
        publish(run, tmp_path / "elsewhere", CREATED)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_folder_that_is_no_run_is_refused(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(PublishError, match=r"run\.json is missing"):
        publish(tmp_path, repository, CREATED)


# Whose release it is, and whether it is still the same.


@pytest.fixture(scope="module")
def signed(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SigningKey]:
    """A repository of two signed releases, and their key."""
    repository = tmp_path_factory.mktemp("signed")
    for model in MODEL_TENSORS:
        (repository / model).mkdir()
        shutil.copy(CONTRACTS / model / "config.pbtxt", repository / model)
    new_signing_key(repository / "signing.key", bytes(range(32)))
    key = SigningKey.read(repository / "signing.key")
    forced = Comparison(force="a test")
    for _ in range(2):
        publish_better(
            trained, repository, CREATED, key=key, comparison=forced, limit=QUICK, reporter=REPORTER
        )
    return repository, key


def verify(repository: Path, release: int, key: SigningKey) -> None:
    Manifest.read(repository, release, key.trusted()).verify(repository)


def files_of(repository: Path, release: int) -> list[Path]:
    folders = [repository / model / str(release) for model in MODEL_TENSORS]
    folders.append(Manifest.folder(repository, release))
    return sorted(path for folder in folders for path in folder.iterdir())


def test_a_flipped_bit_in_any_file_is_refused_by_name(signed: tuple[Path, SigningKey]) -> None:
    repository, key = signed
    verify(repository, 2, key)
    files = files_of(repository, 2)
    assert {path.name for path in files} == {
        "model.pt",
        "forgetting.json",
        "manifest.json",
        "manifest.sig",
    }
    random = np.random.default_rng(7)
    for path in files:
        whole = path.read_bytes()
        for place in {0, len(whole) - 1, *random.integers(len(whole), size=25).tolist()}:
            changed = bytearray(whole)
            changed[place] ^= 1 << int(random.integers(8))
            path.write_bytes(changed)
            with pytest.raises(ManifestError, match=r"restore|publish") as caught:
                verify(repository, 2, key)
            assert path.name in str(caught.value)
        path.write_bytes(whole)
    verify(repository, 2, key)


def test_a_changed_word_in_the_manifest_is_refused(signed: tuple[Path, SigningKey]) -> None:
    repository, key = signed
    path = Manifest.folder(repository, 2) / "manifest.json"
    whole = path.read_text()
    for old, new in (('"tiny"', '"huge"'), (CREATED, CREATED.replace("06", "07")), ("\n", "\n\n")):
        assert old in whole
        path.write_text(whole.replace(old, new, 1))
        with pytest.raises(ManifestError, match=r"manifest\.json is not what manifest\.sig"):
            verify(repository, 2, key)
    path.write_text(whole)


def test_the_manifest_of_another_release_is_refused(
    signed: tuple[Path, SigningKey], tmp_path: Path
) -> None:
    repository = Path(shutil.copytree(signed[0], tmp_path / "copy"))
    for name in ("manifest.json", "manifest.sig"):
        shutil.copy(Manifest.folder(repository, 1) / name, Manifest.folder(repository, 2) / name)
    with pytest.raises(ManifestError, match="is the manifest of release 1: restore the one of"):
        verify(repository, 2, signed[1])


def test_files_that_nobody_declared_are_refused(
    signed: tuple[Path, SigningKey], tmp_path: Path
) -> None:
    repository = Path(shutil.copytree(signed[0], tmp_path / "copy"))
    (repository / "ranking" / "2" / "model.py").write_text("print('hello')")
    with pytest.raises(ManifestError, match=r"ranking/2/model\.py is not among the files"):
        verify(repository, 2, signed[1])


def test_nobody_trusted_has_signed_it(run: Path, repository: Path, tmp_path: Path) -> None:
    publish(run, repository, CREATED)
    new_signing_key(tmp_path / "signing.key", bytes(32))
    with pytest.raises(ManifestError, match=r"manifest\.json is not signed.*--key FILE"):
        verify(repository, 1, SigningKey.read(tmp_path / "signing.key"))


# What a manifest says.


def test_a_manifest_says_where_a_release_comes_from(run: Path, repository: Path) -> None:
    manifest = publish(run, repository, CREATED)
    declared = json.loads((run / "run.json").read_text())
    for name in ("window", "seed", "code_version", "recipe_config", "data", "tests_digest"):
        assert manifest.training[name] == declared[name]
    assert (
        manifest.decision["value"]
        == declared["metrics"]["full_catalogue"]["retrieval"]["ndcg_at_10"]
    )
    for model in MODEL_TENSORS:
        assert manifest.latency[model].keys() == {"1", "3"}
        for figures in manifest.latency[model].values():
            assert 0 < figures["median_ms"] <= figures["p99_ms"] <= manifest.latency["limit_p99_ms"]


def test_the_same_run_again_is_not_better(run: Path, repository: Path, data: Path) -> None:
    publish(run, repository, CREATED)
    before = tree(repository)
    for where in (None, data):
        with pytest.raises(PublishError, match=r"is not better than release 1.*--force REASON"):
            publish_better(
                run,
                repository,
                CREATED,
                comparison=Comparison(data=where),
                limit=QUICK,
                reporter=REPORTER,
            )
    assert tree(repository) == before


def test_a_better_run_on_other_tests_is_measured_on_the_same(
    run: Path, repository: Path, data: Path
) -> None:
    # A release whose user vectors are all the same answers what is popular.
    worse = Path(shutil.copytree(run, run.with_name("worse")))
    flatten(worse / "retrieval" / "model.pt", run.with_name("flat.py"))
    samples = json.loads((run / "run.json").read_text())["samples"]
    with torch.inference_mode():
        inputs, _ = restore("retrieval", samples["retrieval"])
        answers = load_exported(worse / "retrieval" / "model.pt")(*inputs)
    specs = MODEL_TENSORS["retrieval"][1]
    samples["retrieval"]["outputs"] = {
        spec.name: tensor.tolist() for spec, tensor in zip(specs, answers, strict=True)
    }
    declare(worse, samples=samples, tests_digest="of other tests")
    publish(worse, repository, CREATED)

    def again(comparison: Comparison) -> Manifest:
        return publish_better(
            run, repository, CREATED, comparison=comparison, limit=QUICK, reporter=REPORTER
        )

    with pytest.raises(PublishError, match="measured on different tests"):
        again(Comparison())
    with pytest.raises(PublishError, match=r"events\.csv.*say why with --force"):
        again(Comparison(data=repository))
    decision = again(Comparison(data=data)).decision
    assert decision["release"] == 1
    assert decision["its_value"] < decision["value"]
    assert decision["on"] == f"the tests of {data.name}"


def flatten(path: Path, source: Path) -> None:
    """Make a retrieval model answer everybody alike."""
    source.write_text(FLAT)
    spec = importlib.util.spec_from_file_location("flat", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        torch.jit.save(torch.jit.script(module.Flat(load_exported(path))), path)


FLAT = """
import torch
from torch import Tensor, nn

class Flat(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, keys: Tensor, ages: Tensor, types: Tensor):
        return self.inner(torch.zeros_like(keys), ages * 0, types * 0)

    @torch.jit.export
    def scores(self, keys: Tensor, ages: Tensor, types: Tensor) -> Tensor:
        return self.inner.scores(torch.zeros_like(keys), ages * 0, types * 0)

    @torch.jit.export
    def catalogue(self) -> Tensor:
        return self.inner.catalogue()

    @torch.jit.export
    def vectors(self) -> Tensor:
        return self.inner.vectors()
"""


# Runs that are none.


@pytest.mark.parametrize("name", ["retrieval/model.pt", "ranking/model.pt", "forgetting.json"])
def test_a_run_that_does_not_declare_a_file_is_refused(
    run: Path, repository: Path, name: str
) -> None:
    files = json.loads((run / "run.json").read_text())["files"]
    del files[name]
    declare(run, files=files)
    with pytest.raises(PublishError, match=rf"run\.json declares no {name}: train again"):
        publish(run, repository, CREATED)


def test_a_run_of_other_code_names_both_versions(run: Path, repository: Path) -> None:
    declare(run, layout_digest="0" * 64, code_version="0.0.9")
    with pytest.raises(PublishError, match=r"by Ebbing 0\.0\.9 .*this code, \d.*train again"):
        publish(run, repository, CREATED)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_run_that_does_not_read_is_refused(run: Path, repository: Path, text: str) -> None:
    (run / "run.json").write_text(text)
    with pytest.raises(PublishError, match=r"run\.json does not read as a run: train again"):
        publish(run, repository, CREATED)


def test_a_model_that_does_more_than_compute_is_refused(run: Path, repository: Path) -> None:
    before = tree(repository)
    write_archive(
        run / "ranking" / "model.pt",
        'def f() -> Tensor:\n  return torch.from_file("/etc/passwd", False, 4)\n',
    )
    declare(run)
    with pytest.raises(PublishError, match=r"ranking/model\.pt: .*uses aten::from_file"):
        publish(run, repository, CREATED)
    assert tree(repository) == before


def test_a_slow_model_is_refused(run: Path, repository: Path) -> None:
    ticks = itertools.count()
    with pytest.raises(PublishError, match=r"model\.pt takes 1000 ms .* allow more with --max-lat"):
        publish_better(
            run,
            repository,
            CREATED,
            limit=LatencyLimit(p99_ms=999.0, rows=(1,), calls=1),
            clock=lambda: float(next(ticks)),
        )
    assert releases(repository) == []


def test_a_run_that_changes_meanwhile_is_refused(
    run: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copyfile = shutil.copyfile

    def racing(source: Path, target: Path) -> None:
        copyfile(source, target)
        target.write_bytes(b"half of what")

    monkeypatch.setattr("trainer.publish.shutil.copyfile", racing)
    with pytest.raises(PublishError, match="changed while it was published"):
        publish(run, repository, CREATED)
    assert not (repository / "releases" / ".staging").exists()
    assert releases(repository) == []


def test_a_run_in_16_bits_is_published_as_such(
    run: Path, repository: Path, trained_in_16_bits: Path
) -> None:
    manifest = publish(trained_in_16_bits, repository, CREATED)
    assert manifest.parity["precision"] == "bf16"
    assert 1e-6 < manifest.parity["ranking"] <= manifest.parity["tolerance"] == 0.05
    parity = {**manifest.parity, "precision": "fp4"}
    declare(run, parity=parity)
    with pytest.raises(PublishError, match=r"run\.json: models in 'fp4', of which nothing"):
        publish(run, repository, CREATED)


@pytest.fixture(scope="module")
def trained_in_16_bits(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bf16")
    train_run(TrainingRun(data, folder, TINY, precision="bf16"), REPORTER)
    return folder
