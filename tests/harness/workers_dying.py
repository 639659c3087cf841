"""Processes of a group of which one ends early, for tests."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from trainer.distributed import joined


def die_at_once(last: str) -> None:
    """The last process is killed; the others would wait for it for hours."""
    with joined(os.environ, "cpu") as group:
        if group.rank == group.count - 1:
            (Path(last) / "joined").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)


def fail_at_once(reason: str) -> None:
    """The first process fails, which its peers learn of only by being ended."""
    with joined(os.environ, "cpu") as group:
        if group.rank == 0:
            raise ValueError(reason)
        time.sleep(600)
