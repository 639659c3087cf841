"""Key files: a line ``v<number> <base64 of 32 bytes>`` for each key; the first one is in use."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["KEY_BYTES", "Key", "KeyFileError", "add_key", "new_key_file", "read_keys"]

KEY_BYTES = 32
NEWEST_VERSION = 2**31 - 1
_LINE = re.compile(r"v([1-9]\d{0,9})[ \t]+(\S+)")
_TOO_OPEN = stat.S_IRWXO | stat.S_IWGRP
"""A group may read: that is how orchestrators hand secrets to processes that are not root."""


class KeyFileError(Exception):
    """A key file cannot be used; the message says why and what to do, and nothing of its keys."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key and its version, by which what was made with it is told apart."""

    version: int
    secret: bytes = field(repr=False)


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys of a file in its order; at least one.

    Raises:
        KeyFileError: it cannot be read, others could, or a line is no key.
    """
    try:
        with path.open(encoding="ascii") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & _TOO_OPEN:
                raise KeyFileError(
                    f"{path} holds keys and others may read or change it: chmod 600 {path}"
                )
            lines = file.read().splitlines()
    except FileNotFoundError as error:
        raise KeyFileError(
            f"there is no {path}: make it with 'ebbing keys new --out {path}', or restore it"
        ) from error
    except UnicodeDecodeError as error:
        raise KeyFileError(f"{path} is no key file: name another") from error
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read ({error.strerror}): check it") from error
    keys = tuple(
        _parsed(path, number, line)
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.startswith("#")
    )
    if not keys:
        raise KeyFileError(f"{path} holds no key: make one with 'ebbing keys new'")
    if len({key.version for key in keys}) < len(keys):
        raise KeyFileError(f"{path}: two keys have one version: give each its own")
    return keys


def new_key_file(path: Path, secret: bytes) -> None:
    """Write the first key to a new file that its owner alone may read.

    Raises:
        KeyFileError: there is such a file, or it cannot be written.
    """
    try:
        _write(path, [Key(1, secret)])
    except FileExistsError as error:
        raise KeyFileError(
            f"{path} is there already and stays as it is: name another file, or give it a newer key"
            f" with 'ebbing keys add --out {path}'"
        ) from error
    except OSError as error:
        raise _not_written(path, error) from error


def add_key(path: Path, secret: bytes) -> Key:
    """Put a newer key on top of a file, which holds either the old keys or all at any moment.

    Raises:
        KeyFileError: the file cannot be read or written.
    """
    keys = read_keys(path)
    key = Key(max(key.version for key in keys) + 1, secret)
    if key.version > NEWEST_VERSION:
        raise KeyFileError(f"{path}: there is no version after v{NEWEST_VERSION}")
    beside = path.with_name(path.name + ".new")
    try:
        _write(beside, [key, *keys])
        beside.replace(path)
    except FileExistsError as error:
        raise KeyFileError(
            f"{beside} is there: somebody is adding a key, or was interrupted; then remove it"
        ) from error
    except OSError as error:
        raise _not_written(path, error) from error
    return key


def _parsed(path: Path, number: int, line: str) -> Key:
    match = _LINE.fullmatch(line.strip())
    with contextlib.suppress(binascii.Error):
        if match:
            key = Key(int(match[1]), base64.b64decode(match[2], validate=True))
            if len(key.secret) == KEY_BYTES and key.version <= NEWEST_VERSION:
                return key
    raise KeyFileError(
        f"{path}, line {number}: is no key; lines are 'v1 ' and the base64 of 32 bytes"
    )


def _write(path: Path, keys: Iterable[Key]) -> None:
    text = "".join(f"v{key.version} {base64.b64encode(key.secret).decode()}\n" for key in keys)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _not_written(path: Path, error: OSError) -> KeyFileError:
    return KeyFileError(f"{path} cannot be written ({error.strerror}): check its folder")
