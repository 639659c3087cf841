"""Events into Redis: claimed by their ids, counted in the states of their users, logged with them.

All states are read, advanced here, and written each by one script, if nothing has come between.

In a Cluster ids are claimed (``redis_claims``) before anything is written; one server claims them
in the step that writes, and syncs all of it to its disk at once.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from ebbing.history import HISTORY_LENGTH
from server import failpoints
from server.errors import EbbingError, StoreUnavailable
from server.state.records import Grown, Records
from server.state.redis_claims import Claim, by_place, holders_of, mark_of, release
from server.state.redis_keys import Keys
from server.state.redis_link import Command, RedisLink, Word
from server.state.redis_mending import mend
from server.state.redis_scripts import APPEND, CLAIM, HEAT, LOOK_UP
from server.state.store import DAY_US, Interaction, WriteOutcome, item_heat

__all__ = ["Append", "Logged", "forget_erasing", "recall"]

ABANDONED_S = 5.0
"""How long another gateway may take to erase a user's keys before it counts as lost."""
PAUSE_S = 0.02
LOGGED = (WriteOutcome.ACCEPTED, WriteOutcome.DUPLICATE)
PAGE = 128

_HEAD = struct.Struct("<16sq")
"""Digest and time of a stored event."""
_PLACE = struct.Struct("<IB")
"""Which of its user's it is, and how long its id in the log is, which follows."""


class Logged(NamedTuple):
    """A stored event."""

    digest: bytes
    time_us: int
    log_id: bytes
    sealed: bytes

    @classmethod
    def of(cls, value: bytes) -> Logged:
        """Read what ``redis_scripts.APPEND`` wrote."""
        digest, time_us = _HEAD.unpack_from(value)
        _, length = _PLACE.unpack_from(value, _HEAD.size)
        end = (start := _HEAD.size + _PLACE.size) + length
        return cls(digest, time_us, value[start:end], value[end:])


def recall(keys: Keys, owner: str, tombstone: str) -> list[Command]:
    """What asks for the deletion of a user: where the user was, and where another store's are."""
    places = (keys.of(owner), keys.of(tombstone))
    return [Command(place.slot, ("HGET", place("deleted"), tombstone)) for place in places]


def forget_erasing(keys: Keys, owner: str) -> Command:
    """What notes that the keys of a user were erased."""
    place = keys.of(owner)
    return Command(place.slot, ("HDEL", place("erasing"), owner))


@dataclass
class _User:
    """A user whose events are appended."""

    user_id: str
    owner: str
    tombstone: str
    mark: bytes
    """What is claimed for the user's events; see ``redis_claims``."""
    numbers: list[int] = field(default_factory=list)
    """Which of the interactions are the user's."""
    holders: Sequence[bytes] = ()
    """Whose their ids were; empty: nobody's."""
    version: bytes = b""
    state: bytes | None = None
    deletion: bytes = b""
    """What is remembered of the user's deletion; empty if there was none."""
    deleted_until: int = -1
    erasing: bool = False
    """Whether the user's keys are about to be erased."""
    torn: bool = False
    """Whether it is to be mended first."""
    logged: dict[str, bytes] = field(default_factory=dict)
    """Digests of those of the events that are in the log, by id."""
    accepted: list[tuple[Interaction, bytes]] = field(default_factory=list)
    """Events that are to be written, and their digests."""
    unsure: set[str] = field(default_factory=set)
    """Ids of events that were sent without an answer: they may have been written."""


