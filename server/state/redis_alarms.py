"""Alarms and transitions in Redis.

What is told is written, with the alarm it comes from, into the outbox of the user's partition; from
there it is taken into the one log in which transitions are numbered. The log remembers how far
each outbox was taken. So whoever looks can go on where another one stopped: nothing is lost or
told twice, and what is told of a user stays in order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from heapq import nsmallest
from typing import Any, NamedTuple

from server import failpoints
from server.errors import UserErased
from server.state.alarms import Alarm, Settlement, Span, Transition
from server.state.records import AlarmRow, Records
from server.state.redis_alarm_scripts import (
    FORGET,
    SETTLE,
    SWEEP,
    TAKE,
    TAKE_OVER,
    TOUCH,
    WAITING,
)
from server.state.redis_keys import Keys
from server.state.redis_link import Command, RedisLink, Word

__all__ = ["RedisAlarms"]

TAKEN_AT_ONCE = 500
"""Transitions taken from one outbox at once."""
COMPARED = 1000
"""Users of a partition that are due, for each of whom it is looked whether it is in line too."""


class _Entry(NamedTuple):
    """A transition as a stream holds it."""

    id: bytes
    owner: str
    written_us: int
    sealed: bytes

    @classmethod
    def of(cls, raw: Any) -> _Entry:
        entry_id, (_, owner, _, written, _, sealed) = raw
        return cls(entry_id, owner.decode(), int(written), sealed)

    @property
    def number(self) -> int:
        """Its number, in the log."""
        return int(self.id.partition(b"-")[0])


class RedisAlarms:
    """``server.state.alarms.Alarms`` in Redis."""

    def __init__(self, link: RedisLink, keys: Keys, records: Records, store_id: str) -> None:
        """Set up."""
        self._link = link
        self._keys = keys
        self._records = records
        self.store_id = store_id
        self._log = keys.transitions("log")
        self._taken = keys.transitions("taken")

    def due(self, now_us: int, limit: int, touched: int) -> list[Alarm]:
        """Up to ``limit`` users that are due, earliest first, and up to ``touched`` in line."""
        due = self._first("due", limit, now_us)
        in_line = self._first("line", touched)
        owners = list(dict.fromkeys([*due, *in_line]))
        commands = []
        for owner in owners:
            place = self._keys.of(owner)
            fields = ("HMGET", place("user", owner), "version", "due", "told", "state")
            commands.append(Command(place.slot, fields))
            commands.append(Command(place.slot, ("ZSCORE", place("line"), owner)))
        answers = self._link.read(commands)
        rows = zip(owners, answers[::2], answers[1::2], strict=True)
        return self._records.alarms(
            [
                AlarmRow(
                    owner, int(due) if due else None, turn is not None, int(version), told, state
                )
                for owner, (version, due, told, state), turn in rows
                if version
            ]
        )

    def _first(self, line: str, limit: int, until_us: int | None = None) -> list[str]:
        """The first owners in a line of all partitions, up to a moment if one is given."""
        if not limit:
            return []
        until = "+inf" if until_us is None else until_us
        words = ("WITHSCORES", "LIMIT", 0, limit)
        found: list[tuple[float, str]] = []
        for flat in self._link.read(
            [
                Command(place.slot, ("ZRANGEBYSCORE", place(line), "-inf", until, *words))
                for place in self._keys.partitions
            ]
        ):
            moments = map(float, flat[1::2])
            found += zip(moments, (owner.decode() for owner in flat[::2]), strict=True)
        return [owner for _, owner in nsmallest(limit, found)]

    def next_due_us(self) -> int | None:
        """When the earliest alarm is due, whoever is in line; None if there is none."""
        firsts = self._link.read(
            [
                Command(place.slot, ("ZRANGE", place("due"), 0, 0, "WITHSCORES"))
                for place in self._keys.partitions
            ]
        )
        return min((int(float(first[1])) for first in firsts if first), default=None)

    def settle(self, settlements: Sequence[Settlement], now_us: int) -> list[bool]:
        """Write what became of alarms, durably, each as one step and only if it is unchanged."""
        failpoints.reach("settle.begun")
        commands = {}
        for n, one in enumerate(settlements):
            with suppress(UserErased):  # since it was read
                commands[n] = self._settling(one, now_us)
        written = dict(zip(commands, self._link.write([*commands.values()]), strict=True))
        failpoints.reach("settle.committed")
        self._take({self._keys.number(one.owner) for one in settlements if one.transitions})
        return [bool(written.get(n)) for n in range(len(settlements))]

    def _settling(self, one: Settlement, now_us: int) -> Command:
        place = self._keys.of(one.owner)
        keys = (place("user", one.owner), place("due"), place("line"), place("outbox"))
        words: list[Word] = [one.owner, one.version, "" if one.due_us is None else one.due_us]
        words += ["", b""] if one.told is None else [1, self._records.told(one.owner, one.told)]
        words.append(now_us)
        words += (self._records.transition(one.owner, each) for each in one.transitions)
        return Command.of(SETTLE, place.slot, keys, *words)

    def waiting(self, now_us: int, most: int) -> int:
        """How many users are to be solved, counted up to about ``most``."""
        counts = self._link.read(
            [
                Command.of(
                    WAITING, place.slot, (place("due"), place("line")), now_us, min(most, COMPARED)
                )
                for place in self._keys.partitions
            ]
        )
        return min(most, int(sum(counts)))

    def renew(self, parameters: str, share: float) -> bool:
        """Touch a share of the users last solved with other parameters; whether any are left."""
        place = self._keys.catalogue
        words = ("HMGET", place("sweep"), "parameters", "position", "total")
        ((known, position, total),) = self._link.read([Command(place.slot, words)])
        before = known or b"", position or b""
        if before == (parameters.encode(), b""):
            return False
        at = (position or b"").decode()
        if known != parameters.encode():
            at, total = "0:", sum(self.counts())
        owners = self.owners_after(at, 1 + math.ceil(int(total) * share))
        touched, left = owners[:-1], owners[-1:]
        if len(owners) <= math.ceil(int(total) * share):
            touched, left = owners, []
        commands = []
        for _, owner in touched:
            there = self._keys.of(owner)
            keys = (there("user", owner), there("line"))
            commands.append(Command.of(TOUCH, there.slot, keys, owner))
        self._link.write(commands)
        reached = "{}:{}".format(*touched[-1]) if left else ""
        # Where another gateway came between, the next look goes on from where it is.
        sweep = (*before, parameters, reached, int(total))
        self._link.write([Command.of(SWEEP, place.slot, [place("sweep")], *sweep)])
        return bool(left)

    def counts(self) -> list[int]:
        """How many users there are in each partition."""
        return self._link.read(
            [Command(one.slot, ("ZCARD", one("owners"))) for one in self._keys.partitions]
        )

    def owners_after(self, after: str, limit: int) -> list[tuple[int, str]]:
        """Users as (partition, owner), by both, after one written as partition:owner."""
        return self.listed_after("owners", after, limit)

    def listed_after(self, kind: str, after: str, limit: int) -> list[tuple[int, str]]:
        """Those of a list that all partitions have."""
        number, _, last = after.partition(":")
        found: list[tuple[int, str]] = []
        for n in range(int(number or 0), len(self._keys.partitions)):
            if len(found) == limit:
                break
            place = self._keys.partitions[n]
            start, left = f"({last}" if last else "-", limit - len(found)
            words = ("ZRANGEBYLEX", place(kind), start, "+", "LIMIT", 0, left)
            (owners,) = self._link.read([Command(place.slot, words)])
            found += ((n, owner.decode()) for owner in owners)
            last = ""
        return found

    def transitions(self, after: int, limit: int) -> list[tuple[int, Transition]]:
        """Transitions with their numbers, in order, after a number."""
        page = self._entries(after, limit)
        if len(page) < limit and self._take(range(len(self._keys.partitions)), patient=False):
            page = self._entries(after, limit)
        found = []
        for one in page:
            with suppress(UserErased):  # deleted a moment ago
                opened = self._records.opened_transition(one.owner, one.sealed)
                found.append((one.number, opened))
        if page and not found:
            return self.transitions(page[-1].number, limit)
        return found

    def transitions_of(self, user_id: str) -> list[Transition]:
        """The transitions of a user that are kept, in the order they were written."""
        owner = self._records.owner_of(user_id)
        self._take([self._keys.number(owner)])
        slot = self._keys.transitions.slot
        found = self._link.read(
            [
                Command(slot, ("XRANGE", self._log, f"{number}-0", f"{number}-0"))
                for number in self._numbers(owner)
            ]
        )
        entries = (_Entry.of(raw) for one in found for raw in one)
        return [self._records.opened_transition(owner, one.sealed) for one in entries]

    def write_transitions(
        self, transitions: Sequence[tuple[int, Transition]], newest: int, now_us: int
    ) -> None:
        """Take over transitions of another store under their numbers; those there are stay.

        They come in the order of their numbers.
        """
        owners = [self._records.owner_of(one.user_id) for _, one in transitions]
        self._records.vault.prepare(owners)
        place = self._keys.transitions
        keys = [self._log, self._taken, *(place("of", owner) for owner in owners)]
        words: list[Word] = [newest, now_us]
        for owner, (number, one) in zip(owners, transitions, strict=True):
            words += [number, owner, self._records.transition(owner, one)]
        self._link.write([Command.of(TAKE_OVER, place.slot, keys, *words)])

    def span(self) -> Span:
        """Which transitions are kept."""
        slot = self._keys.transitions.slot
        newest, oldest = self._link.read(
            [
                Command(slot, ("HGET", self._taken, "newest")),
                Command(slot, ("XRANGE", self._log, "-", "+", "COUNT", 1)),
            ]
        )
        last = int(newest or 0)
        return Span(_Entry.of(oldest[0]).number if oldest else last + 1, last)

    def prune(self, before_us: int, limit: int) -> int:
        """Forget transitions written before a moment, oldest first; how many went."""
        old = []
        for one in self._entries(0, limit):
            if one.written_us >= before_us:
                break
            old.append(one)
        return self._forget((one.number, one.owner) for one in old)

    def forget(self, owner: str) -> bool:
        """Forget the transitions of a user that the log holds; whether there were any."""
        self._take([self._keys.number(owner)])
        return self._forget((number, owner) for number in self._numbers(owner)) > 0

    def _forget(self, entries: Iterable[tuple[int, str]]) -> int:
        numbers, keys = [], [self._log]
        for number, owner in entries:
            numbers.append(number)
            keys.append(self._keys.transitions("of", owner))
        if not numbers:
            return 0
        slot = self._keys.transitions.slot
        return int(self._link.write([Command.of(FORGET, slot, keys, *numbers)])[0])

    def _numbers(self, owner: str) -> list[int]:
        place = self._keys.transitions
        (numbers,) = self._link.read([Command(place.slot, ("LRANGE", place("of", owner), 0, -1))])
        return [int(number) for number in numbers]

    def _entries(self, after: int, limit: int) -> list[_Entry]:
        words = ("XRANGE", self._log, f"({after}-0", "+", "COUNT", limit)
        (raw,) = self._link.read([Command(self._keys.transitions.slot, words)])
        return [_Entry.of(one) for one in raw]

    def _take(self, numbers: Iterable[int], patient: bool = True) -> bool:
        """Take what lies in some outboxes into the log; whether there was anything.

        It stays in the outbox until the next time, when it is on a replica of the log too.
        """
        some = sorted(numbers)
        slot = self._keys.transitions.slot
        anything = False
        while some:
            places = [self._keys.partitions[n] for n in some]
            words = ("-", "+", "COUNT", TAKEN_AT_ONCE)
            boxes = self._link.read(
                [Command(place.slot, ("XRANGE", place("outbox"), *words)) for place in places]
            )
            filled = {
                n: list(map(_Entry.of, box)) for n, box in zip(some, boxes, strict=True) if box
            }
            if not filled:
                break
            (reached,) = self._link.read([Command(slot, ("HMGET", self._taken, *filled))])
            taking, clearing = [], []
            for (n, box), until in zip(filled.items(), reached, strict=True):
                fresh = [one for one in box if until is None or _order(one.id) > _order(until)]
                if fresh:
                    taking.append(self._taking(n, until or b"", fresh))
                if done := [one.id for one in box[: len(box) - len(fresh)]]:
                    place = self._keys.partitions[n]
                    clearing.append(Command(place.slot, ("XDEL", place("outbox"), *done)))
            self._link.write(taking, patient)
            self._link.write(clearing, patient)
            anything = anything or bool(taking)
            some = [n for n, box in filled.items() if len(box) == TAKEN_AT_ONCE]
        return anything

    def _taking(self, number: int, came: bytes, fresh: Sequence[_Entry]) -> Command:
        place = self._keys.transitions
        keys = [self._log, self._taken, *(place("of", one.owner) for one in fresh)]
        words: list[Word] = [number, came, fresh[-1].id]
        for one in fresh:
            words += [one.owner, one.written_us, one.sealed]
        return Command.of(TAKE, place.slot, keys, *words)


def _order(entry_id: bytes) -> tuple[int, int]:
    """What the ids of a stream are ordered by."""
    moment, _, n = entry_id.partition(b"-")
    return int(moment), int(n)
