"""``ebbing explain``: what the retention of a user's interests is made of."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

_UNITS = {"h": 1 / 24, "d": 1.0, "w": 7.0, "y": 365.25}
"""Days in each unit of a span."""


def _moment(text: str) -> datetime:
    """2025-06-01, 2025-06-01T12:30:00+02:00, or seconds since the epoch."""
    try:
        if re.fullmatch(r"\d+(\.\d+)?", text) and not re.fullmatch(r"\d{8}", text):
            return datetime.fromtimestamp(float(text), UTC)
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError):
        raise typer.BadParameter(
            f"{text!r} is no moment: write 2025-06-01, 2025-06-01T12:30, or seconds since 1970"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _span(text: str) -> timedelta:
    """12h, 30d, 2w, 1y."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([hdwy])", text)
    if not found:
        raise typer.BadParameter(f"{text!r} is no span: write a number and h, d, w or y, as in 30d")
    return timedelta(days=float(found[1]) * _UNITS[found[2]])


def explain(
    user: Annotated[str, typer.Argument(help="Id of the user.", show_default=False)],
    interest: Annotated[
        str | None,
        typer.Option(help="Path of the one interest to explain.", show_default="the strongest"),
    ] = None,
    address: Annotated[str, typer.Option(help="gRPC address of the gateway.")] = "127.0.0.1:50051",
    at: Annotated[
        datetime | None,
        typer.Option(
            parser=_moment,
            metavar="TIME",
            help="As of when: a date, a time (UTC if it has no zone), or seconds since 1970.",
            show_default="now",
        ),
    ] = None,
    horizon: Annotated[
        timedelta | None,
        typer.Option(
            parser=_span,
            metavar="SPAN",
            help="Horizon of retention: 12h, 30d, 2w, 1y.",
            show_default="that of the release",
        ),
    ] = None,
    most: Annotated[
        int, typer.Option(min=1, max=64, help="Interests to explain at most, strongest first.")
    ] = 8,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw the past and predicted course of each into this PNG too."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Explain a user's interests: state, retention, the reason, and what retention is made of.

    The parts of an interest's retention are log-odds that add up to its own: green ones speak for a
    return within the horizon, red ones against it. Drawing needs matplotlib, which comes with the
    extra ebbing\\[trainer].

    [bold]Examples[/bold]

        ebbing explain ada

        ebbing explain ada --interest sports/football --horizon 7d

        ebbing explain ada --at 2025-06-01 --plot ada.png

        ebbing explain ada --address gateway:50051 --json
    """
    from ebbing.cli import CommandError
    from ebbing.client import Client, EbbingError
    from ebbing.explain.findings import as_text, ask, ask_course, told

    if plot:
        try:
            from ebbing.explain.plot import draw
        except ModuleNotFoundError as error:
            raise CommandError(
                f"drawing needs {error.name}: pip install 'ebbing[trainer]'"
            ) from error
    try:
        with Client(address) as client:
            findings = ask(client, user, interest, at, horizon, most)
            course = ask_course(client, findings, horizon) if plot else []
    except EbbingError as error:
        raise CommandError(told(error, address, user)) from error
    if as_json:
        print(as_text(findings))
    else:
        from ebbing.explain.tables import show

        show(findings)
    if plot:
        try:
            draw(findings, course, plot)
        except (OSError, ValueError) as error:
            raise CommandError(f"cannot draw into {plot}: {error}") from error
        if not as_json:
            print(f"drawn: {plot}")
