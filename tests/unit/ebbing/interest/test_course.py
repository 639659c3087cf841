"""The course of a user's interests: traces along ascending moments, each event taken in once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ebbing.interest.course import Course, course
from ebbing.interest.trace import Event, TraceTable

EVENTS: list[Event] = [(float(t), 1.0, [(f"a/{t % 3}", 1.0)]) for t in (0, 1, 1, 2, 5, 8)]


def counts(moments: list[float]) -> list[int]:
    return [table.event_count for table in course(EVENTS, moments)]


def test_each_moment_has_the_events_up_to_it() -> None:
    assert counts([-1.0, 0.0, 0.5, 1.0, 1.0, 7.9, 8.0, 1e9]) == [0, 1, 1, 3, 3, 5, 6, 6]


def test_no_moments_no_tables() -> None:
    assert counts([]) == []


def test_moments_must_ascend() -> None:
    with pytest.raises(ValueError, match="ascend"):
        counts([1.0, 0.5])


def test_without_events_there_are_no_interests() -> None:
    (table,) = course([], [5.0])
    assert table.names == ()


def test_tables_given_out_stay_as_they_were() -> None:
    early, late = course(EVENTS, [1.0, 8.0])
    assert (early.event_count, late.event_count) == (3, 6)
    assert early.span == (0.0, 1.0)


def test_events_are_read_only_as_far_as_needed() -> None:
    read = []

    def events() -> Iterator[Event]:
        for event in EVENTS:
            read.append(event[0])
            yield event

    next(course(events(), [1.0]))
    assert read == [0.0, 1.0, 1.0, 2.0]


def test_a_course_goes_on_in_small_steps() -> None:
    going = Course(EVENTS)
    steps = [going.table.event_count]
    while going.advance(5.0, 2):
        steps.append(going.table.event_count)
    assert steps == [0, 2, 4]
    assert going.table.event_count == 5
    assert not going.advance(5.0, 2)
    assert going.advance(8.0, 0)
    assert not going.advance(8.0)
    assert going.table.event_count == 6


def test_a_bad_event_is_refused() -> None:
    with pytest.raises(ValueError, match="weight"):
        list(course([(0.0, -1.0, [("a", 1.0)])], [1.0]))


def test_the_last_table_is_that_of_all_events() -> None:
    (table,) = course(EVENTS, [100.0])
    whole = TraceTable.from_events(EVENTS)
    assert table.names == whole.names
    assert (table.bank(100.0) == whole.bank(100.0)).all()
