"""Memory traces: for each interest of a user, a bank of decayed sums of its events.

What a trace is and how it is merged says ``ebbing.interest.bank``; here are the traces of all
interests of one user, beside each other.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ebbing.interest.bank import (
    BANK_SIZE,
    PERIOD_S,
    Row,
    decay,
    event_row,
    merge_rows,
    period_start,
)
from ebbing.interest.occasions import LEVELS

__all__ = ["TOTAL", "Event", "TraceTable", "parent_of"]

Floats = NDArray[np.float64]
Kind = TypeVar("Kind", bound=np.generic)

TOTAL = ""
"""Name of the row that sums all events of the user; no interest has an empty name."""

Event = tuple[float, float, Iterable[tuple[str, float]]]
"""Time in seconds since the epoch, weight > 0, interests as (name, share > 0)."""


def parent_of(path: str) -> str:
    """The first component of a path: ``sports`` of ``sports/football``."""
    return path.partition("/")[0]


def _grown(part: NDArray[Kind], more: int) -> NDArray[Kind]:
    """A copy with room for more rows, which are left to be set."""
    n = len(part)
    grown = np.empty((n + more, part.shape[1]), part.dtype)
    grown[:n] = part
    return grown


@dataclass(frozen=True, eq=False, slots=True)
class TraceTable:
    """The traces of one user over named interests; immutable.

    Row 0 is the sum over all events of the user (name ``""``); the others are interests in the
    order of their first appearance.
    """

    rows: tuple[str, ...]
    """Row names, ``""`` first."""
    open_sums: Floats
    """(N+1, R) sums of the events in the newest event's period, as of that event."""
    closed_sums: Floats
    """(N+1, R) sums of the events before that period, as of the period's start."""
    times: Floats
    """(N+1, 3) count, first and last event time, seconds since the epoch."""
    occasion_maps: NDArray[np.uint64]
    """(N+1, LEVELS) bitmaps of when each row was engaged; see ``ebbing.interest.occasions``."""
    index: dict[str, int] = field(repr=False)
    """Row number of each name; derived from ``rows``."""

    @classmethod
    def of(
        cls,
        rows: tuple[str, ...],
        open_sums: Floats,
        closed_sums: Floats,
        times: Floats,
        occasion_maps: NDArray[np.uint64],
    ) -> TraceTable:
        """A table of given parts, as a codec reads them back."""
        index = {name: i for i, name in enumerate(rows)}
        return cls(rows, open_sums, closed_sums, times, occasion_maps, index)

    @classmethod
    def empty(cls) -> TraceTable:
        """The table of a user without events."""
        return cls.of(
            (),
            np.zeros((0, BANK_SIZE)),
            np.zeros((0, BANK_SIZE)),
            np.zeros((0, 3)),
            np.zeros((0, LEVELS), np.uint64),
        )

    @classmethod
    def from_events(cls, events: Iterable[Event]) -> TraceTable:
        """The table of a set of events, each (time, weight, interests); see ``add_all``."""
        return cls.empty().add_all(events)

    def add(
        self, interests: Iterable[tuple[str, float]], time: float, weight: float = 1.0
    ) -> TraceTable:
        """The table with one more event; see ``add_all``."""
        return self.add_all([(time, weight, interests)])

    def add_all(self, events: Iterable[Event]) -> TraceTable:
        """The table with more events, in any order.

        Raises:
            ValueError: a time is not finite, or a weight or share is not a finite number above 0.
        """
        rows: dict[str, Row] = {}
        for time, weight, interests in events:
            if not math.isfinite(time):
                raise ValueError(f"event time {time} is not finite")
            for name, share in ((TOTAL, 1.0), *interests):
                amount = weight * share
                if not 0.0 < amount < float("inf"):
                    raise ValueError(f"weight {amount} of {name!r} is not a finite number above 0")
                event = event_row(time, amount)
                known = rows.get(name) or self._row(name)
                rows[name] = merge_rows(known, event) if known else event
        return self._with_rows(rows)

    def withdraw(self, event: Event, remaining: Iterable[Event]) -> TraceTable:
        """The table without one event that it holds; an interest left with none vanishes.

        The rows of the event are summed anew. Subtracting it would do for their counts alone: first
        and last time and the occasions are not linear, and of a sum over fast rates, where one
        event may outweigh all others by any factor, nothing right would be left.

        Args:
            event: the event, (time, weight, interests).
            remaining: the user's other events, in any order, as the log has them.

        Raises:
            ValueError: the table cannot hold the event (an interest is unknown, or the time is
                outside its first and last), or the remaining events are not what it holds besides.
        """
        time, _, interests = event
        own = Counter([TOTAL, *(name for name, _ in interests)])
        spans = {name: self._span(name) for name in own}
        for name, (first, last) in spans.items():
            if not first <= time <= last:
                raise ValueError(f"no event at {time} in the traces of {name!r}")

        # An interest that was dropped at the cap and came back holds less than the log does.
        def held(name: str, moment: float) -> bool:
            return name in spans and spans[name][0] <= moment <= spans[name][1]

        others = TraceTable.from_events(
            (moment, weight, [pair for pair in pairs if held(pair[0], moment)])
            for moment, weight, pairs in remaining
        )
        for name, times in own.items():
            row = others._row(name)
            left, found = self.times[self.index[name], 0] - times, row.events if row else 0.0
            if left != found:
                raise ValueError(f"{found:g} events of {name!r} remain where {left:g} should")
        if not others.rows:
            return others
        kept = self.without(name for name in own if name not in others.index)
        return kept._with_rows(dict(others._iter_rows()))

    def merge(self, other: TraceTable) -> TraceTable:
        """The table of the events of both, which must have no event in common."""
        merged = {}
        for name, row in other._iter_rows():
            known = self._row(name)
            merged[name] = merge_rows(known, row) if known else row
        return self._with_rows(merged)

    def roll_up(self) -> TraceTable:
        """The table over the first path components: ``sports/football`` counts for ``sports``.

        An event with two interests under one parent counts twice there.
        """
        rolled: dict[str, Row] = {}
        for name, row in self._iter_rows():
            parent = parent_of(name)
            rolled[parent] = merge_rows(rolled[parent], row) if parent in rolled else row
        return TraceTable.empty()._with_rows(rolled)

    def without(self, names: Iterable[str]) -> TraceTable:
        """The table with some interests left out (the cap on interests per user)."""
        gone = set(names)
        keep = np.array([n not in gone for n in self.rows], bool)
        return TraceTable.of(
            tuple(n for n in self.rows if n not in gone),
            self.open_sums[keep],
            self.closed_sums[keep],
            self.times[keep],
            self.occasion_maps[keep],
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the N interests."""
        return self.rows[1:]

    @property
    def count(self) -> Floats:
        """Events of each interest, (N,)."""
        return self.times[1:, 0]

    @property
    def first(self) -> Floats:
        """Time of each interest's first event, (N,), seconds since the epoch."""
        return self.times[1:, 1]

    @property
    def last(self) -> Floats:
        """Time of each interest's newest event, (N,), seconds since the epoch."""
        return self.times[1:, 2]

    @property
    def occasions(self) -> NDArray[np.uint64]:
        """Bitmaps of when each interest was engaged, (N, LEVELS)."""
        return self.occasion_maps[1:]

    @property
    def event_count(self) -> int:
        """Events of the user that left a trace."""
        return int(self.times[0, 0]) if self.rows else 0

    @property
    def span(self) -> tuple[float, float]:
        """First and newest event time of the user, seconds; (inf, −inf) without events."""
        return self._span(TOTAL)

    @property
    def own_sums(self) -> Floats:
        """Decayed sums of each row as of its own newest event, (N+1, R), the user's total first."""
        last = self.times[:, 2]
        since = last - np.floor(last / PERIOD_S) * PERIOD_S
        return self.open_sums + self.closed_sums * decay(since)

    def bank(self, at: float) -> Floats:
        """Decayed sums of each interest at ``at``, (N, R).

        Raises:
            ValueError: ``at`` is before the user's newest event.
        """
        return self._bank(at)[1:]

    def total_bank(self, at: float) -> Floats:
        """Decayed sums over all events of the user at ``at``, (R,); zeros without events."""
        return self._bank(at, 1)[0] if self.rows else np.zeros(BANK_SIZE)

    def bank_before_period(self, at: float) -> Floats:
        """Decayed sums as of the start of ``at``'s period, of the events before it, (N, R).

        Raises:
            ValueError: ``at`` is before the user's newest event.
        """
        self._check(at)
        start = period_start(at)
        last = self.times[:, 2]
        starts = np.floor(last / PERIOD_S) * PERIOD_S
        within = last >= start
        carried = self.closed_sums * decay(np.maximum(start - starts, 0.0))
        carried += np.where(
            within[:, None], 0.0, self.open_sums * decay(np.maximum(start - last, 0.0))
        )
        return carried[1:]

    def _bank(self, at: float, rows: int | None = None) -> Floats:
        """Decayed sums of the first rows, or of all."""
        self._check(at)
        last = self.times[:rows, 2]
        starts = np.floor(last / PERIOD_S) * PERIOD_S
        opened = self.open_sums[:rows] * decay(at - last)
        return opened + self.closed_sums[:rows] * decay(at - starts)

    def _check(self, at: float) -> None:
        newest = self.span[1]
        if not at >= newest:
            raise ValueError(f"{at} is before the newest event, {newest}")

    def _span(self, name: str) -> tuple[float, float]:
        i = self.index.get(name)
        if i is None:
            return math.inf, -math.inf
        first, last = self.times[i, 1:].tolist()
        return first, last

    def _row(self, name: str) -> Row | None:
        i = self.index.get(name)
        if i is None:
            return None
        events, first, last = self.times[i].tolist()
        occasions = tuple(self.occasion_maps[i].tolist())
        return Row(self.open_sums[i], self.closed_sums[i], events, first, last, occasions)

    def _iter_rows(self) -> Iterator[tuple[str, Row]]:
        for name in self.rows:
            row = self._row(name)
            assert row is not None
            yield name, row

    def _with_rows(self, changed: dict[str, Row]) -> TraceTable:
        """The table with some rows replaced or added."""
        if not changed:
            return self
        new = tuple(name for name in changed if name not in self.index)
        n, more = len(self.rows), len(new)
        index = {**self.index, **{name: n + i for i, name in enumerate(new)}} if new else self.index
        opened, closed = _grown(self.open_sums, more), _grown(self.closed_sums, more)
        times, maps = _grown(self.times, more), _grown(self.occasion_maps, more)
        for name, row in changed.items():
            i = index[name]
            opened[i], closed[i], times[i], maps[i] = row.open, row.closed, row[2:5], row.occasions
        return TraceTable(self.rows + new, opened, closed, times, maps, index)
