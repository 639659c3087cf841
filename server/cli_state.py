"""``ebbing state``: backups of what the gateway keeps, checks, rebuilding, and moving elsewhere."""

from __future__ import annotations

import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from ebbing.cli import CommandError
from server.cli_opening import State, bounds_of, existing, opened, records_of, settings_of

if TYPE_CHECKING:
    from server.settings import Settings
    from server.state.sqlite_integrity import Checked

__all__ = ["state"]

state = typer.Typer(
    help="Back up, check, rebuild and move what the gateway keeps.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
KeyFile = Annotated[Path | None, typer.Option(metavar="FILE", show_default="that of the gateway")]


@state.command()
def backup(
    out: Annotated[Path, typer.Option(metavar="FILE", help="The backup; a state file itself.")],
    where: State = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
) -> None:
    """Copy the state as it is at this moment, while gateways go on, and check the copy.

    The backup is there whole or not at all. Data keys of users (the keyring) are never part of it,
    so that deleting a user makes backups unreadable too: back the keyring up apart, and keep no
    copy of it for longer than deletions may take. Settings of keys come from the environment, as
    those of the gateway do.

    [bold]Examples[/bold]

        ebbing state backup --out /backups/ebbing-monday.db

        ebbing state backup --state redis://store:6379 --out ebbing.db --force
    """
    from server.state.backup import BackupError, KeptKeys, back_up, back_up_server
    from server.state.migrate import MigrationError
    from server.state.records import Records
    from server.state.sqlite import SqliteStore

    settings = existing(settings_of(state=where))
    try:
        with opened(settings) as (store, records), _Bars() as bars:
            if isinstance(store, SqliteStore):
                found = back_up(store, out, records, force, bars)
            else:
                kept = Records(KeptKeys(records.vault), bounds_of(settings))
                found = back_up_server(store, out, kept, force, bars, _now_us(), time.sleep)
    except (BackupError, MigrationError) as error:
        raise CommandError(str(error)) from error
    typer.echo(f"{out}: {_counts(found.users, found.events)}, {_size(found.stored_bytes)}, whole")
    typer.echo(f"store {found.store_id}, {_moment(time.time())}; without the keys of users")


@state.command()
def restore(
    source: Annotated[Path, typer.Argument(metavar="BACKUP", help="As 'backup' wrote it.")],
    where: State = None,
) -> None:
    """Check a backup and put it in the place of a state file that no gateway uses.

    The file that was there stays beside it, with the time in its name. Users who were deleted since
    the backup are deleted from it again, as far as the replaced file, or their lost keys, tell.
    A Redis is restored by 'ebbing state migrate --from BACKUP'.

    [bold]Examples[/bold]

        ebbing state restore /backups/ebbing-monday.db --state ebbing.db
    """
    from server.errors import EbbingError
    from server.state.backup import BackupError
    from server.state.backup import restore as put_back

    settings = settings_of(state=where)
    path = _file(settings)
    aside = _beside(path, "replaced")
    try:
        with records_of(settings) as records, _Bars() as bars:
            done = put_back(source, path, records, aside, bars)
    except BackupError as error:
        raise CommandError(str(error)) from error
    except EbbingError as error:
        raise CommandError(f"{source}: {error.message}") from error
    typer.echo(f"{path}: {_counts(done.backup.users, done.backup.events)} restored")
    if done.aside:
        typer.echo(f"{done.aside}: what was there before")
    if done.unreadable:
        typer.echo(f"{done.unreadable:,} users were left out: their keys are gone")
    if done.deleted is None:
        typer.echo("it is not known who was deleted since the backup: delete those users again")
    elif done.deleted:
        typer.echo(f"{done.deleted:,} deletions since the backup were done again")


@state.command()
def check(
    where: State = None,
    cut: Annotated[
        bool,
        typer.Option(
            "--cut",
            help="Where the write-ahead log is damaged, go on without what it holds from there on.",
        ),
    ] = False,
    forget: Annotated[
        bool,
        typer.Option("--forget", help="Delete what nobody can read, as its keys are gone."),
    ] = False,
) -> None:
    """Check a state file whole: its pages, tables and indexes, and the seal of every value.

    Gateways may go on meanwhile, but for --cut. Exits with 1 if anything is damaged. A Redis checks
    its own files when it starts.

    [bold]Examples[/bold]

        ebbing state check

        ebbing state check --state /var/lib/ebbing/state.db
    """
    from server.state.backup import BackupError, go_on_without_end
    from server.state.sqlite import SqliteStore

    settings = existing(settings_of(state=where))
    path = _file(settings)
    if cut:
        aside = _beside(path, "damaged-wal")
        try:
            gone = go_on_without_end(path, aside)
        except BackupError as error:
            raise CommandError(str(error)) from error
        typer.echo(f"{path}: {gone:,} bytes of its write-ahead log cut, which lies in {aside}")
    with opened(settings) as (store, _), _Bars() as bars:
        assert isinstance(store, SqliteStore)
        found = store.check(bars)
        size = store.size()
        if forget and found.whole:
            store.forget(found.erased)
    if found.pages:
        typer.echo(f"{found.pages:,} pages are damaged")
    for problem in found.problems:
        typer.echo(problem)
    for table, count in sorted(found.damaged.items()):
        typer.echo(f"{table}: {count:,} values are damaged")
    if found.owners:
        typer.echo(f"{len(found.owners):,} users have damaged values")
    if found.erased:
        what = "deleted" if forget and found.whole else "--forget deletes it"
        typer.echo(f"of {len(found.erased):,} users nobody can read anything any more: {what}")
    if not found.whole:
        raise CommandError(f"{path} is damaged: {_remedy(found)}")
    typer.echo(f"{path}: {_counts(size.users, size.events)}, {_size(size.stored_bytes)}, whole")


@state.command()
def rebuild(
    where: State = None,
    user: Annotated[
        list[str] | None,
        typer.Option("--user", metavar="ID", help="Of this user alone; may be repeated."),
    ] = None,
) -> None:
    """Compute the states of users anew from the event log, while gateways go on.

    Also of those whose state is damaged or missing. A state that counts events the log has lost to
    their age is left as it is.

    [bold]Examples[/bold]

        ebbing state rebuild --state ebbing.db

        ebbing state rebuild --user ann --user bob
    """
    from ebbing.progress import Reporter
    from server.state.rebuilding import Rebuilt, logged_users
    from server.state.rebuilding import rebuild as compute

    with opened(existing(settings_of(state=where))) as (store, _):
        known = store.size().users
        total = len(user) if user else max(1, known)
        with Reporter().stage("states", total, "users") as stage:

            def tell(done: Rebuilt) -> None:
                stage.advance(1, differed=done.differed, left=done.left)

            done = compute(store, user or logged_users(store), tell)
    lost = 0 if user else max(0, known - done.users)
    typer.echo(f"{done.users:,} users: {done.differed:,} states differed and were replaced")
    if done.left + lost:
        typer.echo(f"{done.left + lost:,} were left: they count events that the log has lost")
    if done.unreadable:
        raise CommandError(
            f"{done.unreadable:,} were left: an event of theirs is damaged: restore a backup with"
            " 'ebbing state restore'"
        )


@state.command()
def migrate(
    source: Annotated[str, typer.Option("--from", metavar="URL", help="File or URL to move.")],
    target: Annotated[str, typer.Option("--to", metavar="URL", help="File or URL, a new one.")],
    final: Annotated[
        bool,
        typer.Option("--final", help="The last run, with all gateways stopped: compares them too."),
    ] = False,
    to_master_key_file: KeyFile = None,
    to_pseudonym_key_file: KeyFile = None,
    to_keyring: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Of the target.", show_default="its name and .keys"),
    ] = None,
    to_plain: Annotated[
        bool, typer.Option("--to-plain", help="Neither encrypt nor hide names in the target.")
    ] = False,
    from_pseudonyms: Annotated[
        int | None,
        typer.Option(min=1, metavar="VERSION", help="Key that names users in the source."),
    ] = None,
    journal: Annotated[
        Path, typer.Option(metavar="FILE", help="Remembers how far the log was copied.")
    ] = Path("ebbing-migrate.json"),
) -> None:
    """Move a state to another engine, place or keys, while gateways go on using it.

    Run it once or more while gateways use the source; each run copies what is missing. Then stop
    the gateways, run it with --final, and start them on the target. Cursors of watchers and
    deletions stay good. The target may be under other keys: so keys are replaced. Settings of keys
    come from the environment, as those of the gateway do.

    [bold]Examples[/bold]

        ebbing state migrate --from ebbing.db --to redis://store:6379

        ebbing state migrate --from ebbing.db --to redis://store:6379 --final

        ebbing state migrate --from ebbing.db --to new.db --to-master-key-file new.key
    """
    from server.state.backup import in_use
    from server.state.migrate import Journal, Migration, MigrationError

    ours = existing(settings_of(state=source))
    keys = {"master_key_file": to_master_key_file, "pseudonym_key_file": to_pseudonym_key_file}
    given: dict[str, Any] = {name: value for name, value in keys.items() if value or to_plain}
    theirs = settings_of(**given, state=target, keyring=to_keyring or "")
    if _place(ours) == _place(theirs):
        raise CommandError("--from and --to are the same state")
    if final and isinstance(ours.state, Path) and in_use(ours.state):
        raise CommandError(f"{ours.state} is in use: stop its gateways first")
    with (
        opened(ours, from_pseudonyms) as (old, old_records),
        opened(theirs) as (new, new_records),
        _Bars() as bars,
    ):
        fingerprint = new_records.vault.fingerprint
        if "sealed:" in fingerprint and fingerprint == old_records.vault.fingerprint:
            raise CommandError("the target needs a keyring of its own: name one with --to-keyring")
        notes = Journal(journal, old.alarms.store_id, str(theirs.state))
        try:
            moving = Migration(old, new, notes, bars, time.sleep)
            moving.copy(_now_us())
            came = moving.events
            compared = moving.verify() if final else 0
        except MigrationError as error:
            raise CommandError(str(error)) from error
        size = new.size()
    typer.echo(
        f"{theirs.state}: {_counts(size.users, size.events)}; {came:,} events were new to it"
    )
    if final:
        notes.remove()
        typer.echo(f"moved: {compared:,} users are the same in both. Start the gateways on it, and")
        typer.echo(f"none on {ours.state} any more: the two would drift apart")
    else:
        typer.echo(
            "run it again until little is new; then stop the gateways and run it with --final"
        )


