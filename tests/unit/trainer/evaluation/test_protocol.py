from __future__ import annotations

import numpy as np
import pytest

from tests.harness.rankings import log_of_rows
from trainer.data.log import EventLog
from trainer.evaluation.protocol import (
    EvaluationError,
    leave_one_out,
    parse_cut,
    quantile_cut,
    temporal,
)


def test_the_last_event_of_each_user_is_held_out(log: EventLog) -> None:
    tests = leave_one_out(log, repeats=False)
    assert tests.events.tolist() == [2]
    assert tests.unseen.tolist() == [7]
    assert (tests.alone, tests.repeated) == (1, 1)
    assert len(tests.known) == 9 - 3


def test_what_a_user_had_is_asked_for_again_where_users_come_back(log: EventLog) -> None:
    assert leave_one_out(log, repeats=True).events.tolist() == [2, 5]
    assert not leave_one_out(log).repeats
    back = log_of_rows([(0, 0), (0, 1), (0, 0), (0, 1), (1, 1), (1, 0)])
    found = leave_one_out(back)
    assert found.repeats
    assert found.repeat_share == pytest.approx(1 / 4)
    assert "25.0% of the training events come back" in str(found)
    assert "(as asked)" in str(leave_one_out(back, repeats=True))


def test_tests_after_a_cut_know_what_lies_before() -> None:
    rows = [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 0), (2, 0), (2, 1)]
    log = log_of_rows(rows)
    first = temporal(log, 300.0)
    assert len(first.known) == 4
    # User 0's next item was never trained on; user 1 had the next one; user 2 is new.
    assert log.items[first.events].tolist() == [0]
    assert log.users[first.events].tolist() == [2]
    assert log.items[first.unseen].tolist() == [2]
    assert first.repeated == 1
    every = temporal(log, 300.0, "all", repeats=True)
    assert log.users[every.events].tolist() == [1, 2, 2]
    assert "1970-01-01T00:05:00" in str(first)


def test_a_cut_is_a_share_a_date_or_seconds(log: EventLog) -> None:
    assert parse_cut("80%", log) == quantile_cut(log) == 700.0
    assert (log.times <= parse_cut("50%", log)).mean() >= 0.5
    assert parse_cut("250", log) == 250.0
    assert parse_cut("1970-01-02", log) == 86_400.0
    assert parse_cut("1970-01-02T01:00:00+01:00", log) == 86_400.0
    for nonsense in ("soon", "0%", "100%", "nan", "%"):
        with pytest.raises(EvaluationError, match="is no time to cut at"):
            parse_cut(nonsense, log)


@pytest.mark.parametrize("rows", [[(0, 0)], [(0, 0), (0, 1), (0, 2)], [(0, 0), (1, 0)]])
def test_a_log_without_tests_says_what_it_lacks(rows: list[tuple[int, int]]) -> None:
    with pytest.raises(EvaluationError, match="give a log of users with several events"):
        leave_one_out(log_of_rows(rows))


def test_a_cut_that_leaves_nothing_says_which_way(log: EventLog) -> None:
    with pytest.raises(EvaluationError, match=r"no event up to the cut.*cut later"):
        temporal(log, -1.0)
    with pytest.raises(EvaluationError, match=r"no event after the cut.*cut earlier"):
        temporal(log, 1e9)
    with pytest.raises(EvaluationError, match="makes a test"):
        temporal(log_of_rows([(0, 0), (0, 1)]), 50.0)


def test_events_of_one_moment_are_told_apart_by_their_order() -> None:
    log = EventLog.of(
        ["u", "v"], ["a", "b"], [(), ()], np.array([0, 0, 1, 1]), np.array([0, 1, 1, 0]),
        np.ones(4, np.int32), np.zeros(4),
    )  # fmt: skip
    assert leave_one_out(log).events.tolist() == [1, 3]
