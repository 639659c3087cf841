"""Offline evaluation of retrieval and ranking: leave-one-out over the full catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from ebbing.features import candidate_features
from ebbing.history import item_keys
from ebbing.interest.forgetting import ForgettingParameters
from ebbing.progress import Reporter
from trainer.data.log import EventLog
from trainer.data.replay import History, histories_before, state_before

PROTOCOL = (
    "leave-one-out: each user's last event is the test, asked for at its own time; all events "
    "before it train; full catalogue; seen items filtered; tests of an item the user had before "
    "or nobody had in training are left out"
)
CUTOFF = 10

ORDERS = {
    "popular": "the items most had, the same for everybody",
    "retrieval": "the retrieval model",
    "retrieval_then_ranking": "its candidates by relevance alone",
    "retrieval_plus_ranking": "its candidates by retrieval score + log-odds of relevance",
}
"""What is measured beside each other, and how it is called for people."""

RetrievalFunction = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, ...]]
RankingFunction = Callable[..., Tensor]


@dataclass(frozen=True)
class Figures:
    """Means over tests."""

    tests: int
    """How many there were; the means are 0 without any."""
    hit_rate_at_10: float
    """Share of tests whose item is among the first ten."""
    ndcg_at_10: float
    """Mean of 1 / log2(1 + place) where it is, 0 where it is not."""

    @classmethod
    def of(cls, places: np.ndarray) -> Figures:
        """From the place of each test's item, counted from 0; `CUTOFF` or more is a miss."""
        hit = places < CUTOFF
        n = max(len(places), 1)
        gain = float((1.0 / np.log2(places[hit] + 2.0)).sum())
        return cls(len(places), float(hit.sum() / n), gain / n)


