"""Diversity: likeness, spreading, caps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.recommend.diversity import capped, intra_list_diversity, similarity, spread

FOOTBALL, TENNIS, JAZZ, NOTHING = (
    (("sports/football", 1.0),),
    (("sports/tennis", 2.0),),
    (("music/jazz", 1.0),),
    (),
)


def test_likeness_is_by_what_items_are_about_parents_included() -> None:
    alike = similarity([FOOTBALL, TENNIS, JAZZ, NOTHING, FOOTBALL])
    assert alike[0, 4] == pytest.approx(1.0)
    assert alike[0, 1] == pytest.approx(0.5)
    assert alike[0, 2] == 0.0
    assert alike[3].tolist() == [0.0, 0.0, 0.0, 1.0, 0.0]
    np.testing.assert_allclose(alike, alike.T)


def test_without_diversity_the_order_stays() -> None:
    alike = similarity([FOOTBALL, FOOTBALL, JAZZ])
    assert spread(np.array([3.0, 2.0, 1.0]), alike, 3, 0.0) == [0, 1, 2]
    assert spread(np.array([3.0, 2.0, 1.0]), alike, 2, 0.0) == [0, 1]


def test_with_diversity_the_unlike_comes_sooner() -> None:
    alike = similarity([FOOTBALL, FOOTBALL, JAZZ])
    assert spread(np.array([1.0, 0.9, 0.5]), alike, 3, 0.5) == [0, 2, 1]


@given(
    data=st.lists(
        st.tuples(st.sampled_from([FOOTBALL, TENNIS, JAZZ, NOTHING]), st.floats(0, 1e6)),
        max_size=12,
    ),
    wanted=st.integers(0, 15),
    diversity=st.floats(0, 1),
)
def test_spreading_chooses_each_once_and_the_best_first(
    data, wanted: int, diversity: float
) -> None:
    interests = [pair[0] for pair in data]
    scores = np.sort(np.array([pair[1] for pair in data], float))[::-1]
    chosen = spread(scores, similarity(interests), wanted, diversity)
    assert len(chosen) == len(set(chosen)) == min(wanted, len(data))
    if chosen and diversity < 1 and scores[0] > scores[1:].max(initial=-1):
        assert chosen[0] == 0


def test_more_diversity_is_more_diverse() -> None:
    random = np.random.default_rng(1)
    interests = [FOOTBALL] * 20 + [[FOOTBALL, TENNIS, JAZZ][k] for k in random.integers(3, size=20)]
    scores = np.sort(random.random(40))[::-1]
    alike = similarity(interests)
    lists = [spread(scores, alike, 10, d) for d in (0.0, 0.3, 0.7)]
    diverse = [intra_list_diversity(alike[np.ix_(one, one)]) for one in lists]
    assert diverse == sorted(diverse)
    assert diverse[0] < diverse[-1]


def test_caps_move_the_surplus_behind_and_lose_nothing() -> None:
    interests = [FOOTBALL, FOOTBALL, FOOTBALL, JAZZ, NOTHING, NOTHING, NOTHING]
    assert capped(interests, 2, range(7)) == [0, 1, 3, 4, 5, 6, 2]
    assert capped(interests, 0, range(7)) == list(range(7))
    both = ((("a", 0.2), ("b", 0.8)),)
    assert capped([*both, (("b", 1.0),), (("a", 1.0),)], 1, range(3)) == [0, 2, 1]


def test_diversity_of_short_lists() -> None:
    assert intra_list_diversity(similarity([])) == 0.0
    assert intra_list_diversity(similarity([JAZZ])) == 0.0
    assert intra_list_diversity(similarity([JAZZ, FOOTBALL])) == 1.0
