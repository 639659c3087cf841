"""A ladder of occasions is a function of the set of times, to the bit."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import reduce

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ebbing.interest.occasions import (
    LEVELS,
    OCCASION_SLOTS_S,
    SLOTS,
    Ladder,
    ladder,
    merge,
    occasion_maps,
    single,
)

YEAR_S = 365.25 * 86400.0
FINEST_S = OCCASION_SLOTS_S[0]

boundaries = st.integers(-5000, 5000).map(lambda k: k * FINEST_S)
# Wide times alone would hardly ever share a window, or lie on the edge of a slot.
moments = st.one_of(
    st.floats(-100 * YEAR_S, 100 * YEAR_S),
    st.floats(1.7e9, 1.7e9 + 90 * 86400.0),
    boundaries,
    boundaries.map(lambda t: math.nextafter(t, -math.inf)),
)
sets = st.lists(moments, min_size=1, max_size=40)


def direct(times: list[float]) -> Ladder:
    """The definition, in exact arithmetic."""
    bitmaps = []
    for width in OCCASION_SLOTS_S:
        slots = [math.floor(Fraction(time) / Fraction(width)) for time in times]
        ages = {max(slots) - slot for slot in slots}
        bitmaps.append(sum(1 << age for age in ages if age < SLOTS))
    return tuple(bitmaps)


def gathered(times: list[float]) -> tuple[Ladder, float]:
    """One event after another."""
    return reduce(
        lambda a, b: (merge(*a, *b), max(a[1], b[1])), [(single(), time) for time in times]
    )


@given(sets)
def test_one_by_one_is_the_definition(times: list[float]) -> None:
    assert gathered(times) == (direct(times), max(times))


@given(sets)
def test_all_at_once_is_the_definition(times: list[float]) -> None:
    assert ladder(times) == direct(times)


@given(sets, st.randoms(use_true_random=False))
def test_neither_order_nor_repetition_matters(times: list[float], random) -> None:
    again = times + random.choices(times, k=len(times))
    random.shuffle(again)
    assert gathered(again) == gathered(times)


@given(sets, st.data())
def test_any_partition_merges_to_the_whole(times: list[float], data) -> None:
    owners = data.draw(st.lists(st.integers(0, 3), min_size=len(times), max_size=len(times)))
    parts = [[t for t, owner in zip(times, owners, strict=True) if owner == o] for o in range(4)]
    ladders = [gathered(part) for part in parts if part]
    assert reduce(lambda a, b: (merge(*a, *b), max(a[1], b[1])), ladders) == gathered(times)


@given(sets)
def test_merging_with_itself_changes_nothing(times: list[float]) -> None:
    known, last = gathered(times)
    assert merge(known, last, known, last) == known


@given(st.lists(st.tuples(st.integers(0, 4), moments), max_size=60), st.booleans())
def test_the_batch_form_agrees(pairs: list[tuple[int, float]], ordered: bool) -> None:
    if ordered:
        pairs = sorted(pairs)
    maps = occasion_maps([s for s, _ in pairs], 5, [t for _, t in pairs])
    assert maps.shape == (5, LEVELS)
    assert maps.dtype == np.uint64
    for segment in range(5):
        own = [time for s, time in pairs if s == segment]
        assert tuple(maps[segment].tolist()) == (direct(own) if own else (0,) * LEVELS)
