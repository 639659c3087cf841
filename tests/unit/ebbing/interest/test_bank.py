"""Traces of single sets of events, one by one and in batches."""

from __future__ import annotations

import numpy as np
import pytest

from ebbing.interest.bank import (
    BANK_SIZE,
    HALF_LIVES_S,
    PERIOD_S,
    bank_sums,
    event_row,
    events_row,
    merge_rows,
    period_start,
    trace_rows,
)

T = 1000 * PERIOD_S + 3600.0


def test_a_period_begins_with_its_start() -> None:
    start = period_start(T)
    assert start == 1000 * PERIOD_S
    assert period_start(start) == start
    assert period_start(start - 1e-3) == start - PERIOD_S


def test_batch_sums_of_segments() -> None:
    later = T + HALF_LIVES_S[0]
    sums = bank_sums([0, 2, 2], 3, [T, T, later], [1.0, 2.0, 1.0], [T, T, later])
    np.testing.assert_allclose(sums[:, 0], [1.0, 0.0, 2.0])
    assert bank_sums([], 2, [], [], T).tolist() == np.zeros((2, BANK_SIZE)).tolist()


@pytest.mark.parametrize("spread", [60.0, 3 * PERIOD_S])
def test_rows_of_many_sets_are_merges_of_single_events(spread: float) -> None:
    times = np.array([T, T + spread, T + 2 * spread, T, T + spread / 2])
    weights = np.array([1.0, 2.0, 0.5, 4.0, 1.0])
    opened, closed, spans, maps = trace_rows([3, 2], times, weights)
    for n, part in enumerate((slice(0, 3), slice(3, 5))):
        events = list(zip(times[part].tolist(), weights[part].tolist(), strict=True))
        merged = event_row(*events[0])
        for event in events[1:]:
            merged = merge_rows(event_row(*event), merged)
        together = events_row(*zip(*events, strict=True))
        for row in (merged, together):
            np.testing.assert_allclose(opened[n], row.open, rtol=1e-12)
            np.testing.assert_allclose(closed[n], row.closed, rtol=1e-12)
            assert spans[n].tolist() == [row.events, row.first, row.last]
            assert tuple(maps[n].tolist()) == row.occasions


def test_rows_of_no_set() -> None:
    opened, closed, spans, maps = trace_rows([], np.zeros(0), np.zeros(0))
    assert [one.shape for one in (opened, closed, spans, maps)] == [
        (0, BANK_SIZE),
        (0, BANK_SIZE),
        (0, 3),
        (0, 4),
    ]
