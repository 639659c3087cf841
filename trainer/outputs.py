"""Files a command leaves behind: all of them whole, or none."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path


class OutputError(Exception):
    """A file that cannot be written; the message names it and the remedy."""


def check_writable(path: Path) -> None:
    """Find out before the work what would fail after it; nothing is written.

    Raises:
        OutputError: `path` is a folder, or its folder is missing or closed to writing.
    """
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; name a file")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: no such folder as {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path}: {path.parent} cannot be written to; choose another place")


def check_folder(path: Path) -> None:
    """As `check_writable`, of a folder that is made where it is missing.

    Raises:
        OutputError: `path` is a file, or lies where nothing can be written.
    """
    known = path
    while not known.exists():
        known = known.parent
    if not known.is_dir():
        raise OutputError(f"{path}: {known} is a file; name a folder")
    if not os.access(known, os.W_OK):
        raise OutputError(f"{path}: {known} cannot be written to; choose another place")


def write_all(files: Mapping[Path, bytes]) -> None:
    """Write files, each in place of what was there only once all of them are written.

    Raises:
        OutputError: one of them cannot be; those that were there before are untouched.
    """
    staged = {path: path.with_name(f".{path.name}.{os.getpid()}.part") for path in files}
    try:
        for path, content in files.items():
            staged[path].write_bytes(content)
        for path, part in staged.items():
            part.replace(path)
    except OSError as error:
        raise OutputError(f"{error.filename}: cannot be written ({error.strerror})") from error
    finally:
        for part in staged.values():
            with suppress(OSError):
                part.unlink(missing_ok=True)
