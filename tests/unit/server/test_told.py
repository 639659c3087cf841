"""What is told: the changes since the last time, with the moments at which they happened."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.told import Course, Subject, Told, changes
from tests.unit.server.fake_assess import ACTIVE, FADING, FORGOTTEN, FakeOutlook

NOTHING = Told(-math.inf, {})


def outlook(**last: float) -> FakeOutlook:
    """Interests by the moment of their newest event; they fade after 100 s, are gone after 200."""
    return FakeOutlook((), np.array([*last.values()], float), 100.0, 200.0)


def course_of(until: float, **last: float) -> Course:
    return Course.of(outlook(**last), np.full(len(last), until))


def subject(told: Told, **last: float) -> Subject:
    return Subject(tuple(last), max(last.values(), default=0.0), told)


def since(told: Told, until: float, **last: float) -> list[tuple[str, int, int, float]]:
    """Interest, from, to, moment of each change."""
    (found,) = changes([subject(told, **last)], course_of(until, **last), FORGOTTEN)
    for change in found:
        kept = None if change.number is None else tuple(last)[change.number]
        assert kept == (change.interest if change.interest in last else None)
    return [change[:4] for change in found]


def test_a_course_has_every_state_and_the_moment_it_began() -> None:
    course = course_of(1050.0, new=1000.0, fading=900.0, gone=0.0)
    inf = math.inf
    assert course.states[:, 2].tolist() == [ACTIVE, FADING, FORGOTTEN]
    assert course.begins.T.tolist() == [
        [1000.0, inf, inf],
        [900.0, 1000.0, inf],
        [0.0, 100.0, 200.0],
    ]
    assert course.present.tolist() == [ACTIVE, FADING, FORGOTTEN]
    assert course.next_change.tolist() == [1100.0, 1100.0, inf]


def test_the_course_of_nothing() -> None:
    assert course_of(1.0).present.tolist() == []
    assert since(NOTHING, 1.0) == []


def test_an_event_ahead_of_the_clock_has_its_state_from_its_own_time() -> None:
    course = course_of(1000.0, early=1030.0)
    assert course.begins.tolist() == [[1030.0]]
    assert course.present.tolist() == [ACTIVE]


@pytest.mark.parametrize("told", [NOTHING, Told(1e9, {"a": 2, "b/ü": 5}), Told(0.25, {"": 1})])
def test_what_was_told_reads_back(told: Told) -> None:
    assert Told.decode(told.encode()) == told


def test_hundreds_of_interests_read_back() -> None:
    told = Told(1.0, {f"interest {n}": n % 7 for n in range(1024)})
    assert Told.decode(told.encode()) == told
    assert Told.decode(b"") == NOTHING


def test_first_sight_tells_where_an_interest_stands() -> None:
    assert since(NOTHING, 1050.0, a=1000.0, b=900.0) == [
        ("a", 0, ACTIVE, 1000.0),
        ("b", 0, FADING, 1000.0),
    ]


def test_what_is_forgotten_at_first_sight_is_no_news() -> None:
    assert since(NOTHING, 1000.0, old=0.0) == []


def test_nothing_changed_nothing_told() -> None:
    assert since(Told(1010.0, {"a": ACTIVE}), 1050.0, a=1000.0) == []


def test_changes_missed_are_told_one_by_one_with_their_moments() -> None:
    told = Told(1010.0, {"a": ACTIVE, "b": ACTIVE})
    assert since(told, 5000.0, a=1000.0, b=950.0) == [
        ("b", ACTIVE, FADING, 1050.0),
        ("a", ACTIVE, FADING, 1100.0),
        ("b", FADING, FORGOTTEN, 1150.0),
        ("a", FADING, FORGOTTEN, 1200.0),
    ]


def test_a_change_is_told_once() -> None:
    assert since(Told(1110.0, {"a": FADING}), 1150.0, a=1000.0) == []
    assert since(Told(1100.0, {"a": FADING}), 1150.0, a=1000.0) == []


def test_an_event_brings_an_interest_back_at_its_own_time() -> None:
    told = Told(1500.0, {"a": FORGOTTEN, "b": FADING})
    assert since(told, 1600.0, a=1550.0, b=1440.0) == [
        ("b", FADING, ACTIVE, 1440.0),
        ("b", ACTIVE, FADING, 1540.0),
        ("a", FORGOTTEN, ACTIVE, 1550.0),
    ]


def test_what_happened_after_an_event_that_was_missed_too() -> None:
    assert since(Told(1010.0, {"a": ACTIVE}), 9000.0, a=1500.0) == [
        ("a", ACTIVE, FADING, 1600.0),
        ("a", FADING, FORGOTTEN, 1700.0),
    ]


def test_a_late_event_changes_what_was_told_before() -> None:
    """It came at 2000 and is of 1850: what was told as forgotten has only been fading since."""
    assert since(Told(1990.0, {"a": FORGOTTEN}), 2000.0, a=1850.0) == [
        ("a", FORGOTTEN, FADING, 1950.0)
    ]


def test_an_interest_that_is_not_kept_any_more_is_forgotten() -> None:
    told = Told(1010.0, {"a": ACTIVE, "gone": FADING, "long gone": FORGOTTEN})
    assert since(told, 1050.0, a=1005.0) == [("gone", FADING, FORGOTTEN, 1005.0)]


def test_users_are_told_of_together_and_apart() -> None:
    lasts = [{"a": 1000.0, "b": 950.0}, {}, {"a": 900.0}, {"c": 0.0, "a": 1040.0}]
    tolds = [Told(1010.0, {"a": ACTIVE, "gone": ACTIVE}), NOTHING, NOTHING, Told(9.0, {"c": 2})]
    course = Course.of(
        FakeOutlook((), np.array([t for last in lasts for t in last.values()]), 100.0, 200.0),
        np.full(5, 1050.0),
    )
    together = changes(
        [subject(told, **last) for told, last in zip(tolds, lasts, strict=True)], course, FORGOTTEN
    )
    assert [[change[:4] for change in one] for one in together] == [
        since(told, 1050.0, **last) for told, last in zip(tolds, lasts, strict=True)
    ]
    assert sum(map(len, together)) == 6


@given(
    events=st.lists(st.integers(0, 1000), min_size=1, max_size=8),
    looks=st.lists(st.integers(0, 1500), max_size=8),
)
def test_however_often_one_looks_the_changes_fit_together(
    events: list[int], looks: list[int]
) -> None:
    """From one look to the next each change starts where the one before ended.

    The first may start at FORGOTTEN, which is told of nobody at first sight.
    """
    told, chain, moments = NOTHING, [0], []
    for until in sorted({*looks, 2000}):
        known = [e for e in events if e <= until]
        if not known:
            continue
        newest = float(max(known))
        for _, before, after, time in since(told, float(until), a=newest):
            assert before == chain[-1] or (chain, before) == ([0], FORGOTTEN)
            assert after != before
            assert time <= until
            chain.append(after)
            moments.append(time)
        told = Told(float(until), {"a": int(course_of(float(until), a=newest).present[0])})
    assert all(one <= other for one, other in pairwise(moments))
    assert told.states == {"a": FORGOTTEN}
    assert chain[-1] in {0, FORGOTTEN}
