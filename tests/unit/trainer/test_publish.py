from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

import trainer.publish
from ebbing.history import MODEL_TENSORS
from ebbing.manifest import REQUIRED_MODELS, Manifest, releases, sha256_of
from ebbing.progress import Reporter
from trainer.comparison import Comparison
from trainer.latency import LatencyLimit
from trainer.publish import PublishError, Rename
from trainer.publish import publish as publish_better

CREATED = "2025-06-01T00:00:00+00:00"
QUICK = LatencyLimit(rows=(1, 3), calls=2)
REPORTER = Reporter(Console(file=StringIO()))
RENAMES = len(REQUIRED_MODELS) + 1


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
    for model in REQUIRED_MODELS:
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
    assert len(tree(repository)) == len(MODEL_TENSORS) + 2 * 4
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