class Append:
    """One group of events on its way into the store."""

    def __init__(
        self,
        link: RedisLink,
        keys: Keys,
        records: Records,
        tombstone: Callable[[str], str],
        interactions: Sequence[Interaction],
    ) -> None:
        """Set up; ``tombstone`` is what is remembered of a deleted user."""
        self._link = link
        self._keys = keys
        self._records = records
        self._interactions = interactions
        self._outcomes = [WriteOutcome.ACCEPTED] * len(interactions)
        self._taken: set[int] = set()
        """Interactions whose ids are those of others' events."""
        self._claims: set[Claim] = set()
        """Claims that nobody had before."""
        self._turn = 0
        self._users: dict[str, _User] = {}
        for n, one in enumerate(interactions):
            user = self._users.get(user_id := one.user_id)
            if user is None:
                owner = records.owner_of(user_id)
                user = _User(user_id, owner, tombstone(user_id), mark_of(owner))
                self._users[user_id] = user
            user.numbers.append(n)

    def run(self) -> list[WriteOutcome]:
        """Write all of it, durably; what became of each.

        Raises:
            StoreUnavailable, StorageFull: some users' events may not have been written.
        """
        failpoints.reach("append.begun")
        users = list(self._users.values())
        self._read(users)
        try:
            planned = self._plan(users)
        except BaseException:
            release(self._link, self._keys, self._claims)
            raise
        failpoints.reach("append.logged")
        began = time.monotonic()
        while waiting := self._write(planned):
            held_up_s = time.monotonic() - began
            if held_up_s > ABANDONED_S:
                self._finish_erasing(user for user in waiting if user.erasing)
            if held_up_s > 2 * ABANDONED_S:
                raise StoreUnavailable("other gateways write to the same users: send again")
            if any(user.erasing for user in waiting):
                time.sleep(PAUSE_S)
            self._read(waiting)
            planned = self._plan(waiting)
        failpoints.reach("append.committed")
        if not self._link.one_server:
            self._heat()
        if self._claims:
            used = {
                (one.event_id, self._users[one.user_id].mark)
                for one, outcome in zip(self._interactions, self._outcomes, strict=True)
                if outcome in LOGGED
            }
            release(self._link, self._keys, self._claims - used)
        return self._outcomes

    def _read(self, users: Sequence[_User]) -> None:
        """Read what is known of users, once these are whole, and whose their events' ids are."""
        self._look_up(users)
        while torn := [user.owner for user in users if user.torn]:
            mend(self._link, self._keys, torn)
            self._look_up(users)

    def _look_up(self, users: Sequence[_User]) -> None:
        # One server's clock orders the line that users are put in, wherever they lie.
        commands = [Command(self._keys.partitions[0].slot, ("TIME",))]
        if self._link.one_server:
            commands += self._reading(users)
            (now_s, now_us), *answers = self._link.read(commands, patient=True)
            for user, found in zip(users, answers, strict=True):
                self._take(user, found, *found[6:])
        else:
            claims = (claim for user in users for claim in self._claims_of(user))
            placed = by_place(CLAIM, self._keys, dict.fromkeys(claims))
            commands += (command for _, command in placed)
            commands += self._reading(users)
            (now_s, now_us), *answers = self._link.write(commands, replicate=False)
            holders = holders_of(placed, answers)
            self._claims.update(claim for claim, holder in holders.items() if not holder)
            answers = answers[len(placed) :]
            for user, found, elsewhere in zip(users, answers[::2], answers[1::2], strict=True):
                held = [holders[claim] for claim in self._claims_of(user)]
                self._take(user, found, elsewhere or b"", held)
        self._turn = int(now_s) * 1_000_000 + int(now_us)
        self._taken = {
            n
            for user in users
            for n, holder in zip(user.numbers, user.holders, strict=False)
            if holder and holder != user.mark
        }

    def _claims_of(self, user: _User) -> list[Claim]:
        """What is claimed for a user's events."""
        return [(self._interactions[n].event_id, user.mark) for n in user.numbers]

    def _reading(self, users: Sequence[_User]) -> list[Command]:
        commands = []
        for user in users:
            owner, place = user.owner, self._keys.of(user.owner)
            keys = [place("user", owner), place("deleted"), place("erasing")]
            keys.append(place("events", owner))
            ids = [self._interactions[n].event_id for n in user.numbers]
            if self._link.one_server:
                keys.append(self._keys.of(user.tombstone)("deleted"))
                keys += (self._keys.of(event_id)("ids") for event_id in ids)
            commands.append(Command.of(LOOK_UP, place.slot, keys, owner, user.tombstone, *ids))
            if not self._link.one_server:
                commands.append(recall(self._keys, owner, user.tombstone)[1])
        return commands

    def _take(
        self,
        user: _User,
        found: Sequence[Any],
        elsewhere: bytes = b"",
        holders: Sequence[bytes] = (),
    ) -> None:
        """Take what was found of a user, in its partition and elsewhere."""
        version, user.state, *unusual = found
        user.version = version or b""
        user.deletion, erasing, torn, digests = unusual[:4] if unusual else (b"", 0, 0, ())
        user.erasing, user.torn = bool(erasing), bool(torn)
        user.holders = holders
        user.deleted_until = -1
        for one in (user.deletion, elsewhere):
            if one:
                user.deleted_until = max(user.deleted_until, int(one.partition(b" ")[0]))
        ids = (self._interactions[n].event_id for n in user.numbers)
        known = zip(ids, digests, strict=False)
        user.logged = {event_id: digest for event_id, digest in known if digest}

    def _plan(self, users: Sequence[_User]) -> list[tuple[_User, Command | None]]:
        """What becomes of users' events, and what writes those that are new, if it can be told yet.

        Raises:
            ValueError: an event cannot be counted.
        """
        # Now that it is known which versions are written upon: whoever is erased from here on is of
        # another version. And not for those who are refused, whom nothing is kept of.
        self._records.vault.prepare(
            user.owner
            for user in users
            if not user.erasing
            and any(self._interactions[n].time_us > user.deleted_until for n in user.numbers)
        )
        planned: list[tuple[_User, Command | None]] = [(one, None) for one in users if one.erasing]
        writing = [user for user in users if not user.erasing and self._judge(user)]
        states = self._records.advanced(
            [
                Grown(
                    user.user_id,
                    user.owner,
                    user.state,
                    [one for one, _ in user.accepted],
                    partial(self._newest_with_items, user.owner),
                )
                for user in writing
            ]
        )
        for user, state in zip(writing, states, strict=True):
            planned.append((user, self._appending(user, state)))
        return planned

    def _judge(self, user: _User) -> bool:
        """Decide what becomes of a user's events; whether any are to be written."""
        logged = user.logged.copy()
        unsure = user.unsure & logged.keys()
        user.accepted = []
        for n in user.numbers:
            one = self._interactions[n]
            outcome, digest = self._outcome(user, n, logged)
            self._outcomes[n] = outcome
            if outcome is WriteOutcome.ACCEPTED:
                logged[one.event_id] = digest
                user.accepted.append((one, digest))
            elif outcome is WriteOutcome.DUPLICATE and one.event_id in unsure:
                # Sent before without an answer: it was this one.
                self._outcomes[n] = WriteOutcome.ACCEPTED
                unsure.remove(one.event_id)
        return bool(user.accepted)

    def _outcome(
        self, user: _User, n: int, logged: Mapping[str, bytes]
    ) -> tuple[WriteOutcome, bytes]:
        """What becomes of an event, and its digest unless it is refused."""
        one = self._interactions[n]
        if one.time_us <= user.deleted_until:
            return WriteOutcome.USER_DELETED, b""
        if n in self._taken:
            return WriteOutcome.ID_REUSED, b""
        known, digest = logged.get(one.event_id), self._records.digest(user.owner, one)
        if known is None:
            return WriteOutcome.ACCEPTED, digest
        return (WriteOutcome.DUPLICATE if known == digest else WriteOutcome.ID_REUSED), digest

    def _appending(self, user: _User, state: bytes) -> Command:
        owner, new = user.owner, [one for one, _ in user.accepted]
        place = self._keys.of(owner)
        own = ("user", "events", "engagements", "asides")
        shared = ("line", "newest", "oldest", "owners", "log", "deleted")
        keys = [*(place(kind, owner) for kind in own), *(place(kind) for kind in shared)]
        turn = self._turn + user.numbers[0] if any(one.weight for one in new) else ""
        times = [one.time_us for one in new]
        if self._link.one_server:
            keys.append(self._keys.heat("items"))
            keys += (self._keys.of(one.event_id)("ids") for one in new)
        words: list[Word] = [owner, user.version, user.tombstone, user.deletion]
        words += [state, turn, max(times) // DAY_US, min(times), user.mark]
        for one, digest in user.accepted:
            head = _HEAD.pack(digest, one.time_us)
            heated = one.weight > 0 and one.item_key
            words += [one.event_id, one.time_us, int(one.weight > 0), head]
            words.append(self._records.event(owner, one))
            words += [one.item_key, item_heat(one.time_s, one.weight)] if heated else ["", ""]
        return Command.of(APPEND, place.slot, keys, *words, events=len(new))

    def _finish_erasing(self, users: Iterable[_User]) -> None:
        """Do what a gateway that was lost left undone; what it erased has no keys any more."""
        for user in users:
            self._records.vault.erase(user.owner)
            self._link.write([forget_erasing(self._keys, user.owner)])

    def _newest_with_items(self, owner: str) -> list[Interaction]:
        """A user's newest engagements with items, as far as a history goes."""
        place = self._keys.of(owner)
        found: list[Interaction] = []
        for start in count(step=PAGE):
            page = ("ZREVRANGE", place("engagements", owner), start, start + PAGE - 1)
            (ids,) = self._link.read([Command(place.slot, page)], patient=True)
            known = [Command(place.slot, ("HGET", place("events", owner), one)) for one in ids]
            for event_id, value in zip(ids, self._link.read(known, patient=True), strict=True):
                if value:
                    stored = Logged.of(value)
                    one = self._records.interaction(
                        owner, event_id.decode(), stored.time_us, stored.sealed
                    )
                    found += [one] * bool(one.item_key)
            if len(ids) < PAGE or len(found) >= HISTORY_LENGTH:
                break
        return found[:HISTORY_LENGTH]

    def _write(self, planned: Sequence[tuple[_User, Command | None]]) -> list[_User]:
        """Write what was planned; the users for whom it is too late or too early."""
        waiting = [user for user, command in planned if command is None]
        writing = [(user, command) for user, command in planned if command is not None]
        resent: set[int] = set()
        commands = [command for _, command in writing]
        answers = self._link.write(commands, together=True, resent=resent)
        for n, ((user, _), written) in enumerate(zip(writing, answers, strict=True)):
            if not written:
                waiting.append(user)
                if n in resent:
                    user.unsure.update(one.event_id for one, _ in user.accepted)
        return waiting

    def _heat(self) -> None:
        """Count what was written towards the popularity of items.

        That is left out rather than counted twice where a server is lost at this moment.
        """
        heats: dict[int, float] = {}
        for one, outcome in zip(self._interactions, self._outcomes, strict=True):
            if outcome is WriteOutcome.ACCEPTED and one.weight and one.item_key:
                heat = item_heat(one.time_s, one.weight)
                known = heats.get(one.item_key)
                heats[one.item_key] = heat if known is None else float(np.logaddexp2(known, heat))
        if heats:
            place = self._keys.heat
            words = (repr(word) for pair in heats.items() for word in pair)
            command = Command.of(HEAT, place.slot, [place("items")], *words)
            with suppress(EbbingError):
                self._link.write([command], repeat=False, replicate=False)
