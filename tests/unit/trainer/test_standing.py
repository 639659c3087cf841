"""By hand; that it is what the gateway reads, for any log, is a property test's to show."""

from __future__ import annotations

import numpy as np
import pytest

from ebbing.events import DEFAULT_EVENT_WEIGHTS, EventType
from ebbing.interest.bank import HALF_LIVES_S
from ebbing.interest.standing import SHARE_RATES
from trainer.data.log import EventLog
from trainer.return_prediction import DAY_S, cases_at, exploded
from trainer.standing import Moments, popularity_at, standing_at

WEIGHT = DEFAULT_EVENT_WEIGHTS[EventType.PURCHASE]


@pytest.fixture
def log() -> EventLog:
    rows = [
        # user, item, type, day
        (0, 0, EventType.PURCHASE, 0),
        (0, 1, EventType.PURCHASE, 10),
        (0, 2, EventType.PURCHASE, 12),
        (0, 0, EventType.IMPRESSION, 13),
        (0, 0, EventType.PURCHASE, 25),
        (1, 1, EventType.PURCHASE, 5),
        (2, 0, EventType.PURCHASE, 30),
    ]
    users, items, types, days = (np.array(column) for column in zip(*rows, strict=True))
    interests = ((("a", 1.0),), (("a", 0.25), ("b", 0.75)), ())
    return EventLog.of("uvw", "xyz", interests, users, items, types, days * DAY_S)


def test_the_standing_at_a_cut(log: EventLog) -> None:
    rows = exploded(log)
    found = standing_at(Moments.of(log), rows, cases_at(rows, 20 * DAY_S, 10 * DAY_S))
    standing = found.standing
    # The first user alone comes back; what tells no interest counts among her events.
    assert standing.owner.tolist() == [0, 0]
    assert standing.count.tolist() == [2, 1]
    assert (standing.first / DAY_S).tolist() == [0, 10]
    assert (standing.last / DAY_S).tolist() == [10, 10]
    assert standing.events.tolist() == [3]
    assert (standing.newest / DAY_S).tolist() == [12]
    assert standing.occasions.tolist() == [3]
    long = HALF_LIVES_S[SHARE_RATES[0]] / DAY_S
    assert standing.attention[:, 0] == pytest.approx(
        [WEIGHT * (2 ** (-12 / long) + 0.25 * 2 ** (-2 / long)), WEIGHT * 0.75 * 2 ** (-2 / long)]
    )
    assert standing.total[0, 0] == pytest.approx(
        WEIGHT * (2 ** (-12 / long) + 2 ** (-2 / long) + 1)
    )
    assert found.case.tolist() == [0, 1]
    assert found.interests.tolist() == [0, 1]


def test_popularity_is_everybodys_attention(log: EventLog) -> None:
    rows, at = exploded(log), 10 * DAY_S
    short = HALF_LIVES_S[SHARE_RATES[-1]] / DAY_S
    a = WEIGHT * (2 ** (-10 / short) + 0.25 * (1 + 2 ** (-5 / short)))
    b = WEIGHT * 0.75 * (1 + 2 ** (-5 / short))
    found = popularity_at(rows, at)
    assert found.shape == (2, len(SHARE_RATES))
    assert found[:, -1] == pytest.approx(np.log([(a + 1) / (a + b + 1), (b + 1) / (a + b + 1)]))
    np.testing.assert_array_equal(popularity_at(exploded(log.until(at)), at), found)
