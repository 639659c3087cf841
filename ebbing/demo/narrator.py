"""Telling a person what happens, with the time elapsed, and never falling silent."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from ebbing.heartbeat import every

__all__ = ["Narrator", "Task"]

LINE_EVERY_S = 3.0
WIDTH_WITHOUT_TERMINAL = 120


class Task:
    """Work under way."""

    def __init__(self, total: int | None, unit: str) -> None:
        self.total = total
        self.unit = unit
        self.done = 0
        self._started = time.monotonic()

    def advance(self, count: int) -> None:
        """So much more is done."""
        self.done += count

    @property
    def seconds(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._started

    @property
    def rate(self) -> float:
        """Units a second."""
        return self.done / max(self.seconds, 1e-9)

    def figures(self) -> str:
        """How it stands, in words."""
        if self.total is None:
            return f"{self.seconds:.0f} s"
        return f"{self.done:,} of {self.total:,} {self.unit}, {self.rate:,.0f}/s"


class Narrator:
    """Speaks to the person at the terminal, or to the file that stands in for one."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(
            width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL, highlight=False
        )
        self._started = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the demonstration began."""
        return time.monotonic() - self._started

    @property
    def width(self) -> int:
        """Columns there are to write in."""
        return self._console.width

    def step(self, text: str) -> None:
        """Announce a step."""
        self._console.print(f"\n[dim]{self.elapsed:6.1f} s[/dim]  [bold cyan]{escape(text)}[/]")

    def say(self, text: str = "") -> None:
        """A line under the step; rich markup."""
        self._console.print(f"          {text}" if text else "", soft_wrap=True)

    def show(self, what: RenderableType) -> None:
        """A table or the like."""
        self._console.print(what)

    @contextmanager
    def task(self, text: str, total: int | None = None, unit: str = "") -> Iterator[Task]:
        """Show work from start to end: a bar on a terminal, a line every few seconds elsewhere."""
        work = Task(total, unit)
        if not self._console.is_terminal:
            with every(LINE_EVERY_S, lambda: self.say(escape(f"{text}: {work.figures()}"))):
                yield work
            return
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[figures]}"),
        )
        with Progress(*columns, console=self._console, transient=True) as bar:
            shown = bar.add_task(escape(text), total=total, figures="")

            def update() -> None:
                bar.update(shown, completed=work.done, figures=work.figures())

            with every(0.2, update):
                yield work
