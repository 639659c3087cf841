"""Moves a store into another one, of another engine or with other keys, while it is in use.

Events go through ``append``, by the ids of which none is counted twice; so a move may be ended and
begun again at any time. What is kept of a user comes from the source as it is, as the log may have
lost what it counts. It is read between two looks at the log: if no event of the user came between,
it counts exactly the events that were copied.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from server.errors import UserErased
from server.state import user_state
from server.state.listing import each, held_users, pages
from server.state.store import (
    Interaction,
    Rollout,
    Store,
    UserRecord,
    WriteOutcome,
    tombstone_digest,
)

__all__ = ["Journal", "Migration", "MigrationError", "Progress"]

EVENTS_AT_ONCE = 2000
USERS_AT_ONCE = 200
ROWS_AT_ONCE = 500
ATTEMPTS = 20
"""At reading what is of a user who is being deleted."""
PAUSE_S = 0.1

_AGAIN = "stop all gateways of the source and run it again"

T = TypeVar("T")
Progress = Callable[[str, int, int], None]
"""Is told what is copied, how much of it was, and of how much."""


class MigrationError(Exception):
    """A store cannot be moved; the message says why and what to do."""


@dataclass
class Journal:
    """How far the log was copied, in a file; without it a move begins at the start of the log."""

    path: Path | None
    store_id: str
    target: str
    """Where the copy goes."""
    cursor: str = ""
    events: int = 0
    """How many the target holds at least."""

    def load(self, held: int) -> None:
        """Go on where an earlier move ended, if the target still holds what that copied."""
        if self.path is None:
            return
        with suppress(OSError, ValueError, TypeError, KeyError):
            known = json.loads(self.path.read_text())
            whose = (known["store_id"], known["target"]) == (self.store_id, self.target)
            if whose and known["events"] <= held:
                self.cursor, self.events = known["cursor"], known["events"]

    def save(self) -> None:
        """Keep it."""
        if self.path is None:
            return
        known = {name: value for name, value in vars(self).items() if name != "path"}
        partial = self.path.with_name(f"{self.path.name}.partial")
        partial.write_text(json.dumps(known))
        partial.replace(self.path)

    def remove(self) -> None:
        """The move is over."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


