from __future__ import annotations

import numpy as np
import pytest

from trainer.evaluation.resampling import Bootstrap


def test_the_same_seed_draws_the_same_users() -> None:
    figures = np.random.default_rng(1).random((40, 2))
    users = np.repeat(np.arange(20), 2)
    one, two = (Bootstrap(200, 5).means(figures, users) for _ in range(2))
    assert (one.drawn == two.drawn).all()
    assert (Bootstrap(200, 6).means(figures, users).drawn != one.drawn).any()


def test_means_are_those_of_the_users_drawn() -> None:
    figures = np.array([[1.0, 0.0], [0.0, np.nan], [4.0, 2.0]])
    users = np.array([3, 3, 8])
    means = Bootstrap(50, 2).means(figures, users)
    assert means.values.tolist() == pytest.approx([5 / 3, 1.0])
    chosen = np.random.default_rng(2).integers(2, size=(50, 2))
    for drawn, pair in zip(means.drawn, chosen, strict=True):
        rows = np.concatenate([figures[users == (3, 8)[user]] for user in pair])
        assert drawn.tolist() == pytest.approx(np.nanmean(rows, axis=0).tolist())


def test_an_interval_covers_what_it_should() -> None:
    random = np.random.default_rng(4)
    covered = 0
    for trial in range(100):
        values = random.random((60, 1)) < 0.3
        interval = Bootstrap(200, trial).means(values.astype(float), np.arange(60)).interval(0)
        assert interval.low <= interval.value <= interval.high
        covered += interval.low <= 0.3 <= interval.high
    assert 86 <= covered <= 100


def test_a_difference_is_paired() -> None:
    noise = np.random.default_rng(5).random(100) * 10
    figures = np.column_stack([noise + 0.1, noise])
    means = Bootstrap(300, 1).means(figures, np.arange(100))
    difference = means.difference(0, 1)
    assert (difference.low, difference.high) == pytest.approx((0.1, 0.1))
    alone = means.interval(0)
    assert alone.high - alone.low > 0.5


def test_a_figure_nobody_has_is_no_number() -> None:
    means = Bootstrap(10).means(np.full((4, 1), np.nan), np.arange(4))
    assert np.isnan([means.values[0], means.interval(0).low]).all()
    assert np.isnan(Bootstrap(10).means(np.zeros((0, 1)), np.zeros(0, int)).interval(0).value)
