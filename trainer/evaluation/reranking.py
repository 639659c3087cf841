"""What the ranker makes of the retrieved candidates, and how right its relevance is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ebbing.features import candidate_features
from ebbing.history import item_keys
from ebbing.interest.forgetting import ForgettingParameters
from trainer.data.log import EventLog
from trainer.data.replay import histories_before, state_before
from trainer.evaluation.places import batches
from trainer.evaluation.scorers import had_before
from trainer.metrics import classification
from trainer.retriever import Retriever

RankingFunction = Callable[..., Tensor]

ORDERS = {
    "retrieval": "the retrieval model",
    "retrieval_then_ranking": "its candidates by relevance alone",
    "retrieval_plus_ranking": "its candidates by retrieval score + log-odds of relevance",
}
"""Orders of the retrieved candidates, and how they are called for people."""

RANDOM_NEGATIVES, RETRIEVED_NEGATIVES = 2, 2
"""Items a wanted one is told from, as in training: of the catalogue, and of the candidates."""

MISSED = np.iinfo(np.int64).max
"""Rank of what is not among the candidates."""


@dataclass(frozen=True)
class Reranking:
    """What came of some tests."""

    events: np.ndarray
    """(T,) event numbers of the tests."""
    ranks: Mapping[str, np.ndarray]
    """(T,) ranks of the wanted item by each of `ORDERS`, from 1; `MISSED` where it is no candidate.
    """
    relevance: np.ndarray
    """(N,) relevance of wanted items and negatives."""
    wanted: np.ndarray
    """(N,) bool: which of them were wanted."""

    def figures(self) -> dict[str, float | None]:
        """Relevance as a prediction that an item is wanted, yes from 0.5 on."""
        return classification(self.relevance, self.wanted)


def rerank(
    log: EventLog,
    events: np.ndarray,
    retriever: Retriever,
    ranker: RankingFunction,
    parameters: ForgettingParameters,
    repeats: bool,
    random: np.random.Generator,
    advance: Callable[[int], None] = lambda _: None,
) -> Reranking:
    """Rank the candidates of tests, each with the state just before it.

    Args:
        log: of the tests.
        events: (T,) event numbers.
        retriever: where candidates come from.
        ranker: what `RANKING_INPUTS` → relevance (B, C) is.
        parameters: of the features.
        repeats: whether what a user had is a candidate.
        random: where negatives come from.
        advance: told of tests done.
    """
    keys = item_keys(log.item_ids)
    ranks: dict[str, list[int]] = {name: [] for name in ORDERS}
    relevance, wanted = [], []
    for part in batches(events, 256):
        history = histories_before(log, part)
        found, scores = retriever.scored(*history)
        for number, event in enumerate(part.tolist()):
            had = log.items[had_before(log, np.array([event]))[1]]
            candidate = found[number] >= 0
            if not repeats:
                candidate &= ~np.isin(found[number], had)
            candidates, score = found[number][candidate], scores[number][candidate]
            item = int(log.items[event])
            drawn = _negatives(len(keys), had, candidates, item, random)
            asked = np.concatenate([candidates, [item], drawn]).astype(np.int64)
            features = candidate_features(
                state_before(log, event),
                [log.interests[one] for one in asked.tolist()],
                float(log.times[event]),
                parameters,
            )
            with torch.no_grad():
                said = ranker(
                    *[torch.from_numpy(one[number : number + 1]) for one in history],
                    torch.from_numpy(keys[asked][None]),
                    torch.from_numpy(features[None]),
                )[0].numpy()
            relevance.append(said[len(candidates) :])
            wanted.append(np.arange(1 + len(drawn)) == 0)
            of_candidates = said[: len(candidates)]
            odds = np.clip(of_candidates.astype(np.float64), 1e-6, 1 - 1e-6)
            odds = np.log(odds / (1 - odds))
            for places, order in zip(
                ranks.values(), (score, of_candidates, score + odds), strict=True
            ):
                places.append(_rank(order, candidates == item))
            advance(1)
    return Reranking(
        events,
        {name: np.array(found, np.int64) for name, found in ranks.items()},
        np.concatenate(relevance or [np.zeros(0)]).astype(np.float64),
        np.concatenate(wanted or [np.zeros(0, bool)]),
    )


def _negatives(
    n_items: int, had: np.ndarray, candidates: np.ndarray, item: int, random: np.random.Generator
) -> np.ndarray:
    """Items the user did not have; fewer where there are none."""
    taken = np.append(had, item)
    hard = random.permutation(candidates[~np.isin(candidates, taken)])[:RETRIEVED_NEGATIVES]
    anything = random.integers(n_items, size=8 * RANDOM_NEGATIVES + 8)
    easy = anything[~np.isin(anything, taken)][:RANDOM_NEGATIVES]
    return np.concatenate([easy, hard])


def _rank(order: np.ndarray, wanted: np.ndarray) -> int:
    """Rank of the wanted candidate, equals before it."""
    return int((order >= order[wanted][0]).sum()) if wanted.any() else int(MISSED)
