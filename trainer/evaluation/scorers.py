"""Who answers: a model, or one of the baselines that are always measured beside it.

A scorer gives every item of a log a score before each of some events, higher for what is likelier;
−inf is for items it does not know. Baselines score by whole numbers, no two alike, so that chance
decides nothing.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ebbing.history import item_keys
from trainer.data.log import EventLog
from trainer.data.replay import histories_before
from trainer.evaluation.placing import Placing
from trainer.evaluation.protocol import EvaluationError, HeldOut

RECENT_DAYS = 30.0
"""The window in which recent popularity is counted, up to the moment asked about."""


class Scorer(Protocol):
    """Something that can be asked."""

    def __call__(self, events: np.ndarray) -> np.ndarray:
        """Scores (B, I) of the log's items just before B of its events."""
        ...


class CatalogueModel(Protocol):
    """A retrieval model that scores all it knows, eager or exported."""

    def scores(self, keys: Tensor, ages: Tensor, types: Tensor) -> Tensor:
        """Encoded histories (B, L) → (B, V) scores."""
        ...

    def catalogue(self) -> Tensor:
        """(V,) item keys of the scores, ascending."""
        ...

    def vectors(self) -> Tensor:
        """(V, D) item vectors."""
        ...


class ModelScorer:
    """A retrieval model on the items of a log."""

    def __init__(self, model: Any, log: EventLog, placing: Placing | None = None) -> None:
        """Set up.

        Args:
            model: a retrieval model that is a `CatalogueModel` too.
            log: whose items are scored.
            placing: where items that the model does not know belong; None leaves them last.

        Raises:
            EvaluationError: the model knows none of the log's items.
        """
        self.model = model
        self.log = log
        wanted = item_keys(log.item_ids)
        known = model.catalogue().numpy()
        place = np.searchsorted(known, wanted).clip(max=len(known) - 1)
        self.known = known[place] == wanted
        """(I,) bool: whether the model knows each of the log's items."""
        self.place = place[self.known]
        if not self.known.any():
            raise EvaluationError(
                f"the model knows none of the {len(log.item_ids):,} items of this log (it was "
                f"trained on {len(known):,} others): give a log of the same catalogue, or train "
                "on this one"
            )
        self.placed = np.flatnonzero(~self.known) if placing else np.zeros(0, np.int64)
        """(N,) items that are placed by what they are about."""
        if placing and len(self.placed):
            self.placed_at = placing(log, self.placed)

    def __call__(self, events: np.ndarray) -> np.ndarray:
        """As `Scorer`.

        Raises:
            EvaluationError: a score is not a number.
        """
        with torch.no_grad():
            history = [torch.from_numpy(part) for part in histories_before(self.log, events)]
            own = self.model.scores(*history).float().numpy()[:, self.place]
            users = self.model(*history)[2].float().numpy() if len(self.placed) else None
        scores = np.full((len(events), len(self.known)), -np.inf, np.float32)
        scores[:, self.known] = own
        if users is not None:
            vectors, popularity = self.placed_at
            scores[:, self.placed] = users @ vectors.T + popularity
        if np.isnan(scores).any() or not np.isfinite(own).all():
            raise EvaluationError("a score of the retrieval model is not a number: train again")
        return scores

    def vectors(self) -> np.ndarray:
        """(I, D) item vectors, NaN for items the model does not know and nothing places."""
        own = self.model.vectors().float().numpy()
        vectors = np.full((len(self.known), own.shape[1]), np.nan, np.float32)
        vectors[self.known] = own[self.place]
        if len(self.placed):
            vectors[self.placed] = self.placed_at[0]
        return vectors


class Popular:
    """The items most had in training, the same for everybody."""

    def __init__(self, tests: HeldOut) -> None:
        self.order = popularity_order(tests.known)

    def __call__(self, events: np.ndarray) -> np.ndarray:
        """As `Scorer`."""
        return np.broadcast_to(self.order, (len(events), len(self.order)))


class RecentlyPopular:
    """The items most had in training within the last `RECENT_DAYS`; among equals, the most had."""

    def __init__(self, log: EventLog, tests: HeldOut) -> None:
        self.log = log
        self.order = popularity_order(tests.known)
        by_time = np.argsort(tests.known.times, kind="stable")
        self.times, self.items = tests.known.times[by_time], tests.known.items[by_time]

    def __call__(self, events: np.ndarray) -> np.ndarray:
        """As `Scorer`; of nothing at or after the moment asked about."""
        at = self.log.times[events]
        starts = np.searchsorted(self.times, at - RECENT_DAYS * 86_400.0)
        stops = np.searchsorted(self.times, at)
        n = len(self.order)
        scores = np.empty((len(events), n))
        for row, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
            scores[row] = np.bincount(self.items[start:stop], minlength=n) * float(n) + self.order
        return scores


class Repeating:
    """What the user had, the newest first; then the items most had."""

    def __init__(self, log: EventLog, tests: HeldOut) -> None:
        self.log = log
        self.order = popularity_order(tests.known)

    def __call__(self, events: np.ndarray) -> np.ndarray:
        """As `Scorer`."""
        scores = np.broadcast_to(self.order, (len(events), len(self.order))).copy()
        rows, past = had_before(self.log, events)
        # Events ascend in time within a user, so that the newest of an item is written last.
        scores[rows, self.log.items[past]] = len(self.order) + past
        return scores


def popularity_order(known: EventLog) -> np.ndarray:
    """(I,) float64: 0 for the item least had … I − 1 for the most; the newer first among equals."""
    n = len(known.item_ids)
    newest = np.full(n, -np.inf)
    np.maximum.at(newest, known.items, known.times)
    order = np.lexsort((-np.arange(n), newest, np.bincount(known.items, minlength=n)))
    place = np.empty(n)
    place[order] = np.arange(n)
    return place


def had_before(log: EventLog, events: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What users had before events: (N,) rows of `events`, (N,) event numbers, both ascending."""
    starts = log.offsets[log.users[events]]
    lengths = events - starts
    rows = np.repeat(np.arange(len(events)), lengths)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return rows, np.repeat(starts, lengths) + within
