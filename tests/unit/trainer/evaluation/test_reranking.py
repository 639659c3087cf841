from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ebbing.history import item_keys
from ebbing.interest.forgetting import ForgettingParameters
from tests.harness.rankings import ITEMS, log_of_rows
from trainer.data.log import EventLog
from trainer.evaluation.protocol import leave_one_out
from trainer.evaluation.reranking import MISSED, Reranking, rerank
from trainer.retriever import Retriever


def always(log: EventLog, *best: int) -> Retriever:
    keys = torch.from_numpy(item_keys(ITEMS))[list(best)]

    def model(history: Tensor, ages: Tensor, types: Tensor) -> tuple[Tensor, ...]:
        # Scores so far apart that no log-odds outweigh them.
        scores = -1000.0 * torch.arange(len(keys))
        return keys.expand(len(history), -1), scores.expand(len(history), -1)

    return Retriever(model, log)


def ranker(keys: Tensor, ages: Tensor, types: Tensor, candidates: Tensor, _: Tensor) -> Tensor:
    """Knows that item 2 is wanted."""
    return (candidates == int(item_keys(["i2"])[0])).float()


def run(log: EventLog, *best: int) -> Reranking:
    return rerank(
        log,
        leave_one_out(log).events,
        always(log, *best),
        ranker,
        ForgettingParameters.builtin(),
        False,
        np.random.default_rng(1),
    )


def test_the_ranker_has_the_last_word(log: EventLog) -> None:
    found = run(log, 3, 4, 2)
    assert {name: ranks.tolist() for name, ranks in found.ranks.items()} == {
        "retrieval": [3],
        "retrieval_then_ranking": [1],
        "retrieval_plus_ranking": [3],
    }


def test_what_was_had_is_no_candidate_and_what_is_not_found_is_missed(log: EventLog) -> None:
    assert run(log, 0, 1, 4, 2).ranks["retrieval"].tolist() == [2]
    assert run(log, 3).ranks["retrieval_then_ranking"].tolist() == [MISSED]


def test_relevance_is_measured_on_the_wanted_and_on_negatives(log: EventLog) -> None:
    found = run(log, 0, 3, 4, 2)
    # Items 0 and 1 were had and 2 is wanted: of the others, two come from the catalogue, two from
    # the candidates.
    assert found.wanted.tolist() == [True, False, False, False, False]
    figures = found.figures()
    assert figures["accuracy"] == figures["precision"] == figures["recall"] == figures["f1"] == 1.0
    assert figures["auc"] == 1.0


def test_users_who_had_everything_leave_fewer_negatives() -> None:
    log = log_of_rows([(0, 0), (0, 1), (0, 3), (0, 4), (0, 5), (0, 2), (1, 2), (1, 0)])
    found = run(log, 2)
    assert len(found.wanted) < 10
    assert found.wanted.sum() == 2
