"""The vault follows from settings: each key file adds its own protection."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from server.errors import StoreUnavailable
from server.settings import Settings
from server.state.keys import KeyFileError, add_key, new_key_file
from server.state.vault import Vault
from server.state.vaults import data_keys_of, vault_of

Make = Callable[..., Vault]


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"EBBING_{name.upper()}", raising=False)


@pytest.fixture
def names(tmp_path: Path) -> Path:
    new_key_file(tmp_path / "names.key", os.urandom(32))
    return tmp_path / "names.key"


@pytest.fixture
def master(tmp_path: Path) -> Path:
    new_key_file(tmp_path / "master.key", os.urandom(32))
    return tmp_path / "master.key"


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def make_it(version: int | None = None, **given: object) -> Vault:
        settings = Settings(**{"state": tmp_path / "state.db", **given})  # type: ignore[arg-type]
        return vault_of(settings, os.urandom, time.monotonic, version)

    return make_it


def seal(vault: Vault) -> tuple[str, bytes]:
    owner = vault.owner_of("ann")
    vault.prepare([owner])
    return owner, vault.seal(owner, "state", b"what ann likes")


def test_without_key_files_it_is_plain(make: Make, tmp_path: Path) -> None:
    with closing(make()) as vault:
        owner, value = seal(vault)
    assert vault.fingerprint == "plain"
    assert owner == "ann"
    assert b"what ann likes" in value
    assert list(tmp_path.iterdir()) == []


def test_pseudonyms_alone(make: Make, names: Path, tmp_path: Path) -> None:
    with closing(make(pseudonym_key_file=names)) as vault:
        owner, value = seal(vault)
    assert owner.startswith("v1.")
    assert b"what ann likes" in value
    assert not (tmp_path / "state.db.keys").exists()


def test_encryption_alone(make: Make, master: Path, tmp_path: Path) -> None:
    with closing(make(master_key_file=master)) as vault:
        owner, value = seal(vault)
        assert vault.open(owner, "state", value) == b"what ann likes"
    assert owner == "ann"
    assert b"what ann likes" not in value
    assert (tmp_path / "state.db.keys").exists()


def test_both(make: Make, names: Path, master: Path) -> None:
    with closing(make(pseudonym_key_file=names, master_key_file=master)) as vault:
        owner, value = seal(vault)
    assert owner.startswith("v1.")
    assert b"what ann likes" not in value
    with closing(make(pseudonym_key_file=names, master_key_file=master)) as again:
        assert again.open(owner, "state", value) == b"what ann likes"
        assert again.fingerprint == vault.fingerprint


def test_fingerprints_follow_what_a_state_is_written_with(
    make: Make, names: Path, master: Path, tmp_path: Path
) -> None:
    given = [
        {},
        {"pseudonym_key_file": names},
        {"master_key_file": master},
        {"pseudonym_key_file": names, "master_key_file": master},
        {"master_key_file": master, "keyring": str(tmp_path / "other.keys")},
    ]
    fingerprints = []
    for one in given:
        with closing(make(**one)) as vault:
            fingerprints.append(vault.fingerprint)
    assert len(set(fingerprints)) == len(given)
    # A newer master key reads what the older one wrote; a newer pseudonym key names others.
    add_key(master, os.urandom(32))
    with closing(make(master_key_file=master)) as vault:
        assert vault.fingerprint == fingerprints[2]
    add_key(names, os.urandom(32))
    with closing(make(pseudonym_key_file=names)) as vault:
        assert vault.fingerprint not in fingerprints
    with closing(make(1, pseudonym_key_file=names)) as vault:
        assert vault.fingerprint == fingerprints[1]


def test_a_pseudonym_key_that_is_not_there(make: Make, names: Path) -> None:
    with pytest.raises(KeyFileError, match="holds no key v7"):
        make(7, pseudonym_key_file=names)


def test_the_keyring_lies_where_it_is_asked_for(make: Make, master: Path, tmp_path: Path) -> None:
    make(master_key_file=master, keyring=str(tmp_path / "apart.keys")).close()
    assert (tmp_path / "apart.keys").exists()
    assert not (tmp_path / "state.db.keys").exists()


@pytest.mark.parametrize(
    "given", [{"keyring": "redis://host/0"}, {"state": "rediss+cluster://host:1,host:2"}]
)
def test_a_keyring_that_is_no_file(
    make: Make, master: Path, given: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyFileError, match="is an SQLite file"):
        make(master_key_file=master, **given)
    assert list(tmp_path.iterdir()) == [master]


def test_a_keyring_that_would_protect_nothing(make: Make, tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="nothing is encrypted"):
        make(keyring=str(tmp_path / "state.keys"))


def test_the_wrong_master_key_is_found_at_once(make: Make, master: Path, tmp_path: Path) -> None:
    with closing(make(master_key_file=master)) as vault:
        seal(vault)
    new_key_file(tmp_path / "wrong.key", os.urandom(32))
    with pytest.raises(StoreUnavailable, match="does not open with master key v1"):
        make(master_key_file=tmp_path / "wrong.key")


def test_a_bad_key_file_leaves_no_keyring_behind(
    make: Make, names: Path, master: Path, tmp_path: Path
) -> None:
    names.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        make(pseudonym_key_file=names, master_key_file=master)
    assert not (tmp_path / "state.db.keys").exists()


def test_data_keys_need_a_master_key(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="set master_key_file"):
        data_keys_of(Settings(state=tmp_path / "s.db"), os.urandom, time.monotonic)  # type: ignore[call-arg]
