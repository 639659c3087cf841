"""The social matrix: what holds of every one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebbing.social import SocialMatrix

PEOPLE = 7
PERSON = st.integers(0, PEOPLE - 1)
RELATIONS = st.lists(st.tuples(PERSON, PERSON, st.floats(0.01, 100)), max_size=25)
Relations = list[tuple[int, int, float]]


def matrix(relations: Relations, mutual: bool = False) -> SocialMatrix:
    columns = np.array(relations).reshape(-1, 3)
    return SocialMatrix.of(PEOPLE, columns[:, :2].astype(int), columns[:, 2], mutual)


def dense(social: SocialMatrix) -> np.ndarray:
    return social.spread(np.eye(len(social)))


def by_hand(relations: Relations) -> np.ndarray:
    whole = np.zeros((PEOPLE, PEOPLE))
    for one, other, strength in relations:
        if one != other:
            whole[one, other] += strength
    return _rows(whole)


def _rows(whole: np.ndarray) -> np.ndarray:
    totals = whole.sum(axis=1, keepdims=True)
    return np.divide(whole, totals, out=np.zeros_like(whole), where=totals > 0)


@given(RELATIONS)
def test_it_is_what_one_would_write_down(relations: Relations) -> None:
    social = matrix(relations)
    np.testing.assert_allclose(dense(social), by_hand(relations), atol=1e-12)
    for person in range(PEOPLE):
        others, strengths = social.neighbours(person)
        np.testing.assert_array_equal(np.flatnonzero(by_hand(relations)[person]), others)
        np.testing.assert_allclose(by_hand(relations)[person, others], strengths)


@given(RELATIONS, st.floats(0, 4))
def test_rows_add_up_to_one_or_nothing(relations: Relations, damping: float) -> None:
    social = matrix(relations)
    friendly = {one for one, other, _ in relations if one != other}
    for each in (social, social.with_friends_of_friends(damping)):
        sums = dense(each).sum(axis=1)
        np.testing.assert_allclose(sums, [float(one in friendly) for one in range(PEOPLE)])
        assert (each.strengths > 0).all()
        assert not dense(each).diagonal().any()


@given(RELATIONS, st.randoms())
def test_the_order_of_relations_does_not_matter(relations: Relations, random: object) -> None:
    shuffled = list(relations)
    random.shuffle(shuffled)
    np.testing.assert_allclose(dense(matrix(relations)), dense(matrix(shuffled)), atol=1e-12)


@given(RELATIONS, st.floats(0.1, 10))
def test_only_the_proportions_of_strengths_matter(relations: Relations, scale: float) -> None:
    scaled = [(one, other, strength * scale) for one, other, strength in relations]
    np.testing.assert_allclose(dense(matrix(relations)), dense(matrix(scaled)), atol=1e-12)


@given(RELATIONS)
def test_mutual_relations_are_relations_both_ways(relations: Relations) -> None:
    both = relations + [(other, one, strength) for one, other, strength in relations]
    np.testing.assert_allclose(dense(matrix(relations, True)), dense(matrix(both)), atol=1e-12)


@given(RELATIONS, st.floats(0, 4))
def test_friends_of_friends_are_two_steps_away(relations: Relations, damping: float) -> None:
    near = dense(matrix(relations))
    far = near + damping * near @ near
    np.fill_diagonal(far, 0)
    found = dense(matrix(relations).with_friends_of_friends(damping))
    np.testing.assert_allclose(found, _rows(far), atol=1e-12)


@given(RELATIONS)
def test_averages_lie_within_what_is_averaged(relations: Relations) -> None:
    values = np.arange(PEOPLE * 2, dtype=float).reshape(PEOPLE, 2)
    social = matrix(relations)
    spread = social.spread(values)
    for person in range(PEOPLE):
        others, _ = social.neighbours(person)
        if len(others):
            assert (spread[person] >= values[others].min(axis=0) - 1e-9).all()
            assert (spread[person] <= values[others].max(axis=0) + 1e-9).all()
        else:
            assert not spread[person].any()


def test_what_is_no_relation_is_refused() -> None:
    with pytest.raises(ValueError, match="outside 0 to 1"):
        SocialMatrix.of(2, np.array([[0, 2]]))
    for strength in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="a finite strength above 0"):
            SocialMatrix.of(2, np.array([[0, 1]]), np.array([strength]))
    with pytest.raises(ValueError, match="a damping of -1"):
        matrix([]).with_friends_of_friends(-1)
    assert len(SocialMatrix.of(0, np.zeros((0, 2)))) == 0
    assert dense(SocialMatrix.of(3, np.zeros((0, 2)))).sum() == 0
