"""The course of a user's interests: their traces at one moment after another.

Each event is taken in once, so the course over many moments costs one pass over the events.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ebbing.interest.trace import Event, TraceTable

__all__ = ["Course", "course"]


class Course:
    """One user's traces as time goes on; it only ever goes forward."""

    def __init__(self, events: Iterable[Event]) -> None:
        """Start before the first event; ``events`` oldest first, read only as far as needed."""
        self.table = TraceTable.empty()
        """The traces of all events taken in so far."""
        self._events = iter(events)
        self._next = next(self._events, None)

    def advance(self, until: float, most: int | None = None) -> bool:
        """Take in the events up to ``until`` (seconds), at most so many of them.

        Returns:
            Whether more of them wait: callers that share a thread can go on in small steps.

        Raises:
            ValueError: an event is not one that ``TraceTable.add_all`` takes.
        """
        taken: list[Event] = []
        while self._next and self._next[0] <= until and len(taken) != most:
            taken.append(self._next)
            self._next = next(self._events, None)
        self.table = self.table.add_all(taken)
        return self._next is not None and self._next[0] <= until


def course(events: Iterable[Event], moments: Iterable[float]) -> Iterator[TraceTable]:
    """The traces at each of the moments (seconds, ascending), of the events up to it.

    At moments after the last event they are those of a forecast: nothing more comes.

    Raises:
        ValueError: a moment is before the one before it, or an event as in ``Course.advance``.
    """
    going = Course(events)
    before = float("-inf")
    for moment in moments:
        if moment < before:
            raise ValueError(f"moments must ascend: {moment} comes after {before}")
        before = moment
        going.advance(moment)
        yield going.table