class _Bars:
    """Shows one stage after the other, as whoever works tells of them."""

    def __init__(self) -> None:
        from ebbing.progress import Reporter

        self._reporter = Reporter()
        self._stack = ExitStack()
        self._name = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def __call__(self, what: str, done: int, total: int) -> None:
        if not total:
            return
        if what != self._name:
            self._stack.close()
            self._name = what
            self._stage = self._stack.enter_context(self._reporter.stage(what, total, what))
        self._stage.total = total
        self._stage.advance(done - self._stage.done)


def _place(settings: Settings) -> Path | str:
    return settings.state.resolve() if isinstance(settings.state, Path) else settings.state


def _file(settings: Settings) -> Path:
    if not isinstance(settings.state, Path):
        raise CommandError(f"{settings.state} is no file: this command is for state files")
    return settings.state


def _beside(path: Path, what: str) -> Path:
    """A name for a file that is kept."""
    return path.with_name(f"{path.name}.{what}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")


def _remedy(found: Checked) -> str:
    if not found.problems and set(found.damaged) == {"users"}:
        return "compute states anew with 'ebbing state rebuild'"
    return "restore a backup with 'ebbing state restore'"


def _now_us() -> int:
    return time.time_ns() // 1000


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _counts(users: int, events: int) -> str:
    return f"{users:,} users, {events:,} events"


def _size(stored_bytes: int) -> str:
    return f"{stored_bytes / 2**20:,.1f} MiB"
