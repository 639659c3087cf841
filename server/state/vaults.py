"""The vault that settings ask for."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from server.settings import Settings
from server.state.data_keys import DataKeys, MasterKeys
from server.state.keyring import Keyring, SqliteKeyring
from server.state.keys import Key, KeyFileError, read_keys
from server.state.pseudonyms import PseudonymousVault
from server.state.sealed_vault import SealedVault
from server.state.vault import PlainVault, Vault

__all__ = ["data_keys_of", "vault_of"]


def vault_of(
    settings: Settings,
    random: Callable[[int], bytes],
    monotonic: Callable[[], float],
    pseudonym_version: int | None = None,
) -> Vault:
    """The vault of a state: plain, pseudonymous, sealed, or both.

    Args:
        settings: name the key files and the keyring.
        random: so many random bytes, unpredictable ones.
        monotonic: seconds since any moment; never goes back.
        pseudonym_version: which of the pseudonym keys names users; the first one without it.

    Raises:
        KeyFileError: a key file cannot be used, or settings contradict each other.
        StoreUnavailable, StorageFull: the keyring cannot be used, or not with these master keys.
    """
    naming = _pseudonym_key(settings, pseudonym_version)
    vault: Vault = PlainVault()
    if settings.master_key_file is not None:
        vault = SealedVault(data_keys_of(settings, random, monotonic), random)
    elif settings.keyring:
        raise KeyFileError(
            "a keyring is set, and no master key file, without which nothing is encrypted: set"
            " master_key_file, or neither"
        )
    return vault if naming is None else PseudonymousVault(vault, naming)


def data_keys_of(
    settings: Settings, random: Callable[[int], bytes], monotonic: Callable[[], float]
) -> DataKeys:
    """The data keys of a state whose values are encrypted.

    Raises:
        KeyFileError: the master key file cannot be used, or is not set.
        StoreUnavailable, StorageFull: the keyring cannot be used, or not with these master keys.
    """
    if settings.master_key_file is None:
        raise KeyFileError("no master key file is set: set master_key_file")
    masters = MasterKeys(read_keys(settings.master_key_file), random)
    keyring: Keyring = SqliteKeyring(_location(settings), random)
    try:
        return DataKeys(keyring, masters, random, monotonic)
    except BaseException:
        keyring.close()
        raise


def _location(settings: Settings) -> Path:
    name = settings.keyring or f"{settings.state}.keys"
    if re.match(r"[\w+]+:/", name):
        raise KeyFileError("the keyring is an SQLite file: name one with the setting keyring")
    return Path(name)


def _pseudonym_key(settings: Settings, version: int | None) -> Key | None:
    if settings.pseudonym_key_file is None:
        return None
    keys = read_keys(settings.pseudonym_key_file)
    for key in keys:
        if version in {None, key.version}:
            return key
    raise KeyFileError(f"{settings.pseudonym_key_file} holds no key v{version}: add its line")
