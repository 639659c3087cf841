"""The state of a user as bytes: what it tells, how few they are, and bytes that are none."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from ebbing.history import HISTORY_LENGTH, item_key
from ebbing.interest.trace import TraceTable
from server.state.rows import MAX_LISTED
from server.state.store import Interaction
from server.state.user_state import VERSION, Bounds, advanced, decode, same

ROOMY = Bounds(1000, 2**20)
DAY_US = 86_400_000_000
START_US = 1_700_000_000_000_000


def event(n: int, days: float, *interests: str, item: bool = True) -> Interaction:
    return Interaction(
        f"e{n:04}",
        "ann",
        item_key(f"i{n}") if item else 0,
        1 + n % 9,
        START_US + round(days * DAY_US),
        1.0 + n % 3,
        tuple((name, 0.5) for name in interests),
        b"",
    )


def unasked() -> Iterable[Interaction]:
    raise AssertionError("the log was asked")


def state_of(log: list[Interaction], group: int = 1, bounds: Bounds = ROOMY) -> bytes:
    data: bytes | None = None
    for start in range(0, len(log), group):
        known = log[: start + group]
        data = advanced(data, log[start : start + group], bounds, lambda known=known: known)
    assert data is not None
    return data


@pytest.mark.parametrize("count", [1, 2, MAX_LISTED, MAX_LISTED + 1, 60])
@pytest.mark.parametrize("group", [1, 7, 100])
@pytest.mark.parametrize("spread_days", [0.001, 100.0])
def test_it_tells_the_traces_of_the_events(count: int, group: int, spread_days: float) -> None:
    log = [event(n, spread_days * n / count, "a", "b/c") for n in range(count)]
    traces, history = decode(state_of(random.Random(1).sample(log, count), group))
    whole = TraceTable.from_events((i.time_s, i.weight, i.interests) for i in log)
    assert traces.rows == whole.rows
    np.testing.assert_array_equal(traces.times, whole.times)
    np.testing.assert_array_equal(traces.occasion_maps, whole.occasion_maps)
    np.testing.assert_allclose(traces.open_sums, whole.open_sums, rtol=1e-9)
    np.testing.assert_allclose(traces.closed_sums, whole.closed_sums, rtol=1e-9, atol=1e-300)
    assert history.keys.tolist() == [i.item_key for i in log[-HISTORY_LENGTH:]]


def test_nothing_is_a_state_too() -> None:
    data = advanced(None, [], ROOMY, unasked)
    traces, history = decode(data)
    assert traces.rows == ()
    assert history.keys.size == 0
    assert advanced(data, [], ROOMY, unasked) == data


def test_the_log_is_asked_only_about_events_of_one_moment() -> None:
    data = None
    for n, days in enumerate([5, 6, 7, 1, 5.5]):
        data = advanced(data, [event(n, days, "a")], ROOMY, unasked)
    with pytest.raises(AssertionError, match="asked"):
        advanced(data, [event(9, 6, "a")], ROOMY, unasked)
    # An event without an item is none of the history's.
    advanced(data, [event(9, 6, "a", item=False)], ROOMY, unasked)


def test_events_of_one_moment_are_in_the_order_of_their_ids() -> None:
    log = [event(n, 1.0, "a") for n in (3, 0, 2, 1)]
    _, history = decode(state_of(log))
    assert history.keys.tolist() == [item_key(f"i{n}") for n in range(4)]


def test_an_old_event_does_not_enter_a_full_history() -> None:
    log = [event(n, n, "a") for n in range(1, HISTORY_LENGTH + 1)]
    data = state_of(log)
    older = advanced(data, [event(0, 0.5, "a")], ROOMY, unasked)
    assert decode(older).history.keys.tolist() == decode(data).history.keys.tolist()
    assert decode(older).traces.event_count == HISTORY_LENGTH + 1


@pytest.mark.parametrize("bounds", [Bounds(5, 2**20), Bounds(1000, 1500)])
def test_the_weakest_go_over_the_bounds(bounds: Bounds) -> None:
    log = [event(n, n, f"interest/{n:03}", "often") for n in range(40)]
    data = state_of(log, bounds=bounds)
    names = decode(data).traces.names
    assert len(data) <= bounds.max_bytes
    assert len(names) <= bounds.max_interests
    assert {"often", "interest/038"} <= set(names)  # of the newest, the one of most weight
    assert "interest/000" not in names
    assert decode(data).traces.event_count == 40


def test_a_user_of_200_events_in_30_interests_takes_less_than_six_kilobytes() -> None:
    worst = 0
    for skew in (1.0, 2.0, 4.0):
        chance = random.Random(skew)
        names = [f"department/category-{k:02}" for k in range(30)]
        log = [
            event(n, n * chance.random() * 3, names[int(30 * chance.random() ** skew)])
            for n in range(200)
        ]
        worst = max(worst, len(state_of(log)))
    assert worst < 6000 - 30 * len("department/category-00,,") - 192


def test_weights_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="not a finite number above 0"):
        advanced(None, [replace(event(1, 1, "a"), weight=float("inf"))], ROOMY, unasked)


def test_wherever_the_bytes_end_too_early_they_are_refused() -> None:
    whole = state_of([event(n, 30 * n, "a", *"bcd"[: n % 4]) for n in range(20)])
    for size in range(len(whole)):
        with pytest.raises(ValueError, match=r"."):
            decode(whole[:size])
        with pytest.raises(ValueError, match=r"."):
            advanced(whole[:size], [event(99, 900, "a")], ROOMY, unasked)
    with pytest.raises(ValueError, match=r"."):
        decode(whole + b"\0")


@pytest.mark.parametrize("version", [VERSION - 1, VERSION + 1])
def test_another_version_is_refused(version: int) -> None:
    data = state_of([event(1, 1, "a")])
    with pytest.raises(ValueError, match=f"state of version {version}, this code reads {VERSION}"):
        decode(bytes([version]) + data[1:])


def test_whether_two_states_tell_the_same() -> None:
    log = [event(n, n * 3, "a", "b"[: n % 2] or "c") for n in range(40)]
    data = state_of(log)
    assert same(data, state_of(log[::-1], group=5))
    assert not same(data, state_of(log[:-1]))
    assert not same(data, state_of([*log[:-1], event(39, 39 * 3, "a", "other")]))
    assert not same(data, state_of([*log[:-1], event(39, 39 * 3 + 1, "a", "b")]))
