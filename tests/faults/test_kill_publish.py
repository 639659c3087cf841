"""Publishers that are killed, run out of disk or meet each other: the repository is as before, or
has one more complete release."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ebbing.history import MODEL_TENSORS
from ebbing.manifest import Manifest, releases, sha256_of
from ebbing.signing import SigningKey, new_signing_key
from tests.harness.faults_disk import SmallDisk
from tests.harness.publishing import publish_quickly

CONTRACTS = Path(__file__).parents[2] / "triton_repo"


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "signing.key"
    new_signing_key(path, bytes(range(32)))
    return path


@pytest.fixture(scope="module")
def key(key_file: Path) -> SigningKey:
    return SigningKey.read(key_file)


@pytest.fixture(scope="module")
def run(trained: tuple[Path, Any, Any]) -> Path:
    return trained[0]


@pytest.fixture(scope="module")
def published(run: Path, key: SigningKey, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of one release."""
    repository = tmp_path_factory.mktemp("repository")
    for model in MODEL_TENSORS:
        (repository / model).mkdir()
        shutil.copy(CONTRACTS / model / "config.pbtxt", repository / model)
    assert publish_quickly(run, repository, key) == 1
    return repository


def tree(repository: Path) -> dict[str, str]:
    """What a repository holds, but for the lock."""
    return {
        path.relative_to(repository).as_posix(): sha256_of(path)
        for path in sorted(repository.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def publishers(what: str, *arguments: Path) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.harness.publishing", what, *map(str, arguments)],
        check=True,
        capture_output=True,
        text=True,
        timeout=200,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_killed_at_any_step(
    run: Path, published: Path, key: SigningKey, key_file: Path, tmp_path: Path
) -> None:
    before = tree(published)
    *killed, survived = publishers("kills", run, published, key_file, tmp_path)
    assert survived["said"] == "published 2", survived
    whole = tree(Path(survived["repository"]))
    steps = {outcome["said"].split()[0] for outcome in killed}
    assert {"open", "os.mkdir", "shutil.copyfile", "os.rename", "os.rmdir"} <= steps
    committed = []
    for outcome in killed:
        assert outcome["code"] == -signal.SIGKILL
        repository = Path(outcome["repository"])
        found = tree(repository)
        newest = max(releases(repository))
        Manifest.read(repository, newest, key.trusted()).verify(repository)
        if newest == 1:
            assert before.items() <= found.items(), outcome
        else:
            assert found == whole, outcome
        committed.append(newest)
        # The next publisher is not in the way of what the killed one left.
        assert publish_quickly(run, repository, key) == newest + 1
        assert len(tree(repository)) == len(before) + newest * (len(whole) - len(before))
    # Until the last rename there was one release, and from then on two.
    assert committed == sorted(committed)
    assert set(committed) == {1, 2}


def test_publishers_at_once(
    run: Path, published: Path, key: SigningKey, key_file: Path, tmp_path: Path
) -> None:
    repository = Path(shutil.copytree(published, tmp_path / "repository"))
    outcomes = publishers("race", run, repository, key_file, tmp_path)
    won = [outcome["said"] for outcome in outcomes if outcome["code"] == 0]
    refused = [outcome["said"] for outcome in outcomes if outcome["code"] == 1]
    assert len(won) + len(refused) == 4
    assert sorted(won) == [f"published {number}" for number in range(2, 2 + len(won))]
    assert all("another publish is under way; try again" in said for said in refused)
    assert releases(repository) == list(range(1, 2 + len(won)))
    for number in releases(repository):
        Manifest.read(repository, number, key.trusted()).verify(repository)


def test_a_disk_that_is_full(run: Path, published: Path, key_file: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    size = sum(path.stat().st_size for path in published.rglob("*")) + 200_000
    with SmallDisk(tmp_path / "disk", size) as disk:
        where = disk.folder / "repository"
        subprocess.run(disk.command(["cp", "-r", str(published), str(where)]), check=True)
        command = [sys.executable, "-m", "ebbing", "publish", str(run)]
        command += ["--repository", str(where), "--key", str(key_file), "--force", "a test"]
        done = subprocess.run(
            disk.command(command), check=False, capture_output=True, text=True, timeout=100
        )
        assert done.returncode == 1
        assert "No space left on device; nothing has changed" in done.stderr
        assert "Traceback" not in done.stderr
        left = disk.copy_to(tmp_path / "left") / "repository"
    assert tree(left) == tree(published)


def test_a_repository_that_may_not_be_written_to(
    run: Path, published: Path, key_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir()
    with SmallDisk(tmp_path / "disk", 16 * 2**20) as disk:
        where = disk.folder / "repository"
        subprocess.run(disk.command(["cp", "-r", str(published), str(where)]), check=True)
        subprocess.run(disk.command(["mount", "-o", "remount,ro", str(disk.folder)]), check=True)
        command = [sys.executable, "-m", "ebbing", "publish", str(run)]
        command += ["--repository", str(where), "--key", str(key_file), "--force", "a test"]
        done = subprocess.run(
            disk.command(command), check=False, capture_output=True, text=True, timeout=100
        )
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert str(where) in line
        assert "Read-only file system; nothing has changed: see that" in line
