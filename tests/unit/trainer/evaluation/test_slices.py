from __future__ import annotations

import numpy as np

from ebbing.interest.forgetting import ForgettingParameters
from tests.harness.rankings import log_of_rows
from trainer.data.log import EventLog
from trainer.evaluation.protocol import leave_one_out
from trainer.evaluation.slices import main_interests, popular_items, slices_of

DAY_S = 86_400.0


def sliced(log: EventLog, at_most: int = 100) -> dict[str, list[bool]]:
    tests = leave_one_out(log, repeats=True)
    events = np.sort(np.concatenate([tests.events, tests.unseen]))
    slices = slices_of(log, tests, events, ForgettingParameters.builtin(), at_most)
    return {one.name: one.which.tolist() for one in slices}


def test_users_and_items_are_told_apart_by_what_is_known() -> None:
    rows = [(0, n % 4) for n in range(6)] + [(1, 0), (1, 5)] + [(2, 4), (2, 0)]
    found = sliced(log_of_rows(rows))
    assert found["new_users"] == [False, False, True]
    assert found["regular_users"] == [True, False, False]
    assert "known_users" not in found
    assert found["unseen_items"] == [False, True, False]
    assert found["own_items"] == [True, False, False]
    assert found["other_items"] == [False, False, True]


def test_a_forgotten_interest_is_one_the_engine_calls_so() -> None:
    """Item n is about n % 2: user 0 returns to odd after years, user 1 at once, 2 never had it."""
    day = [0, 1, 2, 1500, 1501, 0, 1, 2, 3, 0, 1, 2]
    rows = [(0, 1), (0, 3), (0, 1), (0, 0), (0, 3)]
    rows += [(1, 1), (1, 3), (1, 1), (1, 3), (2, 0), (2, 2), (2, 3)]
    log = log_of_rows(rows)
    moved = EventLog(**{**vars(log), "times": np.array(day) * DAY_S})
    found = sliced(moved)
    assert found["forgotten_interests"] == [True, False, False]
    assert found["alive_interests"] == [False, True, False]
    assert found["other_interests"] == [False, False, True]


def test_of_many_tests_some_are_looked_up() -> None:
    rows = [(user, (user + item) % 3) for user in range(10) for item in range(3)]
    log = log_of_rows(rows)
    tests = leave_one_out(log)
    slices = slices_of(log, tests, tests.events, ForgettingParameters.builtin(), 4)
    by_state = [one for one in slices if one.name.endswith("_interests")]
    assert sum(int(one.which.sum()) for one in by_state) == 4
    assert all("every third test" in one.title for one in by_state)


def test_the_popular_are_a_fifth_of_the_items_had() -> None:
    rows = [(0, n) for n in range(5)] + [(1, 3)]
    assert popular_items(log_of_rows(rows)).tolist() == [False, False, False, True, False, False]


def test_the_main_interest_is_the_largest_then_the_rarest() -> None:
    log = log_of_rows([(0, 0)])
    half = (("all", 0.5), ("some", 0.5))
    interests = (half, (("all", 0.7), ("some", 0.3)), (("all", 1.0),), (), half, (("all", 1.0),))
    described = EventLog(**{**vars(log), "interests": interests})
    assert main_interests(described) == ["some", "all", "all", None, "some", "all"]
