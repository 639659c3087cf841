"""`ebbing` with a clock of the gateway's that a test shifts while it runs.

As a program: `python -m tests.harness.faults_clock FILE serve ...` is `ebbing serve ...` with the
seconds that FILE holds added to the time.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from server import app


class ShiftedClock:
    """A clock that is off by so many seconds as a file says."""

    def __init__(self, file: Path, shift_s: float = 0.0) -> None:
        """Set up, and write the file."""
        self._file = file
        self.step(shift_s)

    @property
    def command(self) -> list[str]:
        """What starts a gateway by this clock."""
        return [sys.executable, "-m", __name__, str(self._file), "serve"]

    def step(self, shift_s: float) -> None:
        """Be off by so much from now on."""
        written = self._file.with_suffix(".new")
        written.write_text(str(shift_s))
        written.rename(self._file)
        self._shift_s = shift_s

    def now(self) -> float:
        """The time it shows, seconds since the epoch."""
        return time.time() + self._shift_s


def main() -> None:
    """Run the command line by a clock."""
    from ebbing.cli import main as ebbing

    file, true_us = Path(sys.argv.pop(1)), app._now_us
    app._now_us = lambda: true_us() + round(float(file.read_text()) * 1e6)
    ebbing()


if __name__ == "__main__":
    main()
