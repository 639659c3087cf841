"""The state of a user as bytes: what an event changes in it, and what it tells.

An interest of few events is kept as these events themselves, which takes less room than its sums
and is exact; one of more is kept as its sums. An event changes the rows of its own interests and
leaves all others as they are, unread.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ebbing.history import HISTORY_LENGTH
from ebbing.interest.profile import weakest_first
from ebbing.interest.trace import TOTAL, TraceTable
from server.state.rows import (
    LENGTHS,
    Event,
    counted,
    counted_one_each,
    is_summed,
    read_rows,
    require_weight,
)
from server.state.store import History, Interaction, UserState

__all__ = [
    "Bounds",
    "Growth",
    "Logged",
    "advanced",
    "advanced_all",
    "decode",
    "decode_all",
    "same",
]

VERSION = 4
ALARM_BYTES = 192
"""Room for what is stored of a user besides state and what was told: name, alarm and seals."""

_HEADER = struct.Struct("<BHIB")
"""Version, rows, bytes of names, entries of history."""
_ENTRY = struct.Struct("<qqB")
"""Time in microseconds, item key, event type."""
_ENTRIES = np.dtype([("time", "<i8"), ("key", "<i8"), ("type", "u1")])

Logged = Callable[[], Iterable[Interaction]]
"""Reads a user's newest ``HISTORY_LENGTH`` engagements with items from the log."""


@dataclass(frozen=True)
class Bounds:
    """How much is kept of a user; over either the weakest long-term interests go."""

    max_interests: int
    max_bytes: int
    """Bytes of state, of what is told of it and of its alarm."""


class Growth(NamedTuple):
    """A state, and what is to be counted in it."""

    data: bytes | None
    """The state before; None for a user without events."""
    interactions: Sequence[Interaction]
    """New ones, in any order, none of them counted in ``data``."""
    logged: Logged
    """Is asked only where times do not tell the order of the history."""


def advanced(
    data: bytes | None, interactions: Sequence[Interaction], bounds: Bounds, logged: Logged
) -> bytes:
    """The state after more interactions of its user; see ``Growth``.

    Raises:
        ValueError: ``data`` is no state.
    """
    return advanced_all([Growth(data, interactions, logged)], bounds)[0]


def advanced_all(growths: Sequence[Growth], bounds: Bounds) -> list[bytes]:
    """States after more interactions, which costs less together than one by one.

    Args:
        growths: of different users.
        bounds: how much is kept of each.

    Raises:
        ValueError: one of them is no state, or an interaction cannot be counted.
    """
    drafts = [_Draft.of(one.data) for one in growths]
    waiting: list[_Waiting] = []
    for draft, (_, interactions, logged) in zip(drafts, growths, strict=True):
        changed: dict[str, list[Event]] = {}
        entries = []
        for one in interactions:
            weight = one.weight
            if not weight:
                continue
            time = one.time_us / 1e6
            for name, share in ((TOTAL, 1.0), *one.interests):
                if name in changed:
                    changed[name].append((time, weight * share))
                else:
                    changed[name] = [(time, weight * share)]
            if one.item_key:
                entries.append(one)
        for name, events in changed.items():
            draft.add(name, events, waiting)
        if entries:
            draft.remember(entries, logged)
    found = counted_one_each([one[5] for one in waiting], [one[4] for one in waiting])
    for (draft, i, start, end, _, _), (kind, row) in zip(waiting, found, strict=True):
        draft.kinds[i] = kind
        draft.changed.append((start, end, row))
    return [_within(bounds, draft.encode()) for draft in drafts]


def decode(data: bytes) -> UserState:
    """What a state tells.

    Raises:
        ValueError: ``data`` is no state.
    """
    return decode_all([data])[0]


def decode_all(states: Sequence[bytes]) -> list[UserState]:
    """What states tell, which costs much less together than one by one.

    Raises:
        ValueError: one of them is no state.
    """
    if not states:
        return []
    parts = [_Parts.of(data) for data in states]
    opened, closed, times, maps = read_rows(
        np.concatenate([one.kinds for one in parts]), np.concatenate([one.numbers for one in parts])
    )
    ends = list(accumulate((len(one.names) for one in parts), initial=0))
    return [
        UserState(
            TraceTable.of(tuple(one.names), opened[a:b], closed[a:b], times[a:b], maps[a:b]),
            one.history,
        )
        for one, (a, b) in zip(parts, pairwise(ends), strict=True)
    ]


