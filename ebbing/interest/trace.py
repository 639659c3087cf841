"""Memory traces: for each interest, a bank of exponentially decayed sums of its events.

``S_r(t) = Σ_events w · 2^(−(t−τ)/h_r)`` over a fixed geometric bank of half-lives ``h_r``. The
sums are linear in the events, so a trace is a function of the *set* of events, whatever their
order of arrival, and any completely monotone forgetting curve can be read off it afterwards
(Bernstein's theorem: such a curve is a non-negative mixture of exponentials).

Each trace is kept in two parts, so that the state before the current period stays readable (the
drift of the articles compares the two): ``closed`` sums the events before the period of the
newest event, as of that period's start; ``open`` sums those within it, as of the newest event.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "BANK_SIZE",
    "HALF_LIVES_S",
    "PERIOD_S",
    "TraceTable",
    "bank_sums",
    "period_start",
]

Floats = NDArray[np.float64]

BANK_SIZE = 10
HALF_LIVES_S: Floats = np.geomspace(3600.0, 2 * 365.25 * 86400.0, BANK_SIZE)
"""Half-lives of the bank in seconds: one hour to two years."""
HALF_LIVES_S.setflags(write=False)

PERIOD_S = 7 * 86400.0
"""Length of the period whose start separates I(u,t−1) from I(u,t), seconds."""

TOTAL = ""
"""Name of the row that sums all events of the user; no interest has an empty name."""


def period_start(time: float) -> float:
    """Start of the period that holds ``time``, both in seconds since the epoch."""
    return float(np.floor(time / PERIOD_S) * PERIOD_S)


def _decay(elapsed: ArrayLike) -> Floats:
    """Decay factors 2^(−elapsed/h) for elapsed seconds ≥ 0, shape (..., BANK_SIZE)."""
    factors: Floats = np.exp2(-np.asarray(elapsed, np.float64)[..., None] / HALF_LIVES_S)
    return factors


class _Row(NamedTuple):
    """The trace of one interest, taken out of a table."""

    open: Floats
    closed: Floats
    events: float
    first: float
    last: float
    previous: float


def _event_row(time: float, weight: float) -> _Row:
    """The trace of a single event; every trace is a merge of such rows."""
    return _Row(np.full(BANK_SIZE, weight), np.zeros(BANK_SIZE), 1.0, time, time, float("-inf"))


def _merge_rows(a: _Row, b: _Row) -> _Row:
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
    return _Row(
        opened,
        closed,
        a.events + b.events,
        min(a.first, b.first),
        a.last,
        max(a.previous, b.last),
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
    """(N+1, 4) count, first, last and previous event time, seconds; previous is −inf if none."""
    index: dict[str, int] = field(repr=False)
    """Row number of each name; derived from ``rows``."""

    @classmethod
    def of(
        cls, rows: tuple[str, ...], open_sums: Floats, closed_sums: Floats, times: Floats
    ) -> TraceTable:
        """A table of given parts, as a codec reads them back."""
        return cls(rows, open_sums, closed_sums, times, {n: i for i, n in enumerate(rows)})

    @classmethod
    def empty(cls) -> TraceTable:
        """The table of a user without events."""
        return cls.of((), np.zeros((0, BANK_SIZE)), np.zeros((0, BANK_SIZE)), np.zeros((0, 4)))

    @classmethod
    def from_events(
        cls, events: Iterable[tuple[float, float, Iterable[tuple[str, float]]]]
    ) -> TraceTable:
        """The table of a set of events, each (time, weight, interests); see ``add_all``."""
        return cls.empty().add_all(events)

    def add(
        self, interests: Iterable[tuple[str, float]], time: float, weight: float = 1.0
    ) -> TraceTable:
        """The table with one more event; see ``add_all``."""
        return self.add_all([(time, weight, interests)])

    def add_all(
        self, events: Iterable[tuple[float, float, Iterable[tuple[str, float]]]]
    ) -> TraceTable:
        """The table with more events, in any order.

        Args:
            events: (time in seconds since the epoch, weight > 0, interests as (name, share > 0)).

        Raises:
            ValueError: a time is not finite, or a weight or share is not a finite number above 0.
        """
        rows: dict[str, _Row] = {}
        for time, weight, interests in events:
            if not np.isfinite(time):
                raise ValueError(f"event time {time} is not finite")
            for name, share in ((TOTAL, 1.0), *interests):
                amount = weight * share
                if not 0.0 < amount < float("inf"):
                    raise ValueError(f"weight {amount} of {name!r} is not a finite number above 0")
                event = _event_row(time, amount)
                known = rows.get(name) or self._row(name)
                rows[name] = _merge_rows(known, event) if known else event
        return self._with_rows(rows)

    def merge(self, other: TraceTable) -> TraceTable:
        """The table of the events of both, which must have no event in common."""
        merged = {}
        for name, row in other._iter_rows():
            known = self._row(name)
            merged[name] = _merge_rows(known, row) if known else row
        return self._with_rows(merged)

    def roll_up(self) -> TraceTable:
        """The table over the first path components: ``sports/football`` counts for ``sports``.

        An event with two interests under one parent counts twice there.
        """
        rolled: dict[str, _Row] = {}
        for name, row in self._iter_rows():
            parent = name.partition("/")[0]
            rolled[parent] = _merge_rows(rolled[parent], row) if parent in rolled else row
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
    def previous(self) -> Floats:
        """Time of the event before the newest, (N,), seconds; −inf where there is none."""
        return self.times[1:, 3]

    @property
    def event_count(self) -> int:
        """Events of the user that left a trace."""
        return int(self.times[0, 0]) if self.rows else 0

    @property
    def span(self) -> tuple[float, float]:
        """First and newest event time of the user, seconds; (inf, −inf) without events."""
        if not self.rows:
            return float("inf"), float("-inf")
        return float(self.times[0, 1]), float(self.times[0, 2])

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

    def _row(self, name: str) -> _Row | None:
        i = self.index.get(name)
        if i is None:
            return None
        return _Row(self.open_sums[i], self.closed_sums[i], *self.times[i].tolist())

    def _iter_rows(self) -> Iterator[tuple[str, _Row]]:
        for name in self.rows:
            row = self._row(name)
            assert row is not None
            yield name, row

    def _with_rows(self, changed: dict[str, _Row]) -> TraceTable:
        """The table with some rows replaced or added."""
        if not changed:
            return self
        new = tuple(name for name in changed if name not in self.index)
        n = len(self.rows)
        opened = np.concatenate([self.open_sums, np.empty((len(new), BANK_SIZE))])
        closed = np.concatenate([self.closed_sums, np.empty((len(new), BANK_SIZE))])
        times = np.concatenate([self.times, np.empty((len(new), 4))])
        index = {**self.index, **{name: n + i for i, name in enumerate(new)}}
        for name, row in changed.items():
            i = index[name]
            opened[i], closed[i], times[i] = row.open, row.closed, row[2:]
        return TraceTable(self.rows + new, opened, closed, times, index)


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
