"""Users as of any moment: now, in the past, ahead."""

from __future__ import annotations

import numpy as np
import pytest

from ebbing.history import HISTORY_LENGTH, item_key
from server.errors import AtBeforeFirstEvent
from server.state.sqlite import SqliteStore
from server.users import Users
from tests.suites.store_suite import (
    DAY_US,
    START_US,
    assert_same_traces,
    deed,
    some_log,
    traces_of,
)

NOW_US = START_US + 400 * DAY_US


@pytest.fixture
def users(store: SqliteStore) -> Users:
    return Users(store, 64)


def test_an_unknown_user(users: Users) -> None:
    assert users.view("nobody", None, NOW_US) is None
    assert users.view("nobody", START_US, NOW_US) is None


def test_now(users: Users, store: SqliteStore) -> None:
    log = [deed("a", item_id="i"), deed("b", item_id="j", days=1, event_type=5)]
    store.append(log)
    view = users.view("ann", None, NOW_US)
    assert view is not None
    assert (view.user_id, view.at_s) == ("ann", NOW_US / 1e6)
    assert_same_traces(view.traces, traces_of(log))
    assert view.history.keys[-2:].tolist() == [item_key("i"), item_key("j")]
    assert view.history.ages[-2:].tolist() == [400 * 86400.0, 399 * 86400.0]
    assert view.history.types[-2:].tolist() == [1, 5]


def test_now_is_never_before_an_event_that_lies_slightly_ahead(
    users: Users, store: SqliteStore
) -> None:
    ahead = deed("a", item_id="i", days=1)
    store.append([ahead])
    view = users.view("ann", None, ahead.time_us - 30_000_000)
    assert view is not None
    assert view.at_s == ahead.time_s
    assert view.history.keys[-1] == item_key("i")
    assert view.history.ages[-1] == 0.0
    assert view.traces.bank(view.at_s).shape[0] == 1


@pytest.mark.parametrize("seed", range(3))
def test_the_past_is_the_state_of_then(users: Users, store: SqliteStore, seed: int) -> None:
    log = sorted((i for i in some_log(seed, 40) if i.weight), key=lambda i: i.time_us)
    then: dict[int, object] = {}
    for one in log:
        store.append([one])
        view = users.view("ann", one.time_us, NOW_US)
        assert view is not None
        then[one.time_us] = view
    for time_us, known in then.items():
        again = users.view("ann", time_us, NOW_US)
        assert again is not None
        assert again.at_s == time_us / 1e6
        upto = [i for i in log if i.time_us <= time_us]
        assert_same_traces(again.traces, traces_of(upto))
        if upto[-1] is log[-1] or upto[-1].time_us < log[len(upto)].time_us:
            assert_same_traces(again.traces, known.traces)
            np.testing.assert_array_equal(again.history.keys, known.history.keys)
            np.testing.assert_array_equal(again.history.ages, known.history.ages)


def test_a_moment_between_two_events(users: Users, store: SqliteStore) -> None:
    log = [deed("a", item_id="i"), deed("b", item_id="j", days=2)]
    store.append(log)
    view = users.view("ann", START_US + DAY_US, NOW_US)
    assert view is not None
    assert_same_traces(view.traces, traces_of(log[:1]))
    assert view.history.keys[-2:].tolist() == [0, item_key("i")]
    assert view.history.ages[-1] == 86400.0


def test_a_moment_ahead_is_a_forecast(users: Users, store: SqliteStore) -> None:
    log = [deed("a", item_id="i")]
    store.append(log)
    view = users.view("ann", NOW_US + 10 * DAY_US, NOW_US)
    assert view is not None
    assert view.at_s == NOW_US / 1e6 + 10 * 86400
    assert_same_traces(view.traces, traces_of(log))


def test_before_the_first_engagement(users: Users, store: SqliteStore) -> None:
    store.append([deed("shown", weight=0.0), deed("a", days=1), deed("b", days=2)])
    with pytest.raises(AtBeforeFirstEvent) as error:
        users.view("ann", START_US + DAY_US - 1, NOW_US)
    assert error.value.metadata == {"earliest_us": str(START_US + DAY_US)}
    first = users.view("ann", START_US + DAY_US, NOW_US)
    assert first is not None
    assert first.traces.event_count == 1


def test_a_user_with_events_but_no_engagement(users: Users, store: SqliteStore) -> None:
    store.append([deed("shown", item_id="i", weight=0.0)])
    for at_us in (None, 0, START_US, NOW_US):
        view = users.view("ann", at_us, NOW_US)
        assert view is not None
        assert view.at_s == (NOW_US if at_us is None else at_us) / 1e6
        assert view.traces.event_count == 0
        assert not view.history.keys.any()


def test_the_history_is_of_the_models_length(users: Users, store: SqliteStore) -> None:
    store.append([deed(f"{n:03}", item_id=f"i{n}", days=n) for n in range(HISTORY_LENGTH + 10)])
    view = users.view("ann", None, NOW_US)
    assert view is not None
    assert view.history.keys.tolist() == [item_key(f"i{n}") for n in range(10, HISTORY_LENGTH + 10)]


def test_the_past_keeps_the_cap_on_interests(store: SqliteStore) -> None:
    store.append([deed(f"{n}", days=n, interests=((f"x{n}", 1.0),)) for n in range(10)])
    view = Users(store, 3).view("ann", START_US + 5 * DAY_US, NOW_US)
    assert view is not None
    assert set(view.traces.names) == {"x3", "x4", "x5"}
