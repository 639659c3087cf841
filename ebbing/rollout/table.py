"""Releases as a person reads them."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from ebbing.terminal import date, plain
from ebbing.v1.release_service_pb2 import Release, ReleaseRole

__all__ = ["show", "table"]

_COLOURS = {"live": "green", "canary": "yellow", "shadow": "blue", "retired": "dim"}
WIDTH_WITHOUT_TERMINAL = 110


def table(releases: Iterable[Release]) -> Table:
    """A row a release: number, role, traffic, when it was published, why it stands there."""
    made = Table("release", "role", "traffic", "published", "why")
    for one in releases:
        role = ReleaseRole.Name(one.role).removeprefix("RELEASE_ROLE_").lower()
        colour = _COLOURS.get(role, "default")
        published = one.publish_time.ToMicroseconds() / 1e6
        made.add_row(
            str(one.release),
            f"[{colour}]{role}[/]",
            f"{one.traffic:.4g}" if one.traffic else "",
            date(published) if published else "",
            plain(one.reason),
        )
    return made


def show(releases: Iterable[Release]) -> None:
    """Print them."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH_WITHOUT_TERMINAL
    console.print(table(releases))
