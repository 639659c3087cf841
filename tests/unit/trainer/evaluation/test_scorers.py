from __future__ import annotations

import numpy as np
import torch

from tests.harness.rankings import Told, log_of_rows
from trainer.data.log import EventLog
from trainer.evaluation.protocol import leave_one_out
from trainer.evaluation.scorers import (
    ModelScorer,
    Popular,
    RecentlyPopular,
    Repeating,
    had_before,
    popularity_order,
)

DAY_S = 86_400.0


def test_popular_counts_training_events_only(log: EventLog) -> None:
    tests = leave_one_out(log)
    (scores,) = Popular(tests)(tests.events)
    # Training has 0 three times, 3, 2 and 1 once, the newer first; 4 and 5 never.
    assert np.argsort(-scores).tolist() == [0, 3, 2, 1, 4, 5]


def test_recent_popularity_is_of_the_days_before_the_test_alone() -> None:
    rows = [(0, 0), (0, 0), (1, 0), (1, 1), (2, 2), (2, 3), (3, 4), (3, 0)]
    log = log_of_rows(rows, step=10 * DAY_S)
    tests = leave_one_out(log, repeats=True)
    scorer = RecentlyPopular(log, tests)
    (scores,) = scorer(tests.events[-1:])
    # The last test is on day 70: of training, items 2 (day 40) and 4 (day 60) lie within 30 days.
    assert np.argsort(-scores)[:2].tolist() == [4, 2]
    (first,) = scorer(tests.events[:1])
    assert np.argmax(first) == 0
    assert len(set(first.tolist())) == len(first)


def test_own_items_come_first_the_newest_before_all() -> None:
    log = log_of_rows([(0, 3), (0, 1), (0, 3), (0, 2), (1, 5), (1, 5), (1, 1)])
    tests = leave_one_out(log, repeats=True)
    (scores,) = Repeating(log, tests)(np.array([3]))
    assert np.argsort(-scores)[:3].tolist() == [3, 1, 5]


def test_the_order_of_popularity_has_no_ties() -> None:
    order = popularity_order(log_of_rows([(0, 0), (1, 1), (2, 1)]))
    assert sorted(order.tolist()) == [0, 1, 2, 3, 4, 5]
    assert order.argmax() == 1


def test_what_was_had_before_is_the_users_own(log: EventLog) -> None:
    rows, past = had_before(log, np.array([2, 5, 8]))
    assert rows.tolist() == [0, 0, 1, 1]
    assert past.tolist() == [0, 1, 3, 4]


def test_items_a_model_does_not_know_are_placed_where_it_is_told(log: EventLog) -> None:
    class WithUsers(Told):
        def __call__(self, *history: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return (*super().__call__(*history), torch.tensor([[2.0, 1.0]]))

    ids = log.item_ids[:4]
    model = WithUsers(ids, lambda keys, items: items.float().expand(len(keys), -1))
    model.vectors = lambda: torch.zeros(4, 2)
    asked = []

    def place(log: EventLog, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        asked.append(items.tolist())
        return np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0.5, -3.0])

    scorer = ModelScorer(model, log, place)
    assert scorer(np.array([2])).tolist() == [[0.0, 1.0, 2.0, 3.0, 2.5, -2.0]]
    assert scorer.vectors()[4:].tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert asked == [[4, 5]]
    last = ModelScorer(model, log)
    assert last(np.array([2]))[0, 4:].tolist() == [-np.inf, -np.inf]
    assert np.isnan(last.vectors()[4:]).all()
