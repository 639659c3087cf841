"""Memory traces: for each interest, a bank of exponentially decayed sums of its events.

``S_r(t) = Σ_events w · 2^(−(t−τ)/h_r)`` over a fixed geometric bank of half-lives ``h_r``. The
sums are linear in the events, so a trace is a function of the *set* of events, whatever their
order of arrival, and any completely monotone forgetting curve can be read off it afterwards
(Bernstein's theorem: such a curve is a non-negative mixture of exponentials).

Each trace is kept in two parts, so that the state before the current period stays readable (the
drift of the articles compares the two): ``closed`` sums the events before the period of the
newest event, as of that period's start; ``open`` sums those within it, as of the newest event.

Beside its sums a trace keeps how many events there were, the first and the newest time, and the
ladder of its occasions (``ebbing.interest.occasions``): all of them functions of the set too.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ebbing.interest.occasions import LEVELS, Ladder, ladder, merge, occasion_maps, single

__all__ = [
    "BANK_SIZE",
    "HALF_LIVES_S",
    "PERIOD_S",
    "Event",
    "Row",
    "TraceTable",
    "bank_sums",
    "event_row",
    "events_row",
    "merge_rows",
    "parent_of",
    "period_start",
    "trace_rows",
]

Floats = NDArray[np.float64]
Kind = TypeVar("Kind", bound=np.generic)

BANK_SIZE = 10
HALF_LIVES_S: Floats = np.geomspace(24 * 60.0, 6.5 * 365.25 * 86400.0, BANK_SIZE)
"""Half-lives of the bank in seconds: 24 minutes to six and a half years. Of all geometric banks of
this size, the one whose mixtures come nearest to every t^−d, d = .2 … 1, from an hour to two years
(``ebbing.interest.curves``)."""
HALF_LIVES_S.setflags(write=False)
_RATES: Floats = -1.0 / HALF_LIVES_S
_ONES: Floats = np.ones(BANK_SIZE)

PERIOD_S = 7 * 86400.0
"""Length of the period whose start separates I(u,t−1) from I(u,t), seconds."""

TOTAL = ""
"""Name of the row that sums all events of the user; no interest has an empty name."""

Event = tuple[float, float, Iterable[tuple[str, float]]]
"""Time in seconds since the epoch, weight > 0, interests as (name, share > 0)."""


def parent_of(path: str) -> str:
    """The first component of a path: ``sports`` of ``sports/football``."""
    return path.partition("/")[0]


def period_start(time: float) -> float:
    """Start of the period that holds ``time``, both in seconds since the epoch."""
    return math.floor(time / PERIOD_S) * PERIOD_S


def _decay(elapsed: ArrayLike) -> Floats:
    """Decay factors 2^(−elapsed/h) for elapsed seconds ≥ 0, shape (..., BANK_SIZE)."""
    factors: Floats = np.exp2(np.multiply.outer(elapsed, _RATES))
    return factors


def _grown(part: NDArray[Kind], more: int) -> NDArray[Kind]:
    """A copy with room for more rows, which are left to be set."""
    n = len(part)
    grown = np.empty((n + more, part.shape[1]), part.dtype)
    grown[:n] = part
    return grown


class Row(NamedTuple):
    """The trace of one interest, by itself."""

    open: Floats
    """(R,) sums of the events in the newest event's period, as of that event."""
    closed: Floats
    """(R,) sums of the events before that period, as of the period's start."""
    events: float
    first: float
    last: float
    occasions: Ladder


def event_row(time: float, weight: float) -> Row:
    """The trace of a single event; every trace is a merge of such rows."""
    return Row(_ONES * weight, np.zeros(BANK_SIZE), 1.0, time, time, single())


def events_row(times: Sequence[float], weights: Sequence[float]) -> Row:
    """The trace of one set of events, in ascending order of time; at least one."""
    first, last = times[0], times[-1]
    start = period_start(last)
    before = bisect_left(times, start)
    moments = np.array(times)
    moments[:before] -= start
    moments[before:] -= last
    decayed = np.array(weights)[:, None] * _decay(-moments)
    opened, closed = decayed[before:].sum(axis=0), decayed[:before].sum(axis=0)
    return Row(opened, closed, float(len(times)), first, last, ladder(times))


