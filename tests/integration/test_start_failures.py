"""What keeps the gateway or Triton from starting: one clear line, a non-zero exit, no traceback."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from ebbing.client import EbbingError, user_event
from ebbing.manifest import Manifest
from ebbing.signing import new_signing_key
from server.state.sqlite import SqliteStore
from server.state.sqlite_file import opened
from tests.harness.gateway import (
    GatewayProcess,
    StartGateway,
    ran,
)
from tests.harness.release import LOG, TinyRelease
from tests.harness.state import records
from tests.harness.triton import RunningTriton, free_ports

NOBODY = "127.0.0.1:1"
"""An address where nothing listens."""


def complaint(*arguments: object, **settings: object) -> str:
    """What a command says when it fails: the one line on stderr."""
    done = ran(*arguments, **settings)
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr + done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("ebbing: ")
    return line.removeprefix("ebbing: ")


@pytest.fixture
def settings(tmp_path: Path, release: TinyRelease, triton: RunningTriton) -> dict[str, Any]:
    """Settings with which a gateway would start."""
    return {
        "state": tmp_path / "state.db",
        "repository": release.repository,
        "triton": triton.grpc_address,
        "port": 0,
        "metrics_port": 0,
    }


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize(("name", "flag"), [("port", "--port"), ("metrics_port", "--metrics-port")])
def test_a_port_is_taken(settings: dict[str, Any], taken: int, name: str, flag: str) -> None:
    said = complaint("serve", **{**settings, name: taken})
    assert f"port {taken} is taken" in said
    assert said.endswith(f"choose another with {flag}")


def test_an_address_of_another_machine(settings: dict[str, Any]) -> None:
    said = complaint("serve", **{**settings, "host": "192.0.2.1"})
    assert said.startswith("cannot listen on 192.0.2.1, port 0 (")


def test_the_state_file_is_locked(settings: dict[str, Any]) -> None:
    SqliteStore(Path(settings["state"]), records()).close()
    locker = (
        "import apsw, sys\n"
        "db = apsw.Connection(sys.argv[1])\n"
        "db.execute('PRAGMA journal_mode = WAL').fetchall()\n"
        "db.execute('BEGIN EXCLUSIVE')\n"
        "print(flush=True)\n"
        "sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", locker, settings["state"]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        said = complaint("serve", **settings)
    assert said.startswith(f"{settings['state']}: ")
    assert "locked by another process" in said


def test_the_folder_of_the_state_file_is_missing(settings: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "state.db"
    said = complaint("serve", **{**settings, "state": path})
    assert said.startswith(f"{path}: ")
    assert "cannot be opened" in said


def test_the_state_file_is_none(settings: dict[str, Any]) -> None:
    settings["state"].write_bytes(b"This is no database." * 1000)
    assert "damaged, or is none" in complaint("serve", **settings)


def test_the_state_file_is_another_programs(settings: dict[str, Any]) -> None:
    db = opened(Path(settings["state"]))
    db.execute("CREATE TABLE notes (text)")
    db.close()
    assert "not a state file of Ebbing" in complaint("serve", **settings)


def test_there_is_no_room_for_the_state_file(settings: dict[str, Any]) -> None:
    said = complaint("serve", **settings, max_state_bytes=16_384)
    assert "no room left" in said
    assert "max_state_bytes" in said


def test_triton_is_not_there(settings: dict[str, Any]) -> None:
    said = complaint("serve", **{**settings, "triton": NOBODY}, triton_start_timeout_s=1)
    assert f"Triton does not answer at {NOBODY}" in said
    assert "ebbing triton" in said


def test_the_release_is_not_there(settings: dict[str, Any], release: TinyRelease) -> None:
    said = complaint("serve", "--release", 99, **settings)
    assert said.startswith(f"release 99 is not in {release.repository}")
    assert f"(published: {release.number})" in said


def test_there_is_no_release_at_all(settings: dict[str, Any], tmp_path: Path) -> None:
    said = complaint("serve", **{**settings, "repository": tmp_path})
    assert "published: none" in said
    assert "ebbing publish" in said


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ('deny = "price >"', "rule 'no luxury': line 1, column "),
        ('deny = "open(item_id)"', "rule 'no luxury': line 1, column 1: Call cannot be used"),
        ('boost = nan\nwhen = "price > 1"', "rule 'no luxury': boost is nan"),
        ("deny = ", "(at line 4, column "),
    ],
    ids=["no expression", "a call", "no number", "no TOML"],
)
def test_a_business_rule_that_is_none(
    settings: dict[str, Any], tmp_path: Path, rule: str, says: str
) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(f'# What is not for sale.\n[[rule]]\nname = "no luxury"\n{rule}\n')
    said = complaint("serve", **settings, rules=path)
    assert said.startswith(f"{path}: ")
    assert says in said


def flip(path: Path) -> None:
    """Change one byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def truncate(path: Path) -> None:
    """Cut a file in half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("model", ["retrieval", "ranking"])
@pytest.mark.parametrize("damage", [flip, truncate])
def test_a_model_file_changed_after_publish(
    settings: dict[str, Any], release: TinyRelease, repository_copy: Path, model: str, damage: Any
) -> None:
    path = repository_copy / model / str(release.number) / "model.pt"
    damage(path)
    said = complaint("serve", **{**settings, "repository": repository_copy})
    assert said.startswith(f"{path} differs from what release {release.number} declares")
    assert "publish the release again" in said


def test_a_signed_release_is_served_to_whoever_trusts_its_key(
    release: TinyRelease, start_gateway: StartGateway
) -> None:
    gateway = start_gateway(release_key_file=release.public_key)
    with gateway.client() as client:
        assert client.recommend("nobody").degraded is False
    assert "nobody vouches" not in gateway.log.read_text()


def test_releases_that_nobody_trusted_has_signed(
    settings: dict[str, Any], release: TinyRelease, repository_copy: Path, tmp_path: Path
) -> None:
    new_signing_key(tmp_path / "other.key", bytes(32))
    public = tmp_path / "other.key.pub"
    given = {**settings, "repository": repository_copy}
    said = complaint("serve", **given, release_key_file=public)
    folder = Manifest.folder(repository_copy, release.number)
    assert said.startswith(f"{folder / 'manifest.sig'} is by the key ")
    assert f"{public} has " in said
    (folder / "manifest.sig").unlink()
    said = complaint("serve", **given, release_key_file=release.public_key)
    assert said.startswith(f"{folder / 'manifest.json'} is not signed")
    said = complaint("serve", **given, release_key_file=tmp_path / "gone.pub")
    assert said.startswith(f"there is no {tmp_path / 'gone.pub'}: name the .pub file")


def test_a_model_file_that_is_gone(
    settings: dict[str, Any], release: TinyRelease, repository_copy: Path
) -> None:
    path = repository_copy / "ranking" / str(release.number) / "model.pt"
    path.unlink()
    said = complaint("serve", **{**settings, "repository": repository_copy})
    assert said.startswith(f"{path} of release {release.number} is missing")


def disagree(repository: Path) -> Path:
    """A `config.pbtxt` that states another tensor than the model has."""
    path = repository / "ranking" / "config.pbtxt"
    path.write_text(path.read_text().replace("RELEVANCE__0", "RATING__0"))
    return path


def test_a_config_that_disagrees_with_the_model(
    settings: dict[str, Any], repository_copy: Path
) -> None:
    path = disagree(repository_copy)
    said = complaint("serve", **{**settings, "repository": repository_copy})
    assert said.startswith(f"{path}: output 0 is RATING__0 ")
    assert "should be RELEVANCE__0 " in said


def test_publishing_against_a_config_that_disagrees(
    release: TinyRelease, repository_copy: Path
) -> None:
    path = disagree(repository_copy)
    before = sorted(repository_copy.rglob("*"))
    said = complaint("publish", release.run, "--repository", repository_copy)
    assert str(path) in said
    assert "RATING__0" in said
    # The lock of the publish may stay.
    assert [p for p in sorted(repository_copy.rglob("*")) if p.name != ".lock"] == [
        p for p in before if p.name != ".lock"
    ]


@pytest.mark.parametrize("damage", [flip, truncate])
def test_publishing_a_damaged_model(
    release: TinyRelease, repository_copy: Path, tmp_path: Path, damage: Any
) -> None:
    run = Path(shutil.copytree(release.run, tmp_path / "run"))
    damage(run / "retrieval" / "model.pt")
    said = complaint("publish", run, "--repository", repository_copy)
    assert said.startswith(f"{run / 'retrieval' / 'model.pt'} differs from what training wrote")


@pytest.mark.parametrize(
    ("name", "value"),
    [("alpha", "warm"), ("port", "70000"), ("event_weights", '{"stare": 1}'), ("drain_s", "-1")],
)
def test_a_setting_that_makes_no_sense(settings: dict[str, Any], name: str, value: str) -> None:
    said = complaint("serve", **{**settings, name: value})
    assert said.startswith(f"setting {name}: ")


def test_tritons_port_is_taken(release: TinyRelease, tmp_path: Path, taken: int) -> None:
    (free,) = free_ports(1)
    said = complaint(
        "triton",
        *("--repository", release.repository),
        *("--work", tmp_path / "work"),
        *("--grpc-port", taken),
        *("--metrics-port", free),
    )
    assert f"port {taken} for Triton's grpc endpoint cannot be used" in said
    assert said.endswith("--grpc-port")


def test_tritons_repository_is_missing(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    said = complaint("triton", "--repository", missing, "--work", tmp_path / "work")
    assert said == f"there is no model repository at {missing}"


def test_a_disk_that_fills_up_loses_nothing(start_gateway: StartGateway) -> None:
    """While it runs: what does not fit is refused whole, what was acknowledged stays."""
    gateway: GatewayProcess = start_gateway(max_state_bytes=256 * 1024)
    with gateway.client() as client:
        written = 0
        with pytest.raises(EbbingError) as caught:
            for n in range(1_000):
                client.write_event(
                    "writer", "search", LOG.end - n, query="x" * 1000, event_id=f"filling-{n}"
                )
                written += 1
        assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert caught.value.reason == "STORAGE_FULL"
        assert caught.value.retry_delay_s
        assert written > 10
        assert client.interest_profile("writer", LOG.end).event_count == written
        replay = [
            user_event("writer", "search", LOG.end - n, query="x" * 1000, event_id=f"filling-{n}")
            for n in range(written)
        ]
        assert client.write_events(replay).duplicate_count == written
        assert client.recommend("writer", LOG.end).degraded is False
    assert gateway.terminate() == 0
