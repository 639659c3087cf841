"""``ebbing events``: event logs brought into a state, and its event log taken out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ebbing.cli import CommandError
from server.cli_opening import State, existing, opened, settings_of

if TYPE_CHECKING:
    from server.events_export import Export
    from server.events_import import Group, Imported
    from server.events_taking import Taking
    from server.settings import Settings
    from server.state.store import Store

__all__ = ["events", "prepared"]

SHORTEST_PAUSE_S = 0.1
"""As long as SQLite's waiting writers sleep between two looks."""
REASONS = 10
"""Reasons of bad rows that are shown."""

events = typer.Typer(
    help="Bring event logs into a state, and take its event log out.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@events.command("export")
def export_events(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write Parquet files into.")],
    state: State = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Earliest event time: 2026-11-01, or with a time (UTC)."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Events from this time on are left out.")
    ] = None,
    part_events: Annotated[
        int, typer.Option(min=1, help="Events held in memory before they are written.")
    ] = 500_000,
) -> None:
    """Write the event log as Parquet, a folder a day, for 'ebbing train' and anything else.

    An export that was ended, however it was, goes on where it was when it is run again. Run again
    later, it adds what has come since. Gateways may write meanwhile. Settings of keys come from
    the environment, as those of the gateway do. What is written is neither encrypted nor under
    pseudonyms, and stays when a user is deleted from the state.

    [bold]Examples[/bold]

        ebbing events export --out export

        ebbing events export --state ebbing.db --since 2026-10-01 --until 2026-11-01 --out october

        ebbing train --data export --out run
    """
    from ebbing.exported import ExportError
    from ebbing.progress import Reporter
    from server.events_export import Window, export

    window = Window(_moment_us("--since", since), _moment_us("--until", until))
    settings = existing(settings_of(state=state))
    started: list[Export] = []
    try:
        with opened(settings) as (store, _), Reporter().stage("export", 1, "events") as stage:

            def tell(now: Export) -> None:
                if not started:
                    started.append(now)
                before = started[0].read
                stage.total = max(store.size().events, now.read + 1) - before
                stage.advance(now.read - before - stage.done)

            done = export(store, out, window, part_events, tell)
    except ExportError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{out}: cannot be written: {error.strerror or error}") from error
    typer.echo(f"{out}: {done.events:,} events, {done.events - started[0].events:,} of them new")


@events.command("import")
def import_events(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FILE_OR_DIR",
            help="CSV (.csv, .csv.gz) or Parquet; a folder with events.csv[.gz]; or an export.",
        ),
    ],
    state: State = None,
    event_type: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Kind of deed of rows that name none: purchase, view …"),
    ] = None,
    items: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="CSV of item_id,interests, written before the events. A folder's own items.csv"
            " without it.",
        ),
    ] = None,
    relations: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="CSV of user_id,other_user_id. A folder's own relations.csv without it.",
        ),
    ] = None,
    resolve: Annotated[
        bool,
        typer.Option(
            "--resolve",
            help="Take interests and weights of exported events from catalogue and settings, not"
            " from the export.",
        ),
    ] = False,
    gently: Annotated[
        bool,
        typer.Option(
            "--gently", help="Leave half of the time to gateways that write to the state too."
        ),
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad row.")] = False,
) -> None:
    """Load an event log in bulk.

    A CSV file has a header with user_id and event_time (UTC seconds), and may have item_id,
    event_type, event_id, value, query, interests (paths joined by |), session_id and
    attribution_token; Parquet has the same columns. Rows without an event_id get one of what they
    say and where they are, so a file can be loaded again, after an interruption or once it has
    grown: what is there is counted as a duplicate. Bad rows are left out, counted and told.

    [bold]Examples[/bold]

        ebbing events import data/beauty

        ebbing events import purchases.csv.gz --event-type purchase --items items.csv.gz

        ebbing events import export --state copy.db
    """
    from ebbing.exported import ExportError
    from server.events_rows import FileError, event_files

    try:
        paths = event_files(source)
        settings = settings_of(state=state)
        with opened(settings) as (store, _):
            _write_catalogue(store, settings, source, items, relations, strict)
            taking = _taking(settings, event_type, resolve)
            done = _write_events(store, settings, paths, taking, gently, strict)
    except (FileError, ExportError) as error:
        raise CommandError(str(error)) from error
    typer.echo(
        f"{done.accepted:,} events written, {done.duplicates:,} were there,"
        f" {done.left_out:,} rows left out"
    )
    if done.deleted_users:
        typer.echo(f"{done.deleted_users:,} events of users deleted since were refused")
    _tell_bad(done, paths)


