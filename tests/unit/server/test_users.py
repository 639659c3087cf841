"""Users as of any moment: now, in the past, ahead."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from ebbing.history import HISTORY_LENGTH, item_key
from ebbing.interest.trace import TraceTable
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


async def test_an_unknown_user(users: Users) -> None:
    assert await users.view("nobody", None, NOW_US) is None
    assert await users.view("nobody", START_US, NOW_US) is None


async def test_now(users: Users, store: SqliteStore) -> None:
    log = [deed("a", item_id="i"), deed("b", item_id="j", days=1, event_type=5)]
    store.append(log)
    view = await users.view("ann", None, NOW_US)
    assert view is not None
    assert (view.user_id, view.at_s) == ("ann", NOW_US / 1e6)
    assert_same_traces(view.traces, traces_of(log))
    assert view.history.keys[-2:].tolist() == [item_key("i"), item_key("j")]
    assert view.history.ages[-2:].tolist() == [400 * 86400.0, 399 * 86400.0]
    assert view.history.types[-2:].tolist() == [1, 5]


async def test_now_is_never_before_an_event_that_lies_slightly_ahead(
    users: Users, store: SqliteStore
) -> None:
    ahead = deed("a", item_id="i", days=1)
    store.append([ahead])
    view = await users.view("ann", None, ahead.time_us - 30_000_000)
    assert view is not None
    assert view.at_s == ahead.time_s
    assert view.history.keys[-1] == item_key("i")
    assert view.history.ages[-1] == 0.0
    assert view.traces.bank(view.at_s).shape[0] == 1


@pytest.mark.parametrize("seed", range(3))
async def test_the_past_is_the_state_of_then(users: Users, store: SqliteStore, seed: int) -> None:
    log = sorted((i for i in some_log(seed, 40) if i.weight), key=lambda i: i.time_us)
    then: dict[int, object] = {}
    for one in log:
        store.append([one])
        view = await users.view("ann", one.time_us, NOW_US)
        assert view is not None
        then[one.time_us] = view
    for time_us, known in then.items():
        again = await users.view("ann", time_us, NOW_US)
        assert again is not None
        assert again.at_s == time_us / 1e6
        upto = [i for i in log if i.time_us <= time_us]
        assert_same_traces(again.traces, traces_of(upto))
        if upto[-1] is log[-1] or upto[-1].time_us < log[len(upto)].time_us:
            assert_same_traces(again.traces, known.traces)
            np.testing.assert_array_equal(again.history.keys, known.history.keys)
            np.testing.assert_array_equal(again.history.ages, known.history.ages)


async def test_a_moment_between_two_events(users: Users, store: SqliteStore) -> None:
    log = [deed("a", item_id="i"), deed("b", item_id="j", days=2)]
    store.append(log)
    view = await users.view("ann", START_US + DAY_US, NOW_US)
    assert view is not None
    assert_same_traces(view.traces, traces_of(log[:1]))
    assert view.history.keys[-2:].tolist() == [0, item_key("i")]
    assert view.history.ages[-1] == 86400.0


async def test_a_moment_ahead_is_a_forecast(users: Users, store: SqliteStore) -> None:
    log = [deed("a", item_id="i")]
    store.append(log)
    view = await users.view("ann", NOW_US + 10 * DAY_US, NOW_US)
    assert view is not None
    assert view.at_s == NOW_US / 1e6 + 10 * 86400
    assert_same_traces(view.traces, traces_of(log))


async def test_before_the_first_engagement(users: Users, store: SqliteStore) -> None:
    store.append([deed("shown", weight=0.0), deed("a", days=1), deed("b", days=2)])
    with pytest.raises(AtBeforeFirstEvent) as error:
        await users.view("ann", START_US + DAY_US - 1, NOW_US)
    assert error.value.metadata == {"earliest_us": str(START_US + DAY_US)}
    first = await users.view("ann", START_US + DAY_US, NOW_US)
    assert first is not None
    assert first.traces.event_count == 1


async def test_a_user_with_events_but_no_engagement(users: Users, store: SqliteStore) -> None:
    store.append([deed("shown", item_id="i", weight=0.0)])
    for at_us in (None, 0, START_US, NOW_US):
        view = await users.view("ann", at_us, NOW_US)
        assert view is not None
        assert view.at_s == (NOW_US if at_us is None else at_us) / 1e6
        assert view.traces.event_count == 0
        assert not view.history.keys.any()


async def test_the_history_is_of_the_models_length(users: Users, store: SqliteStore) -> None:
    store.append([deed(f"{n:03}", item_id=f"i{n}", days=n) for n in range(HISTORY_LENGTH + 10)])
    view = await users.view("ann", None, NOW_US)
    assert view is not None
    assert view.history.keys.tolist() == [item_key(f"i{n}") for n in range(10, HISTORY_LENGTH + 10)]


async def test_the_past_keeps_the_cap_on_interests(store: SqliteStore) -> None:
    store.append([deed(f"{n}", days=n, interests=((f"x{n}", 1.0),)) for n in range(10)])
    view = await Users(store, 3).view("ann", START_US + 5 * DAY_US, NOW_US)
    assert view is not None
    assert set(view.traces.names) == {"x3", "x4", "x5"}


async def test_a_long_past_is_read_in_steps_that_let_others_in(
    users: Users, store: SqliteStore
) -> None:
    store.append([deed(f"{n:04}", days=n / 10) for n in range(1500)])
    turns = 0

    async def another() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(another())
    view = await users.view("ann", START_US + 140 * DAY_US, NOW_US)
    other.cancel()
    assert view is not None
    assert view.traces.event_count == 1401
    assert turns >= 5


async def course(
    users: Users, until_us: int, moments_us: list[int]
) -> list[tuple[int, TraceTable]]:
    return [moment async for moment in users.course("ann", until_us, moments_us)]


@pytest.mark.parametrize("seed", range(3))
async def test_a_course_is_the_views_along_it(users: Users, store: SqliteStore, seed: int) -> None:
    store.append(some_log(seed, 40))
    first_us = users.first_us("ann")
    assert first_us is not None
    moments = list(range(first_us, START_US + 500 * DAY_US, 23 * DAY_US))
    along = await course(users, NOW_US, moments)
    assert [moment for moment, _ in along] == moments
    for moment_us, traces in along:
        view = await users.view("ann", moment_us, NOW_US)
        assert view is not None
        assert_same_traces(traces, view.traces)


async def test_a_course_knows_nothing_of_what_comes_later(users: Users, store: SqliteStore) -> None:
    log = [deed(f"{n}", days=n) for n in range(10)]
    store.append(log)
    moments = [START_US + d * DAY_US for d in (0, 2, 4, 8, 20)]
    counts = [t.event_count for _, t in await course(users, START_US + 4 * DAY_US, moments)]
    assert counts == [1, 3, 5, 5, 5]


async def test_a_course_of_nobody(users: Users) -> None:
    (only,) = await course(users, NOW_US, [NOW_US])
    assert only[1].event_count == 0


def test_what_counts_as_now(users: Users, store: SqliteStore) -> None:
    assert users.latest_us("ann", NOW_US) == NOW_US
    store.append([deed("a", days=1)])
    assert users.latest_us("ann", NOW_US) == NOW_US
    assert users.latest_us("ann", START_US) == START_US + DAY_US


async def test_the_newest_engagements(users: Users, store: SqliteStore) -> None:
    log = [deed(f"{n:03}", days=n) for n in range(150)]
    store.append(log)
    newest = await users.newest("ann", log[140].time_us, 130)
    assert newest == [(i.time_s, i.weight, i.interests) for i in log[11:141]]
