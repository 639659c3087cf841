"""A small filesystem of one's own, without being root."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import pytest

MOUNT = 'mount -t tmpfs -o "size=$1" tmpfs "$2" && echo mounted && exec cat'
"""Holds the mount until its standard input ends."""
UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")
ENTER = ("nsenter", "--user", "--preserve-credentials", "--mount")
START = 'cd "$1" && shift && exec "$@"'


class SmallDisk:
    """A tmpfs in a mount namespace of its own, as a context manager; what is to see it is started
    there."""

    def __init__(self, folder: Path, size: int) -> None:
        """Set up; ``folder`` is an empty one to mount on, ``size`` is in bytes."""
        self.folder = folder
        self._size = size

    def __enter__(self) -> Self:
        """Mount it; the test is skipped where the system does not let users do so."""
        try:
            self._holder = subprocess.Popen(
                [*UNSHARE, "sh", "-c", MOUNT, "sh", str(self._size), str(self.folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        except FileNotFoundError:
            pytest.skip("a small filesystem needs the program unshare")
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "mounted\n":
            _, why = self._holder.communicate()
            pytest.skip(f"this system lets users mount nothing: {why.strip()}")
        # Files only: SQLite resolves this link itself, to the folder below the mount.
        self._seen_from_here = Path(f"/proc/{self._holder.pid}/root{self.folder}")
        self._ballast = self._seen_from_here / "ballast"
        return self

    def __exit__(self, *error: object) -> None:
        self._holder.communicate()

    def command(self, command: Sequence[str]) -> list[str]:
        """What starts a command that sees the disk."""
        enter = [*ENTER, "--target", str(self._holder.pid), "sh", "-c", START, "sh"]
        return [*enter, str(Path.cwd()), *command]

    def copy_to(self, folder: Path) -> Path:
        """Copy its files, but for what fills it, to a new folder where everybody sees them."""
        leave = shutil.ignore_patterns(self._ballast.name)
        return Path(shutil.copytree(self._seen_from_here, folder, ignore=leave))

    def fill(self) -> None:
        """Leave no room at all."""
        with self._ballast.open("ab", buffering=0) as ballast:
            for size in (2**16, 1):
                try:
                    while ballast.write(b"\0" * size):
                        pass
                except OSError:
                    continue

    def give_room(self) -> None:
        """Give back what ``fill`` took."""
        self._ballast.unlink()