class Migration:
    """One move; ``copy`` may be called again and again."""

    def __init__(
        self,
        source: Store,
        target: Store,
        journal: Journal,
        told: Progress,
        pause: Callable[[float], None],
    ) -> None:
        """Set up.

        Args:
            source: what to move; gateways may go on using it.
            target: where to; empty, or where an earlier move ended.
            journal: how far that came.
            told: is told how far this one is.
            pause: waits so many seconds.

        Raises:
            StoreUnavailable: the target holds something else.
        """
        self._source = source
        self._target = target
        self._journal = journal
        self._told = told
        self._pause = pause
        self.events = 0
        """Events read from the log."""
        if target.alarms.store_id != source.alarms.store_id:
            target.adopt(source.alarms.store_id)
        journal.load(target.size().events)

    def copy(self, now_us: int) -> None:
        """Copy what the target lacks, and what has come meanwhile; ``now_us`` is the moment.

        Raises:
            MigrationError: the target holds an event of the id of another one.
            EbbingError: one of the stores refused; copying again goes on from there.
        """
        self._copy_catalogue()
        self._copy_deletions()
        self._catch_up()
        self._copy_users()
        self._copy_relations()
        self._copy_transitions(now_us)
        # Those that were deleted while they were being copied.
        self._copy_deletions()
        self._catch_up()

    def verify(self) -> int:
        """Compare both stores, to which nobody writes; how many users were compared.

        Raises:
            MigrationError: they differ, or somebody still writes to the source.
        """
        source, target, checked = self._source, self._target, 0
        sizes = source.size(), target.size()
        for page in pages(source.users, USERS_AT_ONCE):
            for one in page:
                copy = target.user(one.user_id)
                if copy is None or not _same(one, copy):
                    raise MigrationError("a user differs in the two stores: " + _AGAIN)
            example = page[0].user_id
            if list(source.events_of(example)) != list(target.events_of(example)):
                raise MigrationError("events of a user differ in the two stores: " + _AGAIN)
            checked += len(page)
            self._told("users compared", checked, max(checked, sizes[0].users))
        if source.log(self._journal.cursor, 1)[0]:
            raise MigrationError("events still come to the source: " + _AGAIN)
        if sizes[1].events < sizes[0].events:
            raise MigrationError("the target lacks events: remove the journal, and run it again")
        return checked

    def _copy_catalogue(self) -> None:
        source, target = self._source, self._target
        interests = items = 0
        after = ""
        while described := source.list_interests(after, ROWS_AT_ONCE):
            target.write_interests(described)
            after = described[-1].path
            interests += len(described)
        self._told("interests", interests, interests)
        after = ""
        while some := source.list_items(after, ROWS_AT_ONCE):
            target.write_items(some)
            after = some[-1].item_id
            items += len(some)
            self._told("items", items, items)
        self._drop_items()
        wanted = source.rollout()
        for version in range(target.rollout().version + 1, wanted.version + 1):
            target.write_rollout(Rollout(version, wanted.body))

    def _drop_items(self) -> None:
        after = ""
        while some := self._target.list_items(after, ROWS_AT_ONCE):
            after = some[-1].item_id
            keys = {one.item_key for one in self._source.items([one.item_key for one in some])}
            for one in some:
                if one.item_key not in keys:
                    self._target.delete_item(one.item_id)

    def _copy_deletions(self) -> None:
        known = {one.digest: one for one in each(self._target.deletions)}
        new = {
            one.digest: one for one in each(self._source.deletions) if known.get(one.digest) != one
        }
        for user_id in held_users(self._target) if new else ():
            if found := new.get(tombstone_digest(user_id, self._source.alarms.store_id)):
                # Copied before the deletion; whoever came back since is copied anew.
                back = self._read(lambda user: list(self._source.events_of(user)), user_id)
                self._target.delete_user(user_id, found.deletion.receipt_id, found.deletion.time_us)
                self._append(back)
        self._target.write_deletions(list(new.values()))

    def _catch_up(self) -> set[str]:
        """Copy the log as far as it goes; whose events came."""
        users = set[str]()
        journal, more = self._journal, True
        while more:
            page, cursor = self._read(self._source.log, journal.cursor, EVENTS_AT_ONCE)
            more = len(page) == EVENTS_AT_ONCE
            if page:
                self._append(page)
                users.update(one.user_id for one in page)
                self.events += len(page)
                journal.cursor, journal.events = cursor, self._target.size().events
                journal.save()
                self._told("events", journal.events, self._source.size().events)
        return users

    def _append(self, events: Sequence[Interaction]) -> None:
        if WriteOutcome.ID_REUSED in self._target.append(events):
            # The id may be that of an event of a user who was deleted meanwhile.
            self._copy_deletions()
            if WriteOutcome.ID_REUSED in self._target.append(events):
                raise MigrationError(
                    "the target holds another event of an id that is in the source: name a new one"
                )

    def _copy_users(self) -> None:
        copied = 0
        self._catch_up()
        for page in self._pages(self._source.users, USERS_AT_ONCE):
            records: Sequence[UserRecord] = page
            while records:
                came = self._catch_up()
                self._target.write_users([one for one in records if one.user_id not in came])
                late = [one.user_id for one in records if one.user_id in came]
                found = [self._read(self._source.user, user) for user in late]
                records = [one for one in found if one is not None]
            copied += len(page)
            self._told("users", copied, max(copied, self._source.size().users))
            self._catch_up()

    def _copy_relations(self) -> None:
        copied = 0
        for page in self._pages(self._source.all_relations, ROWS_AT_ONCE):
            self._target.write_relations(page)
            copied += len(page)
            self._told("relations", copied, copied)

    def _copy_transitions(self, now_us: int) -> None:
        source, target = self._source.alarms, self._target.alarms
        newest = source.span().newest  # later ones are for the next time
        copied, after = 0, target.span().newest
        while after < newest and (page := self._read(source.transitions, after, ROWS_AT_ONCE)):
            after = page[-1][0]
            target.write_transitions(page, after, now_us)
            copied += len(page)
            self._told("transitions", copied, copied)
        target.write_transitions([], newest, now_us)

    def _pages(
        self, read: Callable[[str, int], tuple[list[T], str]], limit: int
    ) -> Iterator[list[T]]:
        return pages(lambda after, most: self._read(read, after, most), limit)

    def _read(self, read: Callable[..., T], *values: object) -> T:
        """What is read, also while a user of whom it is is being deleted."""
        for _ in range(ATTEMPTS):
            with suppress(UserErased):
                return read(*values)
            self._pause(PAUSE_S)
        raise MigrationError(
            "some of what is stored nobody can read, as its keys are gone: check the state with"
            " 'ebbing state check'"
        )


def _same(one: UserRecord, other: UserRecord) -> bool:
    alike = (one.told, one.due_us) == (other.told, other.due_us)
    return alike and user_state.same(one.state, other.state)
