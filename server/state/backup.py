"""Backups of a state file: taken while it is in use, checked, and put back.

Neither holds the keys that encrypted values are read with: those are kept apart.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from ebbing.durable import sync
from server.errors import EbbingError
from server.state.listing import each, held_users
from server.state.migrate import Journal, Migration
from server.state.records import Records
from server.state.sqlite import SqliteStore
from server.state.sqlite_integrity import Told
from server.state.sqlite_wal import cut, read_wal, wal_of
from server.state.store import Store, Tombstone, tombstone_digest
from server.state.vault import Vault

__all__ = [
    "Backup",
    "BackupError",
    "KeptKeys",
    "Restored",
    "back_up",
    "back_up_server",
    "go_on_without_end",
    "in_use",
    "restore",
]

_LOCK_BYTES = range(0x40000000, 0x40000000 + 512)
"""Where SQLite has its locks; each connection with a write-ahead log holds one all the time."""
T = TypeVar("T")


class BackupError(Exception):
    """A backup cannot be taken or put back; the message says why and what to do."""


class Backup(NamedTuple):
    """A backup that was found whole."""

    store_id: str
    users: int
    events: int
    stored_bytes: int


class Restored(NamedTuple):
    """What was put back."""

    backup: Backup
    aside: Path | None
    """Where the file lies that it replaced."""
    unreadable: int
    """Users whose keys are gone: they were deleted since, and nothing of them is restored."""
    deleted: int | None
    """Users deleted since, as the file that was replaced tells, and deleted again; None: it could
    not be read."""


def back_up(store: SqliteStore, out: Path, records: Records, force: bool, told: Told) -> Backup:
    """Copy a store to a file, as it is at this moment, while others go on writing to it.

    Args:
        store: what to copy.
        out: the backup; it is there whole, or not at all.
        records: read what is stored.
        force: replace what is there.
        told: is told how far it is.

    Raises:
        BackupError: there is a file already, or the copy is not whole.
        EbbingError: it cannot be read, or there is no room.
    """
    with _written(out, force) as partial:
        store.copy_to(partial, lambda done, total: told("pages", done, total))
        return _required(partial, records, told)[0]


@contextmanager
def _written(out: Path, force: bool) -> Iterator[Path]:
    """A file to write, which takes its place durably if the block ends well.

    Raises:
        BackupError: there is one in its place already.
    """
    if wal_of(out).exists():
        raise BackupError(f"{out} is in use as a state: name another file")
    if out.exists() and not force:
        raise BackupError(f"{out} exists: name another file, or replace it with --force")
    partial = out.with_name(f"{out.name}.partial")
    _unlink(partial)
    try:
        with partial.open("xb") as file:
            os.fchmod(file.fileno(), 0o600)
        yield partial
        sync(partial)
        partial.replace(out)
        sync(out.parent)
    except OSError as error:
        raise BackupError(f"{out} cannot be written: {error.strerror}") from error
    finally:
        _unlink(partial)


def back_up_server(
    store: Store,
    out: Path,
    records: Records,
    force: bool,
    told: Told,
    now_us: int,
    pause: Callable[[float], None],
) -> Backup:
    """Copy a store of any engine to a file; each user is there as of a moment of the copying.

    Args:
        store: what to copy, while others go on writing to it.
        out: the backup, a state file; it is there whole, or not at all.
        records: encode what is stored there; its vault is a ``KeptKeys``.
        force: replace what is there.
        told: is told how far it is.
        now_us: this moment.
        pause: waits so many seconds.

    Raises:
        BackupError, MigrationError: there is a file already, or something cannot be copied.
        EbbingError: a store refused.
    """
    with _written(out, force) as partial:
        with closing(SqliteStore(partial, records)) as copy:
            journal = Journal(None, store.alarms.store_id, str(out))
            Migration(store, copy, journal, told, pause).copy(now_us)
        found, erased = _required(partial, records, told)
        with closing(SqliteStore(partial, records)) as copy:
            copy.forget(erased)  # deleted while they were being copied
        return found


class KeptKeys:
    """A vault that erases no keys: what is deleted in a copy may be whole elsewhere."""

    def __init__(self, vault: Vault) -> None:
        """Set up on the vault that the copy shares."""
        self.fingerprint = vault.fingerprint
        self.owner_of = vault.owner_of
        self.prepare = vault.prepare
        self.seal = vault.seal
        self.open = vault.open
        self.digest = vault.digest
        self.close = vault.close

    def erase(self, *owners: str) -> None:
        """Nothing is done."""


def go_on_without_end(state: Path, aside: Path) -> int:
    """Cut a damaged write-ahead log where the damage begins; how many bytes went.

    Args:
        state: a file that nobody uses.
        aside: where a copy of its log goes.

    Raises:
        BackupError: somebody uses it, its log is whole, or it cannot be written.
    """
    try:
        with _exclusively(state):
            with state.open("rb") as file:
                page_bytes = int.from_bytes(file.read(18)[16:], "big")
            wal = read_wal(state, 2**16 if page_bytes == 1 else page_bytes)
            if not wal.damaged:
                raise BackupError(f"the write-ahead log of {state} is whole: nothing was cut")
            before = wal_of(state).stat().st_size
            shutil.copyfile(wal_of(state), aside)
            sync(aside)
            cut(state, wal)
            return before - wal.end
    except OSError as error:
        raise BackupError(f"{state} cannot be written: {error.strerror}") from error


def restore(backup: Path, state: Path, records: Records, aside: Path, told: Told) -> Restored:
    """Put a backup in the place of a state file that nobody uses.

    Args:
        backup: as ``back_up`` wrote it.
        state: what to replace; need not exist.
        records: read what is stored.
        aside: where the replaced file goes.
        told: is told how far it is.

    Raises:
        BackupError: the backup is not whole, or somebody uses the state.
        EbbingError: the backup cannot be read with these keys, or there is no room.
    """
    if wal_of(backup).exists():
        raise BackupError(f"{backup} is in use, or no backup: name one, or take one of it")
    if not backup.is_file():
        raise BackupError(f"there is no {backup}")
    if in_use(state):
        raise BackupError(f"{state} is in use: stop its gateways first")
    remembered = _remembered(state, records)
    partial = state.with_name(f"{state.name}.restoring")
    _unlink(partial)
    try:
        shutil.copyfile(backup, partial)
        shutil.copymode(state if state.exists() else backup, partial)
        found, erased = _required(partial, records, told)
        with closing(SqliteStore(partial, records)) as store:
            store.forget(erased)
            store.restored()
        deleted = None
        if remembered and remembered[0] == found.store_id:
            deleted = _deleted_again(partial, records, remembered[1])
        sync(partial)
        with _exclusively(state):
            kept = _exchange(partial, state, aside)
        return Restored(found, kept, len(erased), deleted)
    except OSError as error:
        raise BackupError(f"{state} cannot be written: {error.strerror}") from error
    finally:
        _unlink(partial)


def in_use(state: Path) -> bool:
    """Whether another process has a state file open; this one must not."""
    try:
        with _exclusively(state):
            return False
    except BackupError:
        return True


@contextmanager
def _exclusively(state: Path) -> Iterator[None]:
    """Keep all others from a file while the block lasts; this process must not have it open.

    Raises:
        BackupError: somebody has it open.
    """
    if not state.exists():
        yield
        return
    with state.open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, len(_LOCK_BYTES), _LOCK_BYTES.start)
        except OSError as error:
            raise BackupError(f"{state} is in use: stop its gateways first") from error
        yield


def _exchange(new: Path, state: Path, aside: Path) -> Path | None:
    # What is replaced is never without a name, whenever this ends.
    for old, kept in ((state, aside), (wal_of(state), wal_of(aside))):
        if old.exists():
            os.link(old, kept)
    sync(state.parent)
    # The log is of the old file: the new one must never be seen beside it.
    wal_of(state).unlink(missing_ok=True)
    state.with_name(f"{state.name}-shm").unlink(missing_ok=True)
    new.replace(state)
    sync(state.parent)
    return aside if aside.exists() else None


def _required(path: Path, records: Records, told: Told) -> tuple[Backup, set[str]]:
    """What a file that nobody uses holds, if it is whole; and owners nobody can read any more."""
    with closing(SqliteStore(path, records)) as store:
        found = store.check(told)
        if not found.whole:
            raise BackupError(f"what was copied is damaged ({found}): see 'ebbing state check'")
        return Backup(store.alarms.store_id, *store.size()), found.erased


def _remembered(state: Path, records: Records) -> tuple[str, list[Tombstone]] | None:
    """The id of the file that is to be replaced and its deletions; None if it cannot be read."""
    if not state.exists():
        return None
    try:
        with closing(SqliteStore(state, records)) as store:
            return store.alarms.store_id, list(each(store.deletions))
    except EbbingError:
        return None


def _deleted_again(path: Path, records: Records, tombstones: Iterable[Tombstone]) -> int:
    """Delete users that were deleted after the backup was taken; how many deletions that were."""
    with closing(SqliteStore(path, records)) as store:
        known = {one.digest: one for one in each(store.deletions)}
        new = [one for one in tombstones if known.get(one.digest) != one]
        if new:
            digests = {one.digest for one in new}
            gone = (
                u
                for u in held_users(store)
                if tombstone_digest(u, store.alarms.store_id) in digests
            )
            store.forget(map(records.owner_of, gone))
            store.write_deletions(new)
    return len(new)


def _unlink(path: Path) -> None:
    """Remove a file and what SQLite keeps beside it."""
    for one in (path, wal_of(path), path.with_name(f"{path.name}-shm")):
        one.unlink(missing_ok=True)
