"""Named moments of the write path at which a test can end the gateway, as a power cut would.

For tests only: nothing is armed unless the setting ``failpoint`` says so, and then the process
kills itself when it gets there. Where nothing is armed, a failpoint costs one comparison.
"""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass
from typing import Self

__all__ = ["NAMES", "Failpoint", "arm", "reach"]

NAMES = (
    "ingest.taken",
    "append.begun",
    "append.logged",
    "append.committed",
    "ingest.acknowledged",
    "settle.begun",
    "settle.committed",
)
"""In the order in which they are reached. A group of events was taken in; the step that writes it
has begun, has logged its events, is durable; its callers are about to be answered. The step that
writes what became of alarms has begun; is durable."""
ACTIONS = ("kill",)


@dataclass(frozen=True, slots=True)
class Failpoint:
    """What happens where.

    Raises:
        ValueError: there is no such failpoint or action, or ``at`` is below 1.
    """

    name: str
    """One of ``NAMES``."""
    action: str = "kill"
    """One of ``ACTIONS``: ``kill`` is SIGKILL to the own process."""
    at: int = 1
    """At which reach from now on, counted from 1."""

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise ValueError(f"there is no failpoint {self.name!r}, but {', '.join(NAMES)}")
        if self.action not in ACTIONS:
            raise ValueError(f"there is no action {self.action!r}, but {', '.join(ACTIONS)}")
        if self.at < 1:
            raise ValueError("reaches are counted from 1")

    @classmethod
    def parse(cls, text: str) -> Self:
        """One written as ``NAME:ACTION:AT``, such as ``append.logged:kill:3``.

        Raises:
            ValueError: it is written otherwise, or there is none such.
        """
        name, action, at = [*text.split(":"), "", ""][:3]
        if text != f"{name}:{action}:{at}" or not at.isdecimal():
            raise ValueError("write a failpoint as NAME:ACTION:AT, such as append.logged:kill:3")
        return cls(name, action, int(at))


class _Armed:
    """The failpoint that is armed, if one is."""

    def __init__(self) -> None:
        self.failpoint: Failpoint | None = None
        self._left = 0
        self._lock = threading.Lock()  # the thread that answers and the one that writes get here

    def arm(self, failpoint: Failpoint | None) -> None:
        with self._lock:
            self.failpoint = failpoint
            self._left = failpoint.at if failpoint else 0

    def reach(self, name: str) -> None:
        with self._lock:
            if self.failpoint is None or self.failpoint.name != name:
                return
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)


_armed = _Armed()


def arm(failpoint: Failpoint | None) -> None:
    """Arm one failpoint, in place of the one that was; None: none."""
    _armed.arm(failpoint)


def reach(name: str) -> None:
    """Say that a failpoint, one of ``NAMES``, is reached."""
    if _armed.failpoint is not None:
        _armed.reach(name)
