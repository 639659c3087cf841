"""What the fit reads of a log at a cut is what the gateway reads of each user's traces then."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ebbing.events import EventType
from ebbing.interest.standing import SHARE_RATES, Standing, features, standing_of
from ebbing.interest.trace import TraceTable
from trainer.data.log import EventLog
from trainer.data.replay import traced_events
from trainer.data.simulate import SimulationConfig, simulate
from trainer.return_prediction import DAY_S, ReturnCases, exploded
from trainer.standing import Moments, standing_at

NOW = 1.7e9
GAP_S = 20 * DAY_S
CLOSE = {"rtol": 1e-9, "atol": 1e-12}

NAMES = ("a", "a/x", "b", "c", "d/y")
ITEMS = (
    (("a", 1.0),),
    (("a/x", 0.5), ("b", 0.5)),
    (("b", 0.2), ("c", 0.3), ("d/y", 0.5)),
    (),
    (("d/y", 2.0),),
)
USERS = 4
# Whole slots, days and hours beside any time: events meet in time, and at the cut.
times = st.one_of(
    st.floats(NOW - 900 * DAY_S, NOW + 60 * DAY_S),
    st.integers(-600, 40).map(lambda day: NOW + day * DAY_S),
    st.just(NOW),
)
events = st.tuples(
    st.integers(0, USERS - 1),
    st.integers(0, len(ITEMS) - 1),
    st.sampled_from([kind for kind in EventType if kind]),
    times,
)
logs = st.lists(events, min_size=1, max_size=60)


def log_of(rows: list[tuple[int, int, EventType, float]]) -> EventLog:
    users, items, types, moments = (np.array(column) for column in zip(*rows, strict=True))
    return EventLog.of(
        [f"u{n}" for n in range(USERS)],
        [f"i{n}" for n in range(len(ITEMS))],
        ITEMS,
        users,
        items,
        types,
        moments,
    )


def check(log: EventLog, at: float, left_out: frozenset[str] = frozenset()) -> None:
    """Every user with a case, every interest of theirs, each figure of its standing."""
    rows = exploded(log)
    asked = np.array([name not in left_out for name in rows.names], bool)
    past = (rows.times <= at) & asked[rows.interests]
    pairs = np.unique(rows.pairs[past])
    if not len(pairs):
        return
    width = len(rows.names)
    users, interests = pairs // width, pairs % width
    cases = ReturnCases(users, interests, np.zeros(len(pairs), bool), at, GAP_S)
    found = standing_at(Moments.of(log), rows, cases)
    np.testing.assert_array_equal(found.interests[found.case], interests)
    batch = features(found.standing, at, GAP_S)

    before = log.until(at)
    for number, user in enumerate(np.unique(users).tolist()):
        stretch = int(before.offsets[user]), int(before.offsets[user + 1])
        table = TraceTable.from_events(traced_events(before, *stretch))
        own = np.flatnonzero(found.standing.owner == number)
        order = [table.names.index(rows.names[i]) for i in found.interests[own].tolist()]
        assert len(order) == len(table.names)
        served = standing_of(table)
        for name in ("count", "first", "last", "attention"):
            mine, theirs = (getattr(one, name) for one in (found.standing, served))
            np.testing.assert_allclose(mine[own], theirs[order], **CLOSE, err_msg=name)
        for name in ("events", "newest", "total", "occasions"):
            mine, theirs = (getattr(one, name) for one in (found.standing, served))
            np.testing.assert_allclose(mine[number], theirs[0], **CLOSE, err_msg=name)
        np.testing.assert_allclose(batch[own], features(served, at, GAP_S)[order], **CLOSE)


@given(logs, st.sets(st.sampled_from(NAMES), max_size=3))
def test_batch_is_serving(rows: list, left_out: set[str]) -> None:
    check(log_of(rows), NOW, frozenset(left_out))


def test_batch_is_serving_for_every_user_of_a_generated_log() -> None:
    log = simulate(SimulationConfig(users=30, items=240, days=150)).log
    for quantile in (0.1, 0.5, 0.9, 1.0):
        check(log, float(np.quantile(log.times, quantile)))


@given(logs, st.lists(st.floats(0, 3000 * DAY_S), min_size=USERS, max_size=USERS))
def test_users_do_not_meet(rows: list, waits: list[float]) -> None:
    """Features of many users, each at a moment of its own, are those of each alone."""
    log = log_of(rows).until(NOW)
    tables = [
        TraceTable.from_events(traced_events(log, *log.offsets[user : user + 2].tolist()))
        for user in range(USERS)
    ]
    standings = [standing_of(table) for table in tables if table.names]
    moments = [wait + NOW for wait, table in zip(waits, tables, strict=True) if table.names]
    if not standings:
        return
    sizes = [len(one.count) for one in standings]
    together = Standing(
        owner=np.repeat(np.arange(len(sizes)), sizes),
        **{
            name: np.concatenate([getattr(one, name) for one in standings])
            for name in Standing.__dataclass_fields__
            if name != "owner"
        },
    )
    assert together.total.shape == (len(sizes), len(SHARE_RATES))
    alone = [features(one, at, GAP_S) for one, at in zip(standings, moments, strict=True)]
    np.testing.assert_allclose(features(together, moments, GAP_S), np.concatenate(alone), **CLOSE)
