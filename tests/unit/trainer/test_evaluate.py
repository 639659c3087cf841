from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ebbing.history import item_keys
from ebbing.interest.forgetting import ForgettingParameters
from trainer.data.log import EventLog
from trainer.evaluate import (
    Figures,
    Retriever,
    evaluate_popular,
    evaluate_reranking,
    evaluate_retrieval,
    last_event_tests,
    told,
)

ITEMS = [f"i{n}" for n in range(6)]


def make() -> EventLog:
    """Four users: a normal test, a repeated item, an item nobody trained on, a single event."""
    rows = [(0, 0), (0, 1), (0, 2), (1, 2), (1, 0), (1, 2), (2, 0), (2, 5), (3, 3)]
    users, items = (np.array(column) for column in zip(*rows, strict=True))
    return EventLog.of(
        [f"u{n}" for n in range(4)],
        ITEMS,
        [(("a", 1.0),)] * 6,
        users,
        items,
        np.ones(len(rows), np.int32),
        np.arange(len(rows)) * 100.0,
    )


def always(*best: int) -> Retriever:
    keys = torch.from_numpy(item_keys(ITEMS))[list(best)]

    def model(history: Tensor, ages: Tensor, types: Tensor) -> tuple[Tensor, ...]:
        # Scores so far apart that no log-odds outweigh them.
        scores = -1000.0 * torch.arange(len(keys))
        return keys.expand(len(history), -1), scores.expand(len(history), -1)

    return Retriever(model, make())


def test_repeats_and_untrained_items_leave_the_test() -> None:
    assert last_event_tests(make()).tolist() == [2]


def test_seen_items_are_passed_over() -> None:
    log = make()
    figures = evaluate_retrieval(log, last_event_tests(log), always(0, 4, 1, 2))
    # 0 and 1 were seen, so that 2 comes second.
    assert figures == Figures(1, 1.0, 1 / math.log2(3))


def test_what_is_not_found_scores_nothing() -> None:
    log = make()
    assert evaluate_retrieval(log, last_event_tests(log), always(3)) == Figures(1, 0.0, 0.0)


def test_popular_counts_training_events_only() -> None:
    log = make()
    # Unseen by the user: 2 and 3 once in training, 4 and 5 never; ties keep the catalogue's order.
    assert evaluate_popular(log, last_event_tests(log)) == Figures(1, 1.0, 1.0)


def test_the_ranker_has_the_last_word() -> None:
    log = make()
    wanted = int(item_keys(["i2"])[0])

    def ranker(keys: Tensor, ages: Tensor, types: Tensor, candidates: Tensor, _: Tensor) -> Tensor:
        return (candidates == wanted).float()

    figures = evaluate_reranking(
        log, last_event_tests(log), always(3, 4, 2), ranker, ForgettingParameters.builtin()
    )
    assert figures == {
        "retrieval": Figures(1, 1.0, 0.5),
        "retrieval_then_ranking": Figures(1, 1.0, 1.0),
        "retrieval_plus_ranking": Figures(1, 1.0, 0.5),
    }


def test_keys_outside_the_log_are_not_items() -> None:
    def model(history: Tensor, ages: Tensor, types: Tensor) -> tuple[Tensor, ...]:
        keys = torch.tensor([[12345, 2**63 - 1, int(item_keys(["i4"])[0])]])
        return keys, torch.zeros(keys.shape)

    shape = (1, 50)
    found = Retriever(model, make())(
        np.zeros(shape, np.int64), np.zeros(shape, np.float32), np.zeros(shape, np.int32)
    )
    assert found.tolist() == [[-1, -1, 4]]


def test_no_tests_give_no_figures() -> None:
    assert Figures.of(np.zeros(0, np.int64)) == Figures(0, 0.0, 0.0)


def test_a_row_measured_twice_is_told_once():
    one, other = {"tests": 3, "hit_rate_at_10": 0.5}, {"tests": 3, "hit_rate_at_10": 0.4}
    same = {"full_catalogue": {"retrieval": one}, "reranking": {"retrieval": dict(one)}}
    assert [row for _, row in told(same)] == [one]
    differing = {"full_catalogue": {"retrieval": one}, "reranking": {"retrieval": other}}
    assert [row for _, row in told(differing)] == [one, other]