def same(one: bytes, other: bytes, tolerance: float = 1e-9) -> bool:
    """Whether two states tell the same, whatever the order of their interests."""
    (a, a_history), (b, b_history) = decode(one), decode(other)
    if set(a.rows) != set(b.rows):
        return False
    order = [b.index[name] for name in a.rows]
    return (
        np.array_equal(a_history.keys, b_history.keys)
        and np.array_equal(a_history.times, b_history.times)
        and np.array_equal(a_history.types, b_history.types)
        and np.array_equal(a.times, b.times[order])
        and np.array_equal(a.occasion_maps, b.occasion_maps[order])
        and np.allclose(a.open_sums, b.open_sums[order], rtol=tolerance, atol=1e-300)
        and np.allclose(a.closed_sums, b.closed_sums[order], rtol=tolerance, atol=1e-300)
    )


def _header(data: bytes) -> tuple[int, int, int]:
    if len(data) < _HEADER.size:
        raise ValueError(f"{len(data)} bytes are no state")
    version, n, name_bytes, remembered = _HEADER.unpack_from(data)
    if version != VERSION:
        raise ValueError(f"a state of version {version}, this code reads {VERSION}")
    return n, name_bytes, remembered


def _require_names(text: bytes, n: int) -> None:
    """Each name ends with a NUL. The total comes first, and has none."""
    if text.count(b"\0") != n or text[:1] != b"\0"[:n]:
        raise ValueError(f"not the names of {n} rows of a state")


class _Parts(NamedTuple):
    """A state taken apart, to be read."""

    names: list[str]
    kinds: NDArray[np.uint8]
    numbers: NDArray[np.float64]
    history: History

    @classmethod
    def of(cls, data: bytes) -> _Parts:
        n, name_bytes, remembered = _header(data)
        at = _HEADER.size + name_bytes
        _require_names(text := data[_HEADER.size : at], n)
        names = text.decode().split("\0")[:n]
        count = sum(data[at : at + n].translate(LENGTHS))
        end = at + n + 8 * count
        if len(data) != end + remembered * _ENTRY.size:
            raise ValueError(f"{len(data)} bytes are another state than their header says")
        entries = np.frombuffer(data, _ENTRIES, remembered, end)
        history = History(
            entries["key"].astype(np.int64),
            entries["time"] / 1e6,
            entries["type"].astype(np.int32),
        )
        kinds = np.frombuffer(data, np.uint8, n, at)
        return cls(names, kinds, np.frombuffer(data, "<f8", count, at + n), history)


_Waiting = tuple["_Draft", int, int, int, Event, bytes]
"""An event that is to be counted in a row that holds sums: whose, which, its place, event, row."""


