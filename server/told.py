"""What is told of a user's interests: which states have begun since they were told of last.

An interest that is left alone runs through a *course* of states, each of which begins at a moment
that its traces alone decide. So a change that happened because nothing happened has an exact
moment, however late it is looked for, and one that an event brought has the event's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Change", "Course", "Outlook", "Subject", "Told", "changes"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_HEADER = struct.Struct("<dH")
"""The moment, and the number of states."""


class Outlook(Protocol):
    """How N interests, of however many users, will stand if nothing more comes, by their quiet.

    Quiet is the time since an interest's newest event, seconds, (N,).
    """

    @property
    def last(self) -> Floats:
        """Time of each one's newest event, seconds since the epoch, (N,)."""
        ...

    def states(self, quiet_s: Floats) -> Integers:
        """Their states after so much quiet, (N,)."""
        ...

    def next_change_s(self, quiet_s: Floats) -> Floats:
        """The quiet after which each changes next, where the new state holds, (N,); inf: never."""
        ...


@dataclass(frozen=True, slots=True)
class Course:
    """The states that N interests have run through since their newest events, up to some moment."""

    begins: Floats
    """(K, N) when each state began, seconds since the epoch; inf where there are no more."""
    states: Integers
    """(K, N) the states."""
    next_change: Floats
    """(N,) when each changes next, seconds since the epoch; inf if never."""

    @property
    def present(self) -> Integers:
        """(N,) the states at the end."""
        held: Integers = self.states[self._length - 1, np.arange(self.begins.shape[1])]
        return held

    def steps(self, i: int, first: int) -> list[tuple[float, int]]:
        """When each state of interest ``i`` began, and the state, from the ``first`` one on."""
        rows = slice(first, self._length[i])
        return list(zip(self.begins[rows, i].tolist(), self.states[rows, i].tolist(), strict=True))

    @property
    def _length(self) -> Integers:
        length: Integers = np.isfinite(self.begins).sum(axis=0)
        return length

    @classmethod
    def of(cls, outlook: Outlook, until: Floats) -> Course:
        """The course of each up to ``until``, (N,), or to its newest event where that is later."""
        last = outlook.last
        ends = np.maximum(last, until)
        quiet = np.zeros(len(last))
        begins, states = [last], [outlook.states(quiet)]
        while True:
            following = outlook.next_change_s(quiet)
            changes_at = np.where(following > quiet, _first_microsecond(last + following), np.inf)
            reached = changes_at <= ends
            if not reached.any():
                return cls(np.array(begins), np.array(states), changes_at)
            quiet = np.where(reached, following, quiet)
            begins.append(np.where(reached, changes_at, np.inf))
            states.append(outlook.states(quiet))


def _first_microsecond(moments: Floats) -> Floats:
    """The microsecond from which on a state holds for whoever reckons with rounded numbers."""
    rounded: Floats = (np.ceil(moments * 1e6) + 1.0) / 1e6
    return rounded


@dataclass(frozen=True, slots=True)
class Told:
    """The states last told of a user's interests."""

    at: float
    """Up to when they were told, seconds since the epoch; −inf before the first time."""
    states: dict[str, int]
    """By path of the interest."""

    def encode(self) -> bytes:
        """Bytes of it: the moment, one byte a state, the paths."""
        names = "\0".join(self.states).encode()
        header = _HEADER.pack(self.at, len(self.states))
        return b"".join([header, bytes(self.states.values()), names])

    @classmethod
    def decode(cls, data: bytes) -> Told:
        """Read back ``encode``; in no bytes nothing was told yet."""
        if not data:
            return cls(float("-inf"), {})
        at, count = _HEADER.unpack_from(data)
        names = _HEADER.size + count
        states = data[_HEADER.size : names]
        return cls(at, dict(zip(data[names:].decode().split("\0"), states, strict=False)))


class Change(NamedTuple):
    """A change to tell."""

    interest: str
    from_state: int
    to_state: int
    time: float
    """When the new state began, seconds since the epoch."""
    number: int | None
    """Number of the interest among the user's; None if it is not kept any more."""


class Subject(NamedTuple):
    """A user that is told of."""

    names: Sequence[str]
    """Paths of the interests."""
    newest: float
    """Time of the newest event, seconds since the epoch."""
    told: Told
    """What was told last."""


def changes(subjects: Sequence[Subject], course: Course, forgotten: int) -> list[list[Change]]:
    """What has changed for each user since it was told, by the moments at which it did.

    Of an interest never told of, only where it stands now, and nothing at all if it is forgotten
    already: a history that is loaded is no news. Of one that is not kept any more, that it is
    forgotten as of the user's newest event, which took its place.

    Args:
        subjects: the users.
        course: of all their interests, one user after another, up to what is told of now.
        forgotten: number of the state FORGOTTEN.
    """
    counts = [len(one.names) for one in subjects]
    told_at = np.repeat([one.told.at for one in subjects], counts)
    before = np.array(
        [one.told.states.get(name, 0) for one in subjects for name in one.names], np.int64
    )
    begun = np.isfinite(course.begins)
    fresh = begun & (course.begins > told_at)
    # Where nothing is fresh yet, this is the state as of then, on the course known now: an event
    # that came late may have made it another than was told.
    base = np.maximum((begun & ~fresh).sum(axis=0) - 1, 0)
    differs = fresh.any(axis=0) | (course.states[base, np.arange(len(base))] != before)
    found: list[list[Change]] = []
    start = 0
    for one, count in zip(subjects, counts, strict=True):
        mine: list[Change] = []
        for i in (start + np.flatnonzero(differs[start : start + count])).tolist():
            steps = course.steps(i, base[i])
            if not before[i]:
                steps = [(time, state) for time, state in steps[-1:] if state != forgotten]
            number = i - start
            mine.extend(_chain(one.names[number], number, int(before[i]), steps))
        for name in sorted(one.told.states.keys() - set(one.names)):
            mine.extend(_chain(name, None, one.told.states[name], [(one.newest, forgotten)]))
        found.append(sorted(mine, key=lambda change: change.time))
        start += count
    return found


def _chain(
    name: str, number: int | None, state: int, steps: Iterable[tuple[float, int]]
) -> Iterator[Change]:
    for time, following in steps:
        if following != state:
            yield Change(name, state, following, time, number)
            state = following