def _write_catalogue(
    store: Store,
    settings: Settings,
    source: Path,
    items: Path | None,
    relations: Path | None,
    strict: bool,
) -> None:
    from server.catalogue_import import read_items, read_relations

    for name, given, read in (
        ("items", items, read_items),
        ("relations", relations, read_relations),
    ):
        path = given or _beside(source, name)
        if path is None:
            continue
        done = read(path, settings.limits, store, settings.limits.rows)
        typer.echo(f"{done.accepted:,} {name} written, {done.left_out:,} rows left out")
        _tell_bad(done, [path])
        if strict and done.left_out:
            raise CommandError(f"{path} has bad rows; the events were not begun")


def _write_events(
    store: Store,
    settings: Settings,
    paths: list[Path],
    taking: Taking,
    gently: bool,
    strict: bool,
) -> Imported:
    from ebbing.progress import Reporter
    from server.events_import import ahead, write

    with Reporter().stage("import", 1, "events") as stage:
        begun = time.monotonic()

        def tell(done: Imported, group: Group, written: bool) -> None:
            nonlocal begun
            if strict and done.left_out:
                raise CommandError(f"{_shown(done, paths)[0]}; nothing of it and after is written")
            if not written:
                begun = time.monotonic()
                return
            stage.total = group.total
            stage.advance(
                group.rows, new=done.accepted, known=done.duplicates, left_out=done.left_out
            )
            if gently:
                time.sleep(max(time.monotonic() - begun, SHORTEST_PAUSE_S))

        with closing(ahead(partial(prepared, settings, paths, taking))) as groups:
            return write(store, groups, tell)


def prepared(settings: Settings, paths: list[Path], taking: Taking) -> Iterator[Group]:
    """What the process that reads does."""
    from server.events_import import groups

    with opened(settings) as (store, _):
        yield from groups(paths, taking, store)


def _taking(settings: Settings, event_type: str | None, anew: bool) -> Taking:
    from ebbing.events import event_type_from_name
    from server.events_taking import Taking

    now_us = time.time_ns() // 1000
    try:
        kind = event_type_from_name(event_type) if event_type else None
    except ValueError as error:
        raise CommandError(f"--event-type: {error}") from error
    return Taking(
        weights=settings.event_weights,
        limits=settings.limits,
        earliest_us=settings.retention_periods.earliest_us(now_us),
        latest_us=now_us + round(settings.future_tolerance_s * 1e6),
        event_type=kind,
        anew=anew,
    )


def _beside(source: Path, name: str) -> Path | None:
    """A file of that name in the folder the events are read from."""
    if source.is_dir():
        for path in (source / f"{name}.csv.gz", source / f"{name}.csv"):
            if path.is_file():
                return path
    return None


def _tell_bad(done: Imported, paths: list[Path]) -> None:
    for why, count in done.bad.most_common(REASONS):
        typer.echo(f"  {count:,} × {why}")
    if len(done.bad) > REASONS:
        typer.echo(f"  and {len(done.bad) - REASONS:,} other reasons")
    if done.named:
        typer.echo("the first of them:")
    for line in _shown(done, paths):
        typer.echo(f"  {line}")


def _shown(done: Imported, paths: list[Path]) -> list[str]:
    return [f"{paths[bad.file]}: row {bad.line}: {bad.reason}" for bad in done.named]


def _moment_us(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise CommandError(
            f"{option}: {text!r} is no time: write 2026-11-01, or 2026-11-01T12:30:00"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1e6)