@dataclass(slots=True)
class _Draft:
    """A state that is changed: what is as it was, is taken over without being looked at."""

    data: bytes
    """As it was."""
    names: bytes
    kinds: bytearray
    lengths: bytes
    """Numbers of 8 bytes in each row of ``data``."""
    start: int
    """Where in ``data`` the rows begin."""
    end: int
    """Where they end."""
    history: bytes
    changed: list[tuple[int, int, bytes]]
    """Rows that are others now: where in ``data`` each was, and what it is."""
    added: list[bytes]
    """Rows that are new."""

    @classmethod
    def of(cls, data: bytes | None) -> _Draft:
        if data is None:
            return cls(b"", b"", bytearray(), b"", 0, 0, b"", [], [])
        n, name_bytes, remembered = _header(data)
        at = _HEADER.size + name_bytes
        _require_names(names := data[_HEADER.size : at], n)
        kinds = bytearray(data[at : at + n])
        lengths = bytes(kinds).translate(LENGTHS)
        start = at + n
        end = start + 8 * sum(lengths)
        history = data[end:]
        if len(history) != remembered * _ENTRY.size:
            raise ValueError(f"{len(data)} bytes are another state than their header says")
        return cls(data, names, kinds, lengths, start, end, history, [], [])

    def encode(self) -> bytes:
        names, history = self.names, self.history
        header = _HEADER.pack(VERSION, len(self.kinds), len(names), len(history) // _ENTRY.size)
        parts: list[bytes | bytearray] = [header, names, self.kinds]
        at = self.start
        for start, end, row in sorted(self.changed):
            parts += (self.data[at:start], row)
            at = end
        return b"".join((*parts, self.data[at : self.end], *self.added, history))

    def place(self, i: int) -> tuple[int, int]:
        """Where a row begins and ends."""
        start = self.start + 8 * sum(self.lengths[:i])
        return start, start + 8 * self.lengths[i]

    def add(self, name: str, events: list[Event], waiting: list[_Waiting]) -> None:
        """Count events for a row, for none twice; or have them wait to be counted with others."""
        kinds = self.kinds
        if name:
            # Counting the ends of names before it tells its row, and takes no list of them.
            key = b"\0%b\0" % name.encode()
            at = self.names.find(key)
            i = self.names.count(b"\0", 0, at + 1) if at >= 0 else len(kinds)
        else:
            key, i = b"\0\0", 0
        try:
            if i == len(kinds):
                kind, row = counted(1, b"", events)
                self.names += key[1:]
                kinds.append(kind)
                self.added.append(row)
                return
            start, end = self.place(i)
            row = self.data[start:end]
            if len(events) == 1 and is_summed(kinds[i]):
                waiting.append((self, i, start, end, require_weight(events[0]), row))
            else:
                kinds[i], row = counted(kinds[i], row, events)
                self.changed.append((start, end, row))
        except ValueError as error:
            raise ValueError(f"{name!r}: {error}") from error

    def remember(self, new: list[Interaction], logged: Logged) -> None:
        """Take engagements with items into the history."""
        known = self.history
        if len(new) == 1:
            (one,) = new
            if not known or one.time_us > _ENTRY.unpack_from(known, len(known) - _ENTRY.size)[0]:
                self.history = (known + _entry(one))[-HISTORY_LENGTH * _ENTRY.size :]
                return
        new = sorted(new, key=_order)[-HISTORY_LENGTH:]
        held = list(_ENTRY.iter_unpack(known))
        times = {one.time_us for one in new}
        if times.isdisjoint(time for time, _, _ in held):
            merged = sorted([*held, *(_as_entry(one) for one in new)], key=lambda entry: entry[0])
        else:
            # Events of one moment are in the order of their ids, which the history does not hold.
            every = {one.event_id: one for one in (*logged(), *new)}
            merged = [_as_entry(one) for one in sorted(every.values(), key=_order)]
        self.history = b"".join(_ENTRY.pack(*entry) for entry in merged[-HISTORY_LENGTH:])


def _within(bounds: Bounds, data: bytes) -> bytes:
    """A state without the weakest interests, as many as are over the bounds."""
    n, name_bytes, _ = _header(data)
    surplus = n - 1 - bounds.max_interests
    # What is told of a user names the interests once more, a byte each besides.
    excess = len(data) + name_bytes + n + ALARM_BYTES - bounds.max_bytes
    if surplus <= 0 and excess <= 0:
        return data
    whole, table = _Draft.of(data), decode(data).traces
    gone: set[int] = set()
    for weak in weakest_first(table)[:-1]:
        if len(gone) >= surplus and excess <= 0:
            break
        gone.add(i := 1 + weak)
        start, end = whole.place(i)
        excess -= end - start + 2 + 2 * (len(table.rows[i].encode()) + 1)
    keep = [i for i in range(n) if i not in gone]
    names = "".join(f"{table.rows[i]}\0" for i in keep).encode()
    header = _HEADER.pack(VERSION, len(keep), len(names), len(whole.history) // _ENTRY.size)
    rows = (data[slice(*whole.place(i))] for i in keep)
    return b"".join((header, names, bytes(whole.kinds[i] for i in keep), *rows, whole.history))


def _order(one: Interaction) -> tuple[int, str]:
    return one.time_us, one.event_id


def _as_entry(one: Interaction) -> tuple[int, int, int]:
    return one.time_us, one.item_key, one.event_type


def _entry(one: Interaction) -> bytes:
    return _ENTRY.pack(*_as_entry(one))