class Retriever:
    """A retrieval model, eager or exported, as item indexes of a log."""

    def __init__(self, model: RetrievalFunction, log: EventLog) -> None:
        self.model = model
        keys = item_keys(log.item_ids)
        self.order = np.argsort(keys)
        self.sorted = keys[self.order]

    def __call__(self, keys: np.ndarray, ages: np.ndarray, types: np.ndarray) -> np.ndarray:
        """Encoded histories (B, L) → (B, K) item indexes, best first; −1 where not in the log."""
        return self.scored(keys, ages, types)[0]

    def scored(
        self, keys: np.ndarray, ages: np.ndarray, types: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """As a call, with the scores (B, K) beside."""
        found, scores = [], []
        for start in range(0, len(keys), 256):
            part = slice(start, start + 256)
            with torch.no_grad():
                best, score, *_ = self.model(
                    torch.from_numpy(keys[part]),
                    torch.from_numpy(ages[part]),
                    torch.from_numpy(types[part]),
                )
            place = np.searchsorted(self.sorted, best.numpy()).clip(max=len(self.sorted) - 1)
            found.append(np.where(self.sorted[place] == best.numpy(), self.order[place], -1))
            scores.append(score.numpy())
        return np.concatenate(found), np.concatenate(scores)


def last_event_tests(log: EventLog) -> np.ndarray:
    """Event numbers of the tests of a log, by `PROTOCOL`."""
    last = log.last_events()
    trained = np.bincount(np.delete(log.items, last), minlength=len(log.item_ids)) > 0
    fresh = np.array(
        [
            log.items[event] not in log.items[log.offsets[log.users[event]] : event]
            for event in last.tolist()
        ],
        bool,
    )
    return last[fresh & trained[log.items[last]]]


def evaluate_retrieval(
    log: EventLog,
    tests: np.ndarray,
    retriever: Retriever,
    advance: Callable[[int], None] = lambda _: None,
) -> Figures:
    """Figures of a retrieval model on tests (event numbers); `advance` is told of those done."""
    places = []
    for events, history in _batches(log, tests):
        found = retriever(*history)
        places += [
            _place(_unseen(log, event, row), log.items[event])
            for event, row in zip(events.tolist(), found, strict=True)
        ]
        advance(len(events))
    return Figures.of(np.array(places, np.int64))


def evaluate_popular(log: EventLog, tests: np.ndarray) -> Figures:
    """Figures of the baseline: the items most had in training, the same for everybody."""
    trained = np.delete(log.items, log.last_events())
    order = np.argsort(-np.bincount(trained, minlength=len(log.item_ids)), kind="stable")
    longest = int(np.diff(log.offsets).max(initial=0))
    order = order[: longest + CUTOFF]
    places = [_place(_unseen(log, event, order), log.items[event]) for event in tests.tolist()]
    return Figures.of(np.array(places, np.int64))


def evaluate_all(
    log: EventLog,
    retriever: Retriever,
    ranker: RankingFunction,
    parameters: ForgettingParameters,
    reporter: Reporter,
    reranked: int | None = None,
) -> dict[str, dict[str, dict[str, float]]]:
    """All figures of a pair of models on a log.

    Returns:
        `full_catalogue`: popular and retrieval on every test; `reranking`: three orders of the
        retrieved candidates on at most `reranked` tests, evenly spread, or on every one.
    """
    tests = last_event_tests(log)
    some = tests[:: -(-len(tests) // reranked) or 1] if reranked else tests
    with reporter.stage("evaluation", len(tests) + len(some), "tests") as stage:
        full = {
            "popular": evaluate_popular(log, tests),
            "retrieval": evaluate_retrieval(log, tests, retriever, stage.advance),
        }
        orders = evaluate_reranking(log, some, retriever, ranker, parameters, stage.advance)
    return {
        group: {name: asdict(figures) for name, figures in of_group.items()}
        for group, of_group in (("full_catalogue", full), ("reranking", orders))
    }


def told(
    figures: Mapping[str, Mapping[str, Mapping[str, float]]],
) -> Iterator[tuple[str, Mapping[str, float]]]:
    """What to tell people of `evaluate`'s figures: titles and rows, none twice."""
    told_before: list[tuple[str, Mapping[str, float]]] = []
    for group in ("full_catalogue", "reranking"):
        for name, row in figures[group].items():
            # With few tests the orders are measured on all of them, retrieval's own among them.
            if (name, row) not in told_before:
                told_before.append((name, row))
                yield ORDERS[name], row


def evaluate_reranking(
    log: EventLog,
    tests: np.ndarray,
    retriever: Retriever,
    ranker: RankingFunction,
    parameters: ForgettingParameters,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, Figures]:
    """Figures of the retrieved candidates in three of `ORDERS`, on the same tests."""
    keys = item_keys(log.item_ids)
    places: dict[str, list[int]] = {name: [] for name in ORDERS if name != "popular"}
    for events, history in _batches(log, tests):
        found, scores = retriever.scored(*history)
        for number, event in enumerate(events.tolist()):
            candidates = _unseen(log, event, found[number])
            features = candidate_features(
                state_before(log, event),
                [log.interests[item] for item in candidates.tolist()],
                float(log.times[event]),
                parameters,
            )
            with torch.no_grad():
                relevance = ranker(
                    *[torch.from_numpy(part[number : number + 1]) for part in history],
                    torch.from_numpy(keys[candidates][None]),
                    torch.from_numpy(features[None]),
                )[0].numpy()
            score = scores[number][np.isin(found[number], candidates)]
            odds = np.clip(relevance, 1e-6, 1 - 1e-6)
            odds = np.log(odds / (1 - odds))
            orders = (score, relevance, score + odds)
            for found_at, order in zip(places.values(), orders, strict=True):
                best = np.argsort(-order, kind="stable")
                found_at.append(_place(candidates[best], log.items[event]))
            advance(1)
    return {name: Figures.of(np.array(found, np.int64)) for name, found in places.items()}


def _batches(log: EventLog, tests: np.ndarray) -> Iterator[tuple[np.ndarray, History]]:
    for start in range(0, len(tests), 256):
        events = tests[start : start + 256]
        yield events, histories_before(log, events)


def _unseen(log: EventLog, event: int, items: np.ndarray) -> np.ndarray:
    seen = log.items[log.offsets[log.users[event]] : event]
    return items[(items >= 0) & ~np.isin(items, seen)]


def _place(items: np.ndarray, wanted: int) -> int:
    where = np.flatnonzero(items[:CUTOFF] == wanted)
    return int(where[0]) if len(where) else CUTOFF
