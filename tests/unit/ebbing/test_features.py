"""What the ranking model is told of candidates, by small examples."""

from __future__ import annotations

import numpy as np
import pytest

from ebbing.features import CANDIDATE_FEATURES, NEVER_DAYS, candidate_features
from ebbing.interest.assessment import assess
from ebbing.interest.forgetting import ForgettingParameters
from ebbing.interest.trace import TraceTable

DAY_S = 86400.0
T = 1.7e9
BUILTIN = ForgettingParameters.builtin()
TABLE = TraceTable.from_events(
    [(T, 1.0, [("tea", 1.0)]), (T, 1.0, [("rum", 1.0)]), (T, 2.0, [("tea", 1.0)])]
)
UNKNOWN = [0.0, 0.0, 0.0, 0.0, np.log1p(NEVER_DAYS), 0.0]


def features(*items, table: TraceTable = TABLE, at: float = T + 3 * DAY_S):
    return candidate_features(table, items, at, BUILTIN)


def test_a_candidate_about_one_interest_has_its_values() -> None:
    (row,) = features([("tea", 1.0)])
    retention = assess(TABLE, T + 3 * DAY_S, BUILTIN).retention[0]
    expected = [0.75, 0.75, retention, np.log1p(2), np.log1p(3), 1.0]
    np.testing.assert_allclose(row, expected, rtol=1e-6)


def test_shares_weigh_a_candidate_about_several() -> None:
    tea, rum, mixed = features([("tea", 1.0)], [("rum", 1.0)], [("tea", 3.0), ("rum", 1.0)])
    np.testing.assert_allclose(mixed, 0.75 * tea + 0.25 * rum, rtol=1e-5)


@pytest.mark.parametrize("item", [[], [("unheard", 1.0)]])
def test_what_the_user_does_not_know(item) -> None:
    np.testing.assert_allclose(features(item)[0], UNKNOWN, rtol=1e-6)
    np.testing.assert_allclose(features(item, table=TraceTable.empty())[0], UNKNOWN, rtol=1e-6)


def test_partly_known() -> None:
    row = features([("tea", 1.0), ("unheard", 3.0)])[0]
    assert row[CANDIDATE_FEATURES.index("known_share")] == pytest.approx(0.25)


def test_shape_and_type() -> None:
    assert features().shape == (0, len(CANDIDATE_FEATURES))
    many = features(*[[("tea", 1.0)]] * 5)
    assert many.shape == (5, len(CANDIDATE_FEATURES))
    assert many.dtype == np.float32
    assert np.isfinite(many).all()


def test_the_past_cannot_be_asked_for() -> None:
    with pytest.raises(ValueError, match="before the newest event"):
        features([("tea", 1.0)], at=T - 1)
