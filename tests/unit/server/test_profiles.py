"""The profile of a user: everything said of each interest, in one order."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from ebbing.interest.article import drift, softmax_probabilities
from ebbing.interest.assessment import assess, half_life
from ebbing.interest.bank import PERIOD_S
from ebbing.interest.forgetting import ForgettingParameters
from ebbing.interest.profile import interest_vectors, previous_interest_vector
from ebbing.interest.states import InterestState
from ebbing.interest.trace import TraceTable
from server import profiles
from server.profiles import Profile

PARAMETERS = ForgettingParameters.builtin()
START_S = PERIOD_S * 2800
DAY_S = 86400.0


ALPHA = 5.0


class User(NamedTuple):
    """What a profile is made of."""

    traces: TraceTable
    at_s: float


def user(*events: tuple[float, tuple[tuple[str, float], ...]], days: float) -> User:
    """A user with (days, interests) events, so many days after the start."""
    table = TraceTable.from_events((START_S + d * DAY_S, 1.0, i) for d, i in events)
    return User(table, START_S + days * DAY_S)


def profile_of(user: User, roll_up: bool, alpha: float = ALPHA) -> Profile:
    traces = user.traces.roll_up() if roll_up else user.traces
    return profiles.profile_of(traces, user.at_s, PARAMETERS, alpha)


FOOTBALL, TENNIS, MUSIC = ("sports/football", 1.0), ("sports/tennis", 1.0), ("music", 1.0)


def test_everything_is_in_the_order_of_the_traces() -> None:
    ann = user((0, (FOOTBALL,)), (1, (FOOTBALL, MUSIC)), (9, (MUSIC,)), days=12)
    profile = profile_of(ann, False)
    assert profile.traces.names == ("sports/football", "music")
    vectors = interest_vectors(ann.traces, ann.at_s)
    np.testing.assert_array_equal(profile.vectors.blended, vectors.blended)
    np.testing.assert_array_equal(profile.previous, previous_interest_vector(ann.traces, ann.at_s))
    np.testing.assert_array_equal(profile.half_life_s, half_life(ann.traces, ann.at_s, PARAMETERS))
    assessed = assess(ann.traces, ann.at_s, PARAMETERS)
    np.testing.assert_array_equal(profile.assessed.retention, assessed.retention)
    assert profile.drift == drift(vectors.blended, profile.previous)


def test_strongest_first() -> None:
    ann = user((0, (TENNIS,)), (0, (FOOTBALL,)), (1, (FOOTBALL,)), (1, (MUSIC,)), days=2)
    profile = profile_of(ann, False)
    strength = profile.vectors.blended[profile.strongest]
    assert (np.diff(strength) <= 0).all()
    assert profile.traces.names[profile.strongest[0]] == "sports/football"


def test_an_interest_not_engaged_this_period_has_its_past_strength() -> None:
    profile = profile_of(user((6, (TENNIS,)), (8, (MUSIC,)), days=9), False)
    before = dict(zip(profile.traces.names, profile.previous, strict=True))
    assert before["sports/tennis"] > 0
    assert before["music"] == 0


def test_rolled_up_to_the_first_component() -> None:
    ann = user((0, (FOOTBALL,)), (1, (TENNIS,)), (2, (MUSIC,)), days=3)
    profile = profile_of(ann, True)
    assert set(profile.traces.names) == {"sports", "music"}
    counts = dict(zip(profile.traces.names, profile.traces.count, strict=True))
    assert counts == {"sports": 2, "music": 1}
    assert len(profile.assessed.retention) == len(profile.half_life_s) == 2


@pytest.mark.parametrize("roll_up", [False, True])
def test_a_user_without_interests(roll_up: bool) -> None:
    profile = profile_of(user(days=1), roll_up)
    assert profile.drift is None
    assert profile.article_score is None
    assert profile.probabilities.size == 0
    assert profile.strongest == []
    assert profile.assessed.retention.size == 0


def test_waiting_makes_interests_fade() -> None:
    events = [(float(d), (FOOTBALL,)) for d in range(0, 30, 3)]
    fresh = profile_of(user(*events, days=27), False)
    stale = profile_of(user(*events, days=400), False)
    assert stale.assessed.retention[0] < fresh.assessed.retention[0]
    assert fresh.assessed.states[0] == InterestState.ACTIVE
    assert stale.assessed.states[0] == InterestState.FORGOTTEN


def test_the_articles_numbers() -> None:
    ann = user((0, (TENNIS,)), (0, (FOOTBALL,)), (8, (FOOTBALL,)), (8, (MUSIC,)), days=9)
    profile = profile_of(ann, False)
    forgetting = 1.0 - profile.assessed.retention
    np.testing.assert_allclose(profile.probabilities, softmax_probabilities(forgetting, ALPHA))
    strength = profile.vectors.blended
    score = float(strength @ profile.probabilities / strength.sum())
    assert profile.article_score == pytest.approx(score, rel=1e-12)


def test_without_alpha_all_interests_are_alike() -> None:
    ann = user((0, (TENNIS,)), (8, (FOOTBALL,)), (8, (MUSIC,)), days=9)
    profile = profile_of(ann, False, alpha=0.0)
    np.testing.assert_allclose(profile.probabilities, 1 / 3)
    assert profile.article_score == pytest.approx(1 / 3)
