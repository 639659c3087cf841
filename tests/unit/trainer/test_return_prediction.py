"""The protocol by hand, and against figures an independent script measured on real logs."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from ebbing.events import DEFAULT_EVENT_WEIGHTS, EventType
from trainer.baselines import BASELINES, Past, predict
from trainer.data.log import EventLog, read_log
from trainer.metrics import auc, log_loss, user_auc
from trainer.return_prediction import DAY_S, HORIZON_S, cases_at, cut_of, exploded

SHARED = Path(__file__).parents[4] / "shared" / "data"


def log_of(
    rows: list[tuple[str, str, float]], interests: dict[str, str], types: list[int] | None = None
) -> EventLog:
    """A log of (user, item, day) rows; interests of an item joined by `|`."""
    users = list(dict.fromkeys(user for user, _, _ in rows))
    items = list(interests)
    return EventLog.of(
        users,
        items,
        [
            tuple((name, 1 / len(text.split("|"))) for name in text.split("|") if name)
            for text in interests.values()
        ],
        np.array([users.index(user) for user, _, _ in rows]),
        np.array([items.index(item) for _, item, _ in rows]),
        np.array(types or [EventType.PURCHASE] * len(rows)),
        np.array([day * DAY_S for _, _, day in rows]),
    )


ROWS = [
    ("a", "x", 0), ("a", "xy", 4), ("a", "y", 12), ("a", "z", 15),
    ("b", "x", 1), ("b", "x", 9), ("b", "x", 10),
    ("c", "y", 3), ("c", "x", 21),
    ("d", "x", 5), ("d", "z", 20),
]  # fmt: skip
ITEMS = {"x": "p", "y": "q", "z": "r", "xy": "p|q", "bare": ""}


def test_cases_by_hand() -> None:
    rows = exploded(log_of(ROWS, ITEMS))
    assert rows.names == ("p", "q", "r")
    assert len(rows) == len(ROWS) + 1
    cases = cases_at(rows, 10 * DAY_S, 10 * DAY_S)
    # Up to day 10: a engaged p (0, 4) and q (4), b p, c q, d p. Within days 10 < t ≤ 20: a came
    # back to q and began r; d came back with r alone. b's event at the cut is past, so b does not
    # come back; c comes a day too late.
    found = [
        (rows.names[interest], user)
        for user, interest in zip(cases.users.tolist(), cases.interests.tolist(), strict=True)
    ]
    assert found == [("p", 0), ("q", 0), ("p", 3)]
    assert cases.returned.tolist() == [False, True, False]


def test_rows_carry_weight_and_share() -> None:
    events = [("a", "xy", 1.0), ("a", "x", 2.0), ("a", "bare", 3.0), ("a", "y", 4.0)]
    types = [EventType.PURCHASE, EventType.DISLIKE, EventType.CLICK, EventType.CLICK]
    rows = exploded(log_of(events, ITEMS, [int(kind) for kind in types]))
    # A dislike leaves no trace, and an item without interests has nothing to leave one on.
    assert rows.events.tolist() == [0, 0, 3]
    assert [rows.names[interest] for interest in rows.interests.tolist()] == ["p", "q", "q"]
    purchase, click = (
        DEFAULT_EVENT_WEIGHTS[kind] for kind in (EventType.PURCHASE, EventType.CLICK)
    )
    assert rows.weights.tolist() == [purchase / 2, purchase / 2, click]


def test_the_cut_is_a_quantile_of_interest_rows() -> None:
    events = [("a", "x", float(day)) for day in range(5)] + [("a", "xy", 10.0)]
    rows = exploded(log_of(events, ITEMS))
    # Seven rows: 0 1 2 3 4 10 10; the 80 % quantile lies at place 0.8 · 6 = 4.8.
    assert cut_of(rows) == pytest.approx((4 + 0.8 * 6) * DAY_S)


def test_common_interests_are_left_out_of_many() -> None:
    items = {f"i{number}": f"n{number}" for number in range(41)}
    events = [(f"u{user}", f"i{item}", 1.0) for user in range(10) for item in (0, 1 + user)]
    events += [("u0", "i20", 2.0), ("u1", "i20", 2.0), ("u2", "i20", 2.0)]
    rows = exploded(log_of(events, items))
    # n0 is everybody's; n20 is of 3 of 10 users, which is not over 30 %.
    assert [rows.names[i] for i in np.flatnonzero(rows.common())] == ["n0"]
    assert len(rows.asked()) == len(rows) - 10
    few = exploded(log_of(events, {name: f"m{n % 40}" for n, name in enumerate(items)}))
    assert len(few.names) == 40
    assert not few.common().any()


def test_a_log_without_interests_has_no_rows() -> None:
    rows = exploded(log_of([("a", "bare", 1.0)], {"bare": ""}))
    assert len(rows) == len(rows.asked()) == 0
    assert len(cases_at(rows, 0.0, DAY_S)) == 0


def test_cuts_nest() -> None:
    """What is known at a cut does not change by what comes after it."""
    log = log_of(ROWS, ITEMS)
    at = 10 * DAY_S
    whole, cut = Past.of(exploded(log), at, 10 * DAY_S), exploded(log.until(at + 10 * DAY_S))
    np.testing.assert_array_equal(whole.count, [2, 1, 1])
    np.testing.assert_array_equal(whole.recency, [6, 6, 5])
    np.testing.assert_array_equal(whole.gap, [4, 30, 30])
    np.testing.assert_array_equal(whole.activity, [[3, 2], [3, 2], [1, 1]])
    # Engagements of p in (0, 10], anybody's: a's at 4, b's three, d's at 5; of q: a's and c's.
    np.testing.assert_array_equal(whole.popularity, [5, 2, 5])
    again = Past.of(cut, at, 10 * DAY_S)
    for name in ("count", "recency", "gap", "activity", "popularity"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(again, name))


@pytest.mark.parametrize(
    ("name", "cases", "base_rate_loss"),
    [
        ("beauty", 45_068, 0.28107),
        ("fsq-even", 6_149, 0.43871),
        ("calgary", 691, 0.50604),
        ("journey", 27_615, 0.21854),
        ("ciaodvd", 727, 0.57511),
    ],
)
def test_real_logs_give_the_published_yardstick(
    name: str, cases: int, base_rate_loss: float
) -> None:
    if not SHARED.is_dir():
        pytest.skip(f"the real logs are not here: {SHARED} is absent")
    rows = exploded(read_log(SHARED / name)).asked()
    at = cut_of(rows)
    now, earlier = Past.of(rows, at, HORIZON_S), Past.of(rows, at - HORIZON_S, HORIZON_S)
    returned = now.cases.returned
    assert len(now.cases) == cases

    def loss(baseline: str) -> float:
        return log_loss(predict(BASELINES[baseline], earlier, now).probability, returned)

    assert round(loss("base_rate"), 5) == base_rate_loss
    with (SHARED / "yardstick.csv").open() as file:
        yardstick = {row["model"]: row for row in csv.DictReader(file) if row["data"] == name}
    # The yardstick's user-AUC is the mean over users, whatever the number of their cases.
    frequency = predict(BASELINES["frequency"], earlier, now)
    theirs = yardstick["frequency"]
    assert auc(frequency.score, returned) == pytest.approx(float(theirs["AUC"]), abs=3e-5)
    assert user_auc(frequency.score, returned, now.cases.users) == pytest.approx(
        float(theirs["uAUC"]), abs=1e-4
    )
    for ours, named in {
        "frequency": "frequency",
        "exponential_last_event": "exp. half-life, last event",
        "power_law_last_event": "power law, last event",
        "exponential": "exp. decayed count",
        "act_r": "ACT-R base level",
        "recency_frequency_gap": "HLR-like logistic",
        "recency_frequency_gap_popularity": "HLR-like logistic + prior",
        "recency_frequency_gap_stickiness": "HLR-like + prior + sticky",
    }.items():
        said = predict(BASELINES[ours], earlier, now)
        assert auc(said.score, returned) == pytest.approx(float(yardstick[named]["AUC"]), abs=0.006)
        assert loss(ours) == pytest.approx(float(yardstick[named]["logloss"]), abs=0.007)
