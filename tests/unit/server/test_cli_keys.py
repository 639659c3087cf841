"""``ebbing keys``: key files, and data keys moved to the newest master key."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from ebbing.cli import CommandError
from server.cli_keys import keys
from server.settings import Settings
from server.state.keyring import SqliteKeyring
from server.state.keys import read_keys
from server.state.vaults import vault_of

Run = Callable[..., str]


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"EBBING_{name.upper()}", raising=False)


@pytest.fixture
def run() -> Run:
    app = typer.Typer()
    app.command()(keys)

    def run_it(*arguments: object) -> str:
        done = CliRunner().invoke(app, [str(one) for one in arguments])
        if isinstance(done.exception, CommandError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.output

    return run_it


def test_new_makes_a_file_and_never_replaces_one(run: Run, tmp_path: Path) -> None:
    path, other = tmp_path / "master.key", tmp_path / "names.key"
    assert "keep a copy" in run("new", "--out", path)
    run("new", "--out", other)
    (key,) = read_keys(path)
    assert key.version == 1
    assert key.secret != read_keys(other)[0].secret
    with pytest.raises(CommandError, match="stays as it is"):
        run("new", "--out", path)
    assert read_keys(path) == (key,)


def test_add_puts_a_newer_key_on_top(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    run("new", "--out", path)
    (old,) = read_keys(path)
    assert "has v2 now" in run("add", "--out", path)
    new, kept = read_keys(path)
    assert (new.version, kept) == (2, old)
    assert new.secret != old.secret


@pytest.mark.parametrize("action", ["new", "add"])
def test_the_file_has_to_be_named(run: Run, action: str) -> None:
    with pytest.raises(CommandError, match=f"ebbing keys {action} --out FILE"):
        run(action)


def test_rewrap_frees_the_older_master_key(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, state = tmp_path / "master.key", tmp_path / "state.db"
    run("new", "--out", path)
    monkeypatch.setenv("EBBING_MASTER_KEY_FILE", str(path))
    state.touch()
    settings = Settings(state=state)  # type: ignore[call-arg]
    with closing(vault_of(settings, os.urandom, time.monotonic)) as vault:
        vault.prepare(f"user-{i}" for i in range(1234))
        run("add", "--out", path)
        assert "1,234 data keys rewrapped" in run("rewrap", "--state", state)
        assert "0 data keys rewrapped" in run("rewrap", "--state", state)
    with closing(SqliteKeyring(tmp_path / "state.db.keys", os.urandom)) as keyring:
        assert [key.master for key in keyring.masters()] == [2]


def test_rewrap_says_what_is_missing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CommandError, match="name the state with --state"):
        run("rewrap", "--state", tmp_path / "none.db")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "state.db").touch()
    with pytest.raises(CommandError, match="set master_key_file"):
        run("rewrap", "--state", tmp_path / "state.db")
    run("new", "--out", tmp_path / "master.key")
    monkeypatch.setenv("EBBING_MASTER_KEY_FILE", str(tmp_path / "master.key"))
    (tmp_path / "state.db.keys").write_bytes(b"nonsense" * 100)
    with pytest.raises(CommandError, match="restore it from its backup"):
        run("rewrap", "--state", tmp_path / "state.db")
    monkeypatch.setenv("EBBING_PORT", "ssh")
    with pytest.raises(CommandError, match="setting port"):
        run("rewrap", "--state", tmp_path / "state.db")
