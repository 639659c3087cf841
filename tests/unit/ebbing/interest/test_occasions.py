"""Occasions by small examples; what holds of any times is in tests/property."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ebbing.interest.occasions import LEVELS, OCCASION_SLOTS_S, SLOTS, merge, occasion_maps, single

DAY_S = 86400.0
T = 20_000 * DAY_S


def bits(*times: float) -> list[int]:
    return occasion_maps(np.zeros(len(times), int), 1, times)[0].tolist()


def test_one_event_is_its_own_newest() -> None:
    assert single() == (1, 1, 1, 1)
    assert bits(T) == [1, 1, 1, 1]


def test_slots_nest() -> None:
    assert len(OCCASION_SLOTS_S) == LEVELS
    for finer, coarser in pairwise(OCCASION_SLOTS_S):
        assert coarser == 4 * finer


def test_a_burst_is_one_occasion() -> None:
    assert bits(*(T + 60.0 * i for i in range(300))) == [1, 1, 1, 1]


def test_a_week_apart() -> None:
    six_hours, days, _, _ = bits(T, T + 7 * DAY_S, T + 14 * DAY_S)
    assert six_hours == 1 | 1 << 28 | 1 << 56
    assert days == 1 | 1 << 7 | 1 << 14


def test_slots_begin_at_the_epoch_and_not_at_an_event() -> None:
    assert bits(T - 1.0, T)[1] == 0b11
    assert bits(T, T + DAY_S - 1.0)[1] == 0b1
    assert bits(-1.0, 0.0)[1] == 0b11


def test_the_window_ends_after_its_slots() -> None:
    for level, width in enumerate(OCCASION_SLOTS_S):
        assert bits(0.0, (SLOTS - 1) * width)[level] == 1 | 1 << SLOTS - 1
        assert bits(0.0, SLOTS * width)[level] == 1


def test_a_hundred_years_apart() -> None:
    early, late = -50 * 365.25 * DAY_S, 50 * 365.25 * DAY_S
    assert merge(single(), early, single(), late) == (1, 1, 1, 1)
    assert bits(late, early) == [1, 1, 1, 1]


def test_sets_without_events_have_no_occasions() -> None:
    assert occasion_maps([], 2, []).tolist() == [[0] * LEVELS] * 2
    assert occasion_maps([2, 0, 2], 4, [T, T, T + DAY_S])[:, 1].tolist() == [1, 0, 3, 0]
