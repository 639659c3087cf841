"""What retention reads of small lives, by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ebbing.interest.bank import HALF_LIVES_S
from ebbing.interest.standing import (
    DAY_S,
    FALLS_BY_WAITING,
    FEATURES,
    GROWS_BY_WAITING,
    SHARE_RATES,
    Standing,
    features,
    occupied,
    standing_of,
    usual_gap_s,
)
from ebbing.interest.trace import TraceTable

T = 1.7e9
GAP_S = 30 * DAY_S


def life(**days: list[float]) -> TraceTable:
    """Interests, each engaged on some days."""
    return TraceTable.from_events(
        (T + day * DAY_S, 1.0, [(name, 1.0)]) for name, on in days.items() for day in on
    )


def read(table: TraceTable, day: float) -> dict[str, np.ndarray]:
    return dict(zip(FEATURES, features(standing_of(table), T + day * DAY_S, GAP_S).T, strict=True))


def test_features_by_hand() -> None:
    found = read(life(tea=[0, 10, 20], rum=[18]), 25)
    short = float(np.exp2(-DAY_S / HALF_LIVES_S[SHARE_RATES[-1]]))
    tea = [short**k for k in (0, 10, 20)]
    left = (sum(tea) + short**2) * short**5
    expected = {
        "frequency": np.log1p([3, 1]),
        "once": np.log1p([0, 1]),
        "recency": np.log1p([5, 7]),
        "gap": np.log1p([10, 30]),
        "overdue": np.log1p([0.5, 7 / 30]),
        "short_share": np.log(
            (np.array([sum(tea), short**2]) + 0.02) / (sum(tea) + short**2 + 0.1)
        ),
        "event_share": np.log([0.75, 0.25]),
        "activity": np.log1p([4, 4]),
        "recent_activity": np.log1p([left, left]),
        "breadth": np.log1p([2, 2]),
        "repetition": np.log([3 / 4, 3 / 4]),
        "absence": np.log1p([5, 5]),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-12, err_msg=name)


def test_the_rates_are_those_nearest_two_years_half_a_year_and_two_weeks() -> None:
    for rate, days in zip(SHARE_RATES, (730, 180, 14), strict=True):
        distances = np.abs(np.log(HALF_LIVES_S / (days * DAY_S)))
        assert distances[rate] == distances.min()


def test_waiting_moves_the_features_that_say_so_and_no_other() -> None:
    table = life(tea=[0, 10, 20], rum=[18])
    soon, late = (features(standing_of(table), T + day * DAY_S, GAP_S) for day in (20, 90))
    moved = {i: np.sign(column) for i, column in enumerate((late - soon).T)}
    for i, signs in moved.items():
        wanted = 1 if i in GROWS_BY_WAITING else -1 if i in FALLS_BY_WAITING else 0
        assert signs.tolist() == [wanted, wanted], FEATURES[i]


def test_gaps_are_an_hour_at_least_and_the_default_after_one_event() -> None:
    count, first, last = np.array([1.0, 2.0, 3.0]), np.full(3, T), T + np.array([0.0, 0.0, 1e6])
    assert usual_gap_s(count, first, last, GAP_S).tolist() == [GAP_S, 3600.0, 5e5]
    assert usual_gap_s(count[:1], first[:1], last[:1], 1.0).tolist() == [3600.0]


def test_steadiness_counts_the_slots_a_user_was_there_in() -> None:
    start = float(np.ceil(T / (4 * DAY_S))) * 4 - T / DAY_S
    together = life(tea=[start, start + 1, start + 3.9], rum=[start + 2])
    apart = life(tea=[start, start + 4, start + 12], rum=[start + 400])
    assert occupied(together.occasion_maps).tolist() == [1, 1, 1]
    # After 400 days the first three slots are no longer known.
    assert occupied(apart.occasion_maps).tolist() == [1, 3, 1]


def test_nobody_and_nothing() -> None:
    assert features(standing_of(TraceTable.empty()), T, GAP_S).shape == (0, len(FEATURES))
    no_interest = TraceTable.empty().add([], T)
    assert features(standing_of(no_interest), T, GAP_S).shape == (0, len(FEATURES))


def test_many_users_are_read_as_each_is() -> None:
    tables = [life(tea=[0, 10, 20], rum=[18]), life(), life(cups=[3])]
    alone = [standing_of(table) for table in tables]
    users = [s for s in alone if len(s.events)]
    together = Standing(
        np.array([0, 0, 1]),
        *(
            np.concatenate([getattr(s, name) for s in users])
            for name in Standing.__dataclass_fields__
            if name != "owner"
        ),
    )
    at = np.array([25.0, 4.0]) * DAY_S + T
    expected = [features(s, moment, GAP_S) for s, moment in zip(users, at, strict=True)]
    np.testing.assert_allclose(
        features(together, at, GAP_S), np.concatenate(expected), rtol=1e-12, atol=1e-12
    )


def test_a_moment_before_the_newest_event_reads_as_that_event() -> None:
    standing = standing_of(life(tea=[0, 10]))
    early = features(standing, T, GAP_S)
    np.testing.assert_array_equal(early, features(standing, T + 10 * DAY_S, GAP_S))


@pytest.mark.parametrize("n", [1, 128])
def test_interests_as_many_as_there_are(n: int) -> None:
    table = TraceTable.from_events((T, 1.0, [(f"i/{k}", 1.0)]) for k in range(n))
    read_of = features(standing_of(table), T, GAP_S)
    assert read_of.shape == (n, len(FEATURES))
    assert np.isfinite(read_of).all()
    np.testing.assert_array_equal(read_of, np.broadcast_to(read_of[0], read_of.shape))
    assert replace(standing_of(table)).owner.shape == (n,)
