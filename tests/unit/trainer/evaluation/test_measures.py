from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.harness.rankings import log_of_rows
from trainer.data.log import EventLog
from trainer.evaluation.measures import (
    CUTOFFS,
    SlateFigures,
    coverage,
    of_slates,
    rank_figures,
    self_information,
)
from trainer.evaluation.places import LONGEST


def slates_of(*rows: list[int]) -> np.ndarray:
    return np.array([row + [-1] * (LONGEST - len(row)) for row in rows], np.int32)


def test_golden_figures_of_ranks() -> None:
    means = {name: values.mean() for name, values in rank_figures(np.array([1, 2, 3, 11])).items()}
    assert means["hit_rate_at_1"] == 0.25
    assert means["hit_rate_at_10"] == 0.75
    assert means["ndcg_at_10"] == pytest.approx((1 + 1 / math.log2(3) + 0.5) / 4)
    assert means["ndcg_at_20"] == pytest.approx(
        (1 + 1 / math.log2(3) + 0.5 + 1 / math.log2(12)) / 4
    )
    assert means["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 11) / 4)
    found = of_slates(means)
    assert found["accuracy"] == 0.25
    assert found["precision_at_10"] == pytest.approx(0.075)
    assert found["recall_at_10"] == 0.75
    assert found["f1_at_10"] == pytest.approx(2 * 0.075 * 0.75 / (0.075 + 0.75))


@given(st.lists(st.integers(1, 60), min_size=1, max_size=20))
def test_figures_are_those_of_slates_looked_through(ranks: list[int]) -> None:
    found = rank_figures(np.array(ranks))
    for k in CUTOFFS:
        relevant = [[int(place == rank) for place in range(1, k + 1)] for rank in ranks]
        gains = [sum(r / math.log2(i + 2) for i, r in enumerate(row)) for row in relevant]
        assert found[f"ndcg_at_{k}"].tolist() == pytest.approx(gains)
        assert found[f"hit_rate_at_{k}"].tolist() == [sum(row) for row in relevant]


def test_coverage_counts_what_anybody_is_shown() -> None:
    assert coverage(slates_of([0, 1], [1, 2], []), 6) == 0.5


def test_self_information_is_that_of_the_share_of_users() -> None:
    # Three users and one assumed: item 0 was had by two of four, item 1 by one (twice).
    known = log_of_rows([(0, 0), (1, 0), (2, 1), (2, 1)])
    assert self_information(known)[:3].tolist() == [1.0, 2.0, 2.0]


@given(st.lists(st.integers(0, 5), min_size=2, max_size=6, unique=True))
def test_diversity_is_that_of_all_pairs(items: list[int]) -> None:
    log = log_of_rows([(0, 0), (1, 1)])
    random = np.random.default_rng(3)
    vectors = random.normal(size=(6, 3))
    vectors[5] = np.nan
    shares = [[("a", 0.5), ("b", 0.5)], [("a", 1.0)], [("b", 0.2), ("c", 0.8)], [], [("c", 1.0)]]
    described = EventLog(**{**vars(log), "interests": (*map(tuple, shares), (("d", 1.0),))})
    names = "abcd"
    dense = np.zeros((6, 4))
    for item, interests in enumerate(described.interests):
        for name, share in interests:
            dense[item, names.index(name)] = share
    found = SlateFigures(described, log, vectors)
    slates = slates_of(items)
    for measured, space in (
        (found.vector_diversity(slates), vectors),
        (found.interest_diversity(slates), dense),
    ):
        own = [row for row in space[items] if np.isfinite(row).all() and row.any()]
        pairs = [
            1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)
            for i, a in enumerate(own)
            for b in own[:i]
        ]
        expected = np.mean(pairs) if pairs else np.nan
        assert measured.tolist() == pytest.approx([expected], abs=1e-6, nan_ok=True)


def test_a_slate_of_nothing_has_no_figures() -> None:
    log = log_of_rows([(0, 0), (1, 1)])
    figures = SlateFigures(log, log, np.ones((6, 2)))
    empty = slates_of([])
    for measured in (figures.novelty, figures.interest_diversity, figures.vector_diversity):
        assert np.isnan(measured(empty)).all()
