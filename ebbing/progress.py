"""Progress a person can watch: bars on a terminal, plain lines every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from ebbing.heartbeat import every

LINE_EVERY_S = 3.0


class Stage:
    """One piece of work under way; `advance` tells how far it is."""

    def __init__(self, name: str, total: int, unit: str) -> None:
        self.name = name
        self.total = total  # an estimate may be replaced by a better one on the way
        self.unit = unit
        self.done = 0
        self.note = ""
        self.started = time.monotonic()

    def advance(self, amount: int, **figures: float) -> None:
        """`amount` more of `total` is done; `figures` such as loss=0.3 are shown beside it."""
        self.done += amount
        if figures:
            self.note = ", ".join(f"{name} {_figure(value)}" for name, value in figures.items())

    @property
    def rate(self) -> float:
        """Units a second so far."""
        return self.done / max(time.monotonic() - self.started, 1e-9)

    def line(self) -> str:
        """How it stands, in words."""
        left = (self.total - self.done) / self.rate if self.done else float("nan")
        eta = f", {left:.0f} s left" if 0 < left < float("inf") else ""
        took = time.monotonic() - self.started
        share = f"{100 * self.done / self.total:.0f} %" if self.done else f"{took:.0f} s so far"
        return f"{self.name}: {share} {self.figures()}".rstrip() + eta

    def figures(self) -> str:
        """Rate and figures, in words."""
        # A single piece of work has no speed, and one below a piece a second would read as 0.
        quick = self.total > 1 and self.rate >= 1
        speed = f"{self.rate:,.0f} {self.unit}/s" if self.done and quick else ""
        return ", ".join(part for part in (self.note, speed) if part)


def _figure(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


class Reporter:
    """Shows stages as they run; `say` prints a line between them.

    A quiet one shows nothing: of several processes at one work, one speaks.
    """

    def __init__(self, console: Console | None = None, quiet: bool = False) -> None:
        self.console = console or Console(file=sys.stderr, highlight=False)
        self.quiet = quiet

    def say(self, text: str) -> None:
        """Print one line."""
        if self.quiet:
            return
        if self.console.is_terminal:
            self.console.print(text)
        else:
            # Not wrapped to a width: whoever reads a log file has none.
            print(text, file=self.console.file, flush=True)

    @contextmanager
    def stage(self, name: str, total: int, unit: str = "steps") -> Iterator[Stage]:
        """Show a stage from start to end; the time it took is printed when it is done."""
        stage = Stage(name, total, unit)
        if self.quiet:
            yield stage
            return
        show = self._bar if self.console.is_terminal else self._lines
        with show(stage):
            yield stage
        took = time.monotonic() - stage.started
        figures = stage.figures()
        self.say(f"{name}: done in {took:.1f} s" + (f" ({figures})" if figures else ""))

    @contextmanager
    def _bar(self, stage: Stage) -> Iterator[None]:
        with Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        ) as bar:
            task = bar.add_task(stage.name, total=stage.total, figures="")

            def show() -> None:
                bar.update(task, completed=stage.done, total=stage.total, figures=stage.figures())

            show()
            with every(0.25, show):
                yield

    @contextmanager
    def _lines(self, stage: Stage) -> Iterator[None]:
        self.say(f"{stage.name} ...")
        with every(LINE_EVERY_S, lambda: self.say(stage.line())):
            yield
