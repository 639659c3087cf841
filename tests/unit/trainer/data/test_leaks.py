"""Planted leaks are found; what is served has none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ebbing.interest.forgetting import ForgettingParameters
from trainer.data.leaks import (
    Features,
    LeakError,
    check_leaks,
    find_leaks,
    log_before,
    served_features,
)
from trainer.data.log import EventLog
from trainer.data.replay import ReplayConfig, replay
from trainer.data.simulate import Simulation

SERVED = served_features(ForgettingParameters.builtin())


@pytest.fixture
def asked(simulation: Simulation) -> tuple[EventLog, np.ndarray, np.ndarray]:
    """Events to ask about, and candidates: what was taken, and three others."""
    log = simulation.log
    random = np.random.default_rng(0)
    able = np.flatnonzero(np.arange(len(log)) > log.offsets[log.users])
    events = np.sort(random.choice(able, 25, replace=False))
    others = random.integers(len(log.item_ids), size=(25, 3))
    return log, events, np.column_stack([log.items[events], others])


def test_what_is_served_knows_nothing_of_the_future(
    asked: tuple[EventLog, np.ndarray, np.ndarray],
) -> None:
    assert find_leaks(SERVED, *asked) == []
    check_leaks(SERVED, *asked)


def planted(leak: Callable[[EventLog, int, np.ndarray], np.ndarray]) -> Features:
    """What is served, and a feature that leaks."""

    def features(
        log: EventLog, events: np.ndarray, candidates: np.ndarray
    ) -> dict[str, np.ndarray]:
        rows = [leak(log, e, c) for e, c in zip(events.tolist(), candidates, strict=True)]
        return {**SERVED(log, events, candidates), "planted": np.stack(rows).astype(float)}

    return features


def popularity_ever(log: EventLog, event: int, candidates: np.ndarray) -> np.ndarray:
    return np.bincount(log.items, minlength=len(log.item_ids))[candidates]


def until_the_next(log: EventLog, event: int, candidates: np.ndarray) -> np.ndarray:
    later = min(event + 1, int(log.offsets[log.users[event] + 1]) - 1)
    return np.full(len(candidates), log.times[later] - log.times[event])


def taken_by_the_user(log: EventLog, event: int, candidates: np.ndarray) -> np.ndarray:
    user = log.users[event]
    return np.isin(candidates, log.items[log.offsets[user] : log.offsets[user + 1]])


def the_answer(log: EventLog, event: int, candidates: np.ndarray) -> np.ndarray:
    return candidates == log.items[event]


def company_at_that_moment(log: EventLog, event: int, candidates: np.ndarray) -> np.ndarray:
    return np.array([(log.times <= log.times[event] + 3600).sum()])


@pytest.mark.parametrize(
    "leak",
    [popularity_ever, until_the_next, taken_by_the_user, the_answer, company_at_that_moment],
)
def test_a_planted_leak_is_found(
    asked: tuple[EventLog, np.ndarray, np.ndarray],
    leak: Callable[[EventLog, int, np.ndarray], np.ndarray],
) -> None:
    leaks = find_leaks(planted(leak), *asked)
    assert {one.feature for one in leaks} == {"planted"}
    assert {one.event for one in leaks} <= set(asked[1].tolist())
    with pytest.raises(LeakError, match=r"what came after their moment: planted; for instance of"):
        check_leaks(planted(leak), *asked)


def test_a_planted_leak_says_more_than_may_be_known(
    asked: tuple[EventLog, np.ndarray, np.ndarray],
) -> None:
    """The leak is a real one: it tells the label, which the same of the past does not."""
    log, events, candidates = asked
    told = planted(taken_by_the_user)(log, events, candidates)["planted"]
    assert told[:, 0].all()
    assert told[:, 1:].mean() < 0.2


def past_popularity(log: EventLog, event: int, candidates: np.ndarray) -> np.ndarray:
    known = log.times < log.times[event]
    return np.bincount(log.items[known], minlength=len(log.item_ids))[candidates]


def test_the_same_of_the_past_is_no_leak(
    asked: tuple[EventLog, np.ndarray, np.ndarray],
) -> None:
    assert find_leaks(planted(past_popularity), *asked) == []


def test_the_log_before_an_event_ends_there() -> None:
    users = np.array([0, 0, 0, 1, 1])
    times = np.array([10.0, 20.0, 20.0, 19.0, 20.0])
    items = np.array([0, 1, 2, 0, 1])
    log = EventLog.of("ab", "xyz", [()] * 3, users, items, np.ones(5, int), times)
    past, asked = log_before(log, 1)
    assert past.times.tolist() == [10, 20, 19]
    assert asked == 1
    assert past.items.tolist() == [0, 2, 0], "the item asked about is not what was taken"
    assert past.types[asked] != log.types[1]
    past, asked = log_before(log, 4)
    assert (past.times.tolist(), asked) == ([10, 19, 20], 2)


def test_examples_as_training_replays_them_are_what_was_known(simulation: Simulation) -> None:
    """Every example of a replay, found in the log again, is what `served_features` makes of it."""
    log = simulation.log
    examples = replay(
        log,
        ForgettingParameters.builtin(),
        ReplayConfig(events=30),
        np.random.default_rng(2),
        lambda keys, ages, types: np.tile(np.arange(40), (len(keys), 1)),
    )
    assert find_leaks(_replayed(examples.features), log, *_found(log, examples)) == []


def _replayed(shown: np.ndarray) -> Features:
    """The replay's features of the whole log; of a log of one example, those that are served."""

    def features(
        log: EventLog, events: np.ndarray, candidates: np.ndarray
    ) -> dict[str, np.ndarray]:
        served = SERVED(log, events, candidates)["interests"]
        return {"interests": shown if len(events) == len(shown) else served}

    return features


def _found(log: EventLog, examples: object) -> tuple[np.ndarray, np.ndarray]:
    from ebbing.history import item_keys

    keys = item_keys(log.item_ids)
    place = {key: item for item, key in enumerate(keys.tolist())}
    candidates = np.array([[place[key] for key in row] for row in examples.candidates.tolist()])
    able = np.flatnonzero(np.arange(len(log)) > log.offsets[log.users])
    histories = SERVED(log, able, log.items[able][:, None])
    events = []
    for row in range(len(candidates)):
        same = (
            (log.items[able] == candidates[row, 0])
            & (histories["keys"] == examples.keys[row]).all(axis=1)
            & (histories["ages"] == examples.ages[row]).all(axis=1)
        )
        events.append(int(able[same][0]))
    return np.array(events), candidates
