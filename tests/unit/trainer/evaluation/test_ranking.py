from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from torch import Tensor

from ebbing.history import item_keys
from ebbing.interest.forgetting import ForgettingParameters
from ebbing.progress import Reporter
from tests.harness.rankings import Told, log_of_rows
from trainer.data.log import EventLog
from trainer.evaluation.protocol import EvaluationError, HeldOut, leave_one_out
from trainer.evaluation.ranking import (
    EvaluationConfig,
    RankingEvaluation,
    evaluate_ranking,
)
from trainer.evaluation.resampling import Bootstrap

USERS, ITEMS = 400, 200
IDS = [f"i{n}" for n in range(ITEMS)]


def half(*inputs: Tensor) -> Tensor:
    return torch.full(inputs[3].shape, 0.5)


@pytest.fixture(scope="module")
def many() -> EventLog:
    """Users who have four items each, none twice."""
    random = np.random.default_rng(1)
    items = np.concatenate([random.choice(ITEMS, 4, replace=False) for _ in range(USERS)])
    rows = zip(np.repeat(np.arange(USERS), 4).tolist(), items.tolist(), strict=True)
    return log_of_rows(list(rows), IDS)


def measure(log: EventLog, tests: HeldOut, model: Told, reporter: Reporter) -> RankingEvaluation:
    config = EvaluationConfig(reranked=50, states=50, bootstrap=Bootstrap(100))
    builtin = ForgettingParameters.builtin()
    return evaluate_ranking(log, tests, model, half, builtin, reporter, config)


def cheat(log: EventLog) -> Told:
    """Was told what each user takes after a history."""
    last = log.last_events()
    history = item_keys(log.item_ids)[log.items[last[:, None] + np.arange(-3, 0)]]
    after = dict(zip(map(tuple, history.tolist()), log.items[last].tolist(), strict=True))

    def scores(keys: Tensor, items: Tensor) -> Tensor:
        wanted = [after[tuple(row)] for row in keys[:, -3:].tolist()]
        return (items[None] == torch.tensor(wanted)[:, None]).float()

    return Told(log.item_ids, scores)


def test_who_knows_the_tests_is_always_right(many: EventLog, reporter: Reporter) -> None:
    found = measure(many, leave_one_out(many), cheat(many), reporter).to_json()
    row = found["full_catalogue"]["retrieval"]
    for name in ("hit_rate_at_1", "hit_rate_at_10", "ndcg_at_10", "mrr", "accuracy"):
        assert row[name] == 1.0
    assert row["precision_at_10"] == pytest.approx(0.1)
    assert found["intervals"]["retrieval"]["mrr"] == [1.0, 1.0]
    assert found["reranking"]["retrieval"]["hit_rate_at_1"] == 1.0
    gain = found["gains"]["popular"]["hit_rate_at_10"]
    assert 0.5 < gain["low"] <= gain["value"] <= gain["high"] <= 1.0


def test_who_guesses_is_right_as_often_as_chance_is(many: EventLog, reporter: Reporter) -> None:
    random = torch.Generator().manual_seed(3)
    model = Told(IDS, lambda keys, items: torch.rand(len(keys), ITEMS, generator=random))
    evaluation = measure(many, leave_one_out(many), model, reporter)
    # Three of the items were had, and are not candidates.
    for k in (10, 50):
        chance = k / (ITEMS - 3)
        interval = evaluation.mean("retrieval", f"hit_rate_at_{k}")
        spread = 4 * (chance * (1 - chance) / USERS) ** 0.5
        assert abs(interval.value - chance) < spread
    ranks = evaluation.places["retrieval"].ranks
    assert 1 <= ranks.min() <= ranks.max() <= ITEMS - 3


def test_ranks_are_written_so_that_anybody_can_score_them(
    many: EventLog, reporter: Reporter
) -> None:
    model = Told(IDS, lambda keys, items: -items.float().expand(len(keys), -1))
    tests = leave_one_out(many)
    evaluation = measure(many, tests, model, reporter)
    rows = list(csv.DictReader(evaluation.ranks_csv().splitlines()))
    assert len(rows) == len(tests.events)
    for row, event in zip(rows, tests.events.tolist(), strict=True):
        user = many.users[event]
        had = many.items[many.offsets[user] : event]
        item = int(many.items[event])
        assert row["user_id"] == many.user_ids[user]
        assert row["test_item"] == f"i{item}"
        # Scores fall with the number of the item.
        assert int(row["rank"]) == 1 + item - (had < item).sum()
    again = np.array([int(row["rank"]) for row in rows])
    figures = evaluation.to_json()["full_catalogue"]["retrieval"]
    assert figures["hit_rate_at_20"] == pytest.approx((again <= 20).mean())
    assert figures["mrr"] == pytest.approx((1 / again).mean())


def test_equal_scores_count_against_whoever_gives_them(many: EventLog, reporter: Reporter) -> None:
    model = Told(IDS, lambda keys, items: torch.zeros(len(keys), ITEMS))
    found = measure(many, leave_one_out(many), model, reporter)
    assert set(found.places["retrieval"].ranks.tolist()) == {ITEMS - 3}


def test_figures_are_complete_and_plain_json(many: EventLog, reporter: Reporter) -> None:
    model = Told(IDS, lambda keys, items: items.float().expand(len(keys), -1))
    found = measure(many, leave_one_out(many), model, reporter).to_json()
    json.dumps(found, allow_nan=False)
    assert found["asked"]["tests"] == found["full_catalogue"]["retrieval"]["tests"]
    assert set(found["full_catalogue"]) == {"popular", "recently_popular", "repeat", "retrieval"}
    parts = [one["tests"] for name, one in found["slices"].items() if name.endswith("_users")]
    assert sum(parts) == found["asked"]["tests"]
    assert {"popular_items", "tail_items", "new_users"} <= found["slices"].keys()
    assert found["reranking"]["retrieval_plus_ranking"]["tests"] <= 50
    assert found["relevance"]["accuracy"] is not None
    assert found["relevance"]["auc"] == 0.5


def test_items_nobody_trained_on_are_measured_apart(reporter: Reporter) -> None:
    log = log_of_rows([(0, 0), (0, 1), (1, 1), (1, 5)])
    ids = [f"i{n}" for n in range(5)]
    model = Told(ids, lambda keys, items: items.float().expand(len(keys), -1))
    evaluation = measure(log, leave_one_out(log), model, reporter)
    assert evaluation.known.tolist() == [True] * 5 + [False]
    found = evaluation.to_json()
    assert found["asked"]["tests"] == 1
    assert found["asked"]["left_out"]["items_never_in_training"] == 1
    unseen = found["slices"]["unseen_items"]
    assert unseen["tests"] == 1
    # Of six items one was had, and what the model does not know comes last.
    assert evaluation.places["retrieval"].ranks.tolist() == [4, 5]


def test_a_model_of_another_catalogue_is_refused(many: EventLog, reporter: Reporter) -> None:
    model = Told(["x", "y"], lambda keys, items: torch.zeros(len(keys), 2))
    with pytest.raises(EvaluationError, match="knows none of the 200 items"):
        measure(many, leave_one_out(many), model, reporter)


def test_scores_that_are_not_numbers_are_refused(many: EventLog, reporter: Reporter) -> None:
    model = Told(IDS, lambda keys, items: torch.full((len(keys), ITEMS), torch.nan))
    with pytest.raises(EvaluationError, match="not a number"):
        measure(many, leave_one_out(many), model, reporter)
