from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.harness.rankings import log_of_rows
from trainer.evaluation.places import LONGEST, best_of, places_of, ranks_among


@given(st.data())
def test_ranks_are_those_of_counting(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 8))
    scores = np.array(data.draw(st.lists(st.integers(-2, 2), min_size=n, max_size=n)), np.float32)
    wanted = data.draw(st.integers(0, n - 1))
    out = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    out[wanted] = False
    better = [i for i in range(n) if not out[i] and i != wanted and scores[i] >= scores[wanted]]
    (rank,) = ranks_among(scores[None], np.array([wanted]), out[None])
    assert rank == 1 + len(better)
    slate = best_of(scores[None], out[None])[0]
    kept = [int(i) for i in slate if i >= 0]
    assert sorted(kept) == np.flatnonzero(~out).tolist()
    assert (np.diff(scores[kept]) <= 0).all()


def test_what_is_not_known_comes_last() -> None:
    scores = np.array([[1.0, -np.inf, -np.inf, 3.0]])
    nothing = np.zeros((1, 4), bool)
    assert ranks_among(scores, np.array([1]), nothing).tolist() == [4]
    assert best_of(scores, nothing)[0, :4].tolist() == [3, 0, -1, -1]


def test_what_a_user_had_is_passed_over_unless_users_come_back() -> None:
    log = log_of_rows([(0, 0), (0, 1), (0, 2)])
    events = np.array([2])

    def scorer(asked: np.ndarray) -> np.ndarray:
        return np.tile([5.0, 4.0, 3.0, 2.0, 1.0, 0.0], (len(asked), 1))

    fresh, again = (places_of(log, events, scorer, repeats) for repeats in (False, True))
    assert fresh.ranks.tolist() == [1]
    assert fresh.slates[0, :5].tolist() == [2, 3, 4, 5, -1]
    assert again.ranks.tolist() == [3]
    assert again.slates.shape == (1, LONGEST)


def test_no_tests_have_no_places() -> None:
    log = log_of_rows([(0, 0)])
    found = places_of(log, np.zeros(0, np.int64), lambda events: events, False)
    assert found.ranks.shape == (0,)
    assert found.slates.shape == (0, LONGEST)
