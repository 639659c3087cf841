from __future__ import annotations

import numpy as np
import pytest

from ebbing.events import EventType
from ebbing.features import candidate_features
from ebbing.history import item_keys
from ebbing.interest.forgetting import ForgettingParameters
from ebbing.interest.trace import TraceTable
from trainer.data.log import EventLog
from trainer.data.replay import ReplayConfig, histories_before, replay
from trainer.data.simulate import Simulation

PARAMETERS = ForgettingParameters.builtin()


def first_items(keys: np.ndarray, ages: np.ndarray, types: np.ndarray) -> np.ndarray:
    return np.tile(np.arange(30), (len(keys), 1))


def test_examples_see_only_what_came_before(simulation: Simulation) -> None:
    log = simulation.log
    config = ReplayConfig(events=60)
    examples = replay(log, PARAMETERS, config, np.random.default_rng(1), first_items)
    keys = item_keys(log.item_ids)
    item_of = {key: item for item, key in enumerate(keys.tolist())}
    assert examples.candidates.shape == (60, 5)
    assert examples.labels.sum(axis=1).tolist() == [1.0] * 60
    events = np.flatnonzero(log.offsets[log.users] < np.arange(len(log)))
    histories = histories_before(log, events)
    for group in range(60):
        # The event replayed, found again by what the model was shown of it.
        same = (keys[log.items[events]] == examples.candidates[group, 0]) & np.all(
            [
                (whole == shown[group]).all(axis=1)
                for whole, shown in zip(histories, (examples.keys, examples.ages), strict=False)
            ],
            axis=0,
        )
        (event,) = events[same].tolist()
        table = TraceTable.empty()
        for past in range(int(log.offsets[log.users[event]]), event):
            table = table.add(log.interests[log.items[past]], float(log.times[past]))
        interests = [log.interests[item_of[key]] for key in examples.candidates[group].tolist()]
        expected = candidate_features(table, interests, float(log.times[event]), PARAMETERS)
        np.testing.assert_allclose(examples.features[group], expected, rtol=1e-5)


def test_negatives_are_new_to_the_user(simulation: Simulation) -> None:
    examples = replay(
        simulation.log, PARAMETERS, ReplayConfig(events=80), np.random.default_rng(1), first_items
    )
    for history, candidates in zip(examples.keys, examples.candidates, strict=True):
        assert not np.isin(candidates[1:], [*history, candidates[0]]).any()


def test_the_same_seed_gives_the_same_examples(simulation: Simulation) -> None:
    one, two = (
        replay(
            simulation.log,
            PARAMETERS,
            ReplayConfig(events=30),
            np.random.default_rng(5),
            first_items,
        )
        for _ in range(2)
    )
    np.testing.assert_array_equal(one.candidates, two.candidates)
    np.testing.assert_array_equal(one.features, two.features)


def test_a_log_without_histories_is_refused() -> None:
    log = EventLog.of(
        ["a"], ["i"], [()], np.array([0]), np.array([0]), np.array([1]), np.array([1.0])
    )
    with pytest.raises(ValueError, match="no user has a second event"):
        replay(log, PARAMETERS, ReplayConfig(), np.random.default_rng(0), first_items)


def a_shop() -> tuple[EventLog, EventLog]:
    """Two users who click; the first is also shown 7 and 8 in vain, 2 before they take it, and 6
    when all is over; the whole log and its engagements."""
    rows = [
        (0, 0, EventType.CLICK, 0.0),
        (0, 2, EventType.IMPRESSION, 1.0),
        (0, 7, EventType.IMPRESSION, 2.0),
        (0, 1, EventType.CLICK, 3.0),
        (0, 8, EventType.DISLIKE, 30.0),
        (0, 2, EventType.CLICK, 31.0),
        (1, 3, EventType.CLICK, 5.0),
        (1, 4, EventType.CLICK, 6.0),
        (0, 6, EventType.IMPRESSION, 99.0),
    ]
    users, items, types, times = (np.array(column) for column in zip(*rows, strict=True))
    ids = [f"i{n}" for n in range(60)]
    whole = EventLog.of(["a", "b"], ids, [()] * 60, users, items, types, times)
    return whole, whole.engagements()


def test_what_was_shown_in_vain_is_the_negative(simulation: Simulation) -> None:
    whole, log = a_shop()
    keys = item_keys(log.item_ids)
    config = ReplayConfig(events=10, random_negatives=1, retrieved_negatives=1)
    examples = replay(log, PARAMETERS, config, np.random.default_rng(1), first_items, shown=whole)
    negative = dict(examples.candidates[:, :2].tolist())
    # The one shown nearest in time; never what was taken later, nor what came after the log's end.
    assert negative[keys[1]] == keys[7]
    assert negative[keys[2]] == keys[8]
    # Who was shown nothing in vain has negatives all the same.
    assert negative[keys[4]] not in keys[[3, 4]]


def test_a_log_of_what_was_shown_alone_is_refused() -> None:
    whole, log = a_shop()
    idle = whole.without(np.flatnonzero(np.isin(whole.types, log.types)))
    with pytest.raises(ValueError, match="no user has a second event"):
        replay(
            idle.engagements(),
            PARAMETERS,
            ReplayConfig(),
            np.random.default_rng(1),
            first_items,
            shown=idle,
        )


@pytest.mark.parametrize(("fewest", "only"), [(1, True), (4, False), (None, False)])
def test_events_that_retrieval_was_not_trained_on_come_first(
    fewest: int | None, only: bool, simulation: Simulation
) -> None:
    log = simulation.log
    untrained = log.last_events()[:3]
    config = ReplayConfig(events=9, fewest_untrained=fewest)
    examples = replay(
        log, PARAMETERS, config, np.random.default_rng(1), first_items, untrained=untrained
    )
    assert len(examples.keys) == (3 if only else 9)
    if only:
        taken = item_keys(log.item_ids)[log.items[untrained]]
        assert set(examples.candidates[:, 0]) == set(taken)


def test_what_users_had_is_a_negative_where_it_is_recommended_again(
    simulation: Simulation,
) -> None:
    had = {}
    for repeats in (False, True):
        examples = replay(
            simulation.log,
            PARAMETERS,
            ReplayConfig(events=80, random_negatives=0, retrieved_negatives=20),
            np.random.default_rng(1),
            lambda keys, ages, types: np.tile(np.arange(480), (len(keys), 1)),
            repeats=repeats,
        )
        known = [
            np.isin(candidates[1:], history)
            for history, candidates in zip(examples.keys, examples.candidates, strict=True)
        ]
        had[repeats] = np.mean(known)
        assert not (examples.candidates[:, 1:] == examples.candidates[:, :1]).any()
    assert had[False] == 0.0 < had[True]
