"""What a run was trained on, so that nothing of it can be mistaken for a test.

Every event has a mark, 64 bits of its user, item and time. A run keeps the marks of its training
events, or of the smallest ones of a large log: those are a random sample of them (a bottom-k
sketch: Cohen & Kaplan 2007), the same one of tests, and a test among them was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ebbing.history import item_keys
from trainer.data.log import EventLog

MOST_MARKS = 2**20
"""Marks a run keeps at most: 8 MiB."""


@dataclass(frozen=True)
class Trained:
    """The marks of training events."""

    marks: np.ndarray
    """(M,) uint64, ascending, each once."""
    all: bool
    """Whether they are the marks of all events, or only of the smallest."""

    @classmethod
    def on(cls, log: EventLog) -> Trained:
        """Of every event of a log."""
        marks = np.unique(marks_of(log))
        return cls(marks[:MOST_MARKS], len(marks) <= MOST_MARKS)

    def write(self, path: Path) -> None:
        """Write it as a NumPy file."""
        np.save(path, np.append(self.marks, np.uint64(self.all)), allow_pickle=False)

    @classmethod
    def read(cls, path: Path) -> Trained:
        """Read it back.

        Raises:
            OSError, ValueError: the file is missing, or other than `write` writes.
        """
        written = np.load(path, allow_pickle=False)
        if written.dtype != np.uint64 or written.ndim != 1 or len(written) < 2:
            raise ValueError("not the marks of training events")
        return cls(written[:-1], bool(written[-1]))

    def joined(self, other: Trained) -> Trained:
        """Those of both; a sample where either is one, as far as both tell."""
        ends = [one.marks[-1] for one in (self, other) if not one.all]
        marks = np.union1d(self.marks, other.marks)
        if ends:
            marks = marks[marks <= min(ends)]
        return Trained(marks[:MOST_MARKS], not ends and len(marks) <= MOST_MARKS)

    def among(self, log: EventLog, events: np.ndarray) -> tuple[int, int]:
        """How many events of a log were trained on, and of how many that is known."""
        marks = marks_of(log)[events]
        told = marks if self.all else marks[marks <= self.marks[-1]]
        return int(np.isin(told, self.marks).sum()), len(told)

    def knows(self, log: EventLog) -> np.ndarray:
        """(E,) bool: events of a log that were trained on, as far as the marks tell."""
        return np.isin(marks_of(log), self.marks)


def marks_of(log: EventLog) -> np.ndarray:
    """(E,) uint64 mark of each event; what a user does twice in one moment has two."""
    marks = np.zeros(len(log), np.uint64)
    for part in (
        item_keys(log.user_ids)[log.users],
        item_keys(log.item_ids)[log.items],
        log.times.astype(np.float64),
    ):
        marks = _mixed(marks ^ part.view(np.uint64))
    order = np.argsort(marks, kind="stable")
    first = np.diff(marks[order], prepend=~marks[order[:1]]) != 0
    position = np.arange(len(marks))
    again = np.empty(len(marks), np.uint64)
    again[order] = position - np.maximum.accumulate(np.where(first, position, 0))
    return _mixed(marks + again)


def _mixed(x: np.ndarray) -> np.ndarray:
    """A bijection of 64 bits that lets each change about half of the others (SplitMix64)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
