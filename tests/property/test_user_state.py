"""The state of a user as bytes, whatever the events and however they come."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ebbing.history import HISTORY_LENGTH
from ebbing.interest.bank import BANK_SIZE
from ebbing.interest.occasions import LEVELS
from ebbing.interest.trace import TraceTable
from server.state.rows import FEW, MAX_LISTED, counted, counted_one_each
from server.state.store import Interaction
from server.state.user_state import Bounds, advanced, decode, same

ROOMY = Bounds(10_000, 2**30)
US = 1_000_000
names = st.sampled_from(["a", "a/b", "c", "küche", "x" * 40])
interests = st.lists(st.tuples(names, st.floats(1e-3, 1e3)), max_size=4).map(tuple)
moments = st.one_of(
    st.integers(0, 100 * 365 * 86400 * US), st.integers(1, 9).map(lambda day: day * 86400 * US)
)


@st.composite
def logs(draw: st.DrawFn, most: int = 70) -> list[Interaction]:
    """Events of one user; some at one moment, some without weight or item."""
    return [
        Interaction(
            f"e{draw(st.integers(0, 999))}-{n}",
            "ann",
            draw(st.integers(0, 2**62)) * draw(st.booleans()),
            draw(st.integers(0, 13)),
            draw(moments),
            draw(st.floats(1e-3, 1e3)) * draw(st.booleans()),
            draw(interests),
            b"",
        )
        for n in range(draw(st.integers(1, most)))
    ]


def state_of(groups: list[list[Interaction]]) -> bytes:
    data: bytes | None = None
    known: list[Interaction] = []
    for group in groups:
        data = advanced(data, group, ROOMY, lambda past=tuple(known): filter(kept, past))
        known += group
    assert data is not None
    return data


def kept(one: Interaction) -> bool:
    return bool(one.weight and one.item_key)


@given(logs(), st.data())
def test_state_is_a_function_of_the_set_of_events(
    log: list[Interaction], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(log))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(log)), max_size=5)))
    groups = [shuffled[a:b] for a, b in zip([0, *cuts], [*cuts, len(log)], strict=True)]
    state = state_of(groups)
    assert same(state, state_of([log]))
    traces, history = decode(state)
    whole = TraceTable.from_events((i.time_s, i.weight, i.interests) for i in log if i.weight)
    assert set(traces.rows) == set(whole.rows)
    order = [whole.index[name] for name in traces.rows]
    np.testing.assert_array_equal(traces.times, whole.times[order])
    np.testing.assert_array_equal(traces.occasion_maps, whole.occasion_maps[order])
    np.testing.assert_allclose(traces.open_sums, whole.open_sums[order], rtol=1e-9)
    np.testing.assert_allclose(traces.closed_sums, whole.closed_sums[order], rtol=1e-9, atol=1e-300)
    newest = sorted(filter(kept, log), key=lambda one: (one.time_us, one.event_id))
    newest = newest[-HISTORY_LENGTH:]
    assert history.keys.tolist() == [one.item_key for one in newest]
    assert history.times.tolist() == [one.time_s for one in newest]
    assert history.types.tolist() == [one.event_type for one in newest]


@given(logs(), st.integers(200, 3000), st.integers(1, 4))
def test_state_is_within_its_bounds(log: list[Interaction], most: int, interests: int) -> None:
    bounds = Bounds(interests, most + 17 * HISTORY_LENGTH)
    data: bytes | None = None
    for n, one in enumerate(log):
        past = log[:n]
        data = advanced(data, [one], bounds, lambda past=past: [i for i in past if kept(i)])
        names = decode(data).traces.names
        assert len(names) <= interests
        assert len(data) <= bounds.max_bytes or len(names) <= 1


@given(st.data())
def test_rows_counted_together_are_those_counted_one_by_one(data: st.DataObject) -> None:
    times, weights = st.floats(0, 4e9), st.floats(1e-3, 1e3)
    events = st.tuples(times, weights)
    many = [
        counted(1, b"", data.draw(st.lists(events, min_size=MAX_LISTED + 1, max_size=20)))[1]
        for _ in range(data.draw(st.integers(1, 4)))
    ]
    more = [data.draw(events) for _ in many]
    copies = -(-FEW // len(many))
    alone = list(counted_one_each(many, more))
    together = list(counted_one_each(many * copies, more * copies))
    assert [kind for kind, _ in together] == [kind for kind, _ in alone] * copies
    for (_, one), (_, other) in zip(together, alone * copies, strict=True):
        a, b = np.frombuffer(one, "<f8"), np.frombuffer(other, "<f8")
        maps = slice(3 + BANK_SIZE, 3 + BANK_SIZE + LEVELS)
        assert a[maps].tobytes() == b[maps].tobytes()
        np.testing.assert_array_equal(a[:3], b[:3])
        sums = np.r_[3 : maps.start, maps.stop : len(a)]
        np.testing.assert_allclose(a[sums], b[sums], rtol=1e-12, atol=1e-300)