def merge_rows(a: Row, b: Row) -> Row:
    """The trace of the events of both, which must be disjoint."""
    if a.last < b.last:
        a, b = b, a
    start, older = period_start(a.last), period_start(b.last)
    if start == older:
        opened = a.open + b.open * _decay(a.last - b.last)
        closed = a.closed + b.closed
    else:
        opened = a.open
        closed = a.closed + b.closed * _decay(start - older) + b.open * _decay(start - b.last)
    return Row(
        opened,
        closed,
        a.events + b.events,
        min(a.first, b.first),
        a.last,
        merge(a.occasions, a.last, b.occasions, b.last),
    )


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
        return self.open_sums + self.closed_sums * _decay(since)

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
        carried = self.closed_sums * _decay(np.maximum(start - starts, 0.0))
        carried += np.where(
            within[:, None], 0.0, self.open_sums * _decay(np.maximum(start - last, 0.0))
        )
        return carried[1:]

    def _bank(self, at: float, rows: int | None = None) -> Floats:
        """Decayed sums of the first rows, or of all."""
        self._check(at)
        last = self.times[:rows, 2]
        starts = np.floor(last / PERIOD_S) * PERIOD_S
        opened = self.open_sums[:rows] * _decay(at - last)
        return opened + self.closed_sums[:rows] * _decay(at - starts)

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


def bank_sums(
    segments: ArrayLike, n_segments: int, times: ArrayLike, weights: ArrayLike, at: ArrayLike
) -> Floats:
    """Decayed sums of many event sets at once: the batch form of ``TraceTable.bank``.

    Args:
        segments: which set each event belongs to, (E,) integers in [0, n_segments).
        n_segments: number of sets.
        times: event times, (E,) seconds since the epoch, none after ``at``.
        weights: event weights, (E,).
        at: the moment asked for, a number or one per set, seconds since the epoch.

    Returns:
        (n_segments, BANK_SIZE) sums.
    """
    which = np.asarray(segments, np.intp)
    moments = np.broadcast_to(np.asarray(at, np.float64), (n_segments,))[which]
    elapsed = moments - np.asarray(times, np.float64)
    amounts = np.asarray(weights, np.float64)
    sums = np.empty((n_segments, BANK_SIZE))
    # One rate at a time: no (E, R) intermediate on millions of events.
    for r, half_life in enumerate(HALF_LIVES_S):
        sums[:, r] = np.bincount(
            which, amounts * np.exp2(-elapsed / half_life), minlength=n_segments
        )
    return sums


def trace_rows(
    sizes: ArrayLike, times: Floats, weights: Floats
) -> tuple[Floats, Floats, Floats, NDArray[np.uint64]]:
    """The traces of many event sets at once: the batch form of ``merge_rows`` and ``event_row``.

    Args:
        sizes: number of events of each of N sets, (N,) integers above 0.
        times: event times, one set after another and ascending within each, (E,) seconds.
        weights: event weights, (E,).

    Returns:
        What ``TraceTable.of`` takes besides names: open and closed sums, times, occasion maps.
    """
    counts = np.asarray(sizes, np.intp)
    n = len(counts)
    if not n:
        empty = np.zeros((0, BANK_SIZE))
        return empty, empty, np.zeros((0, 3)), np.zeros((0, LEVELS), np.uint64)
    ends = np.cumsum(counts)
    begins = ends - counts
    which = np.repeat(np.arange(n), counts)
    last = times[ends - 1]
    starts = np.floor(last / PERIOD_S) * PERIOD_S
    within = times >= starts[which]
    ages = np.where(within, last[which], starts[which]) - times
    decayed = weights[:, None] * _decay(ages)
    opened: Floats = np.add.reduceat(decayed * within[:, None], begins)
    closed: Floats = np.add.reduceat(decayed * ~within[:, None], begins)
    spans = np.array([counts, times[begins], last]).T
    return opened, closed, spans, occasion_maps(which, n, times)
