"""Offline evaluation: leave-one-out over the full catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ebbing.history import encode_history, item_keys
from trainer.data.log import EventLog
from trainer.progress import Reporter

PROTOCOL = (
    "leave-one-out: each user's last event is the test event and the model is asked at its time; "
    "everything before it trains. Full catalogue; seen items are filtered; tests whose item the "
    "user had before, or nobody had in training, are left out."
)
CUTOFF = 10

Scorer = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""(keys, ages, types) of B histories and the user indexes (B,) → scores (B, I) of all items."""


@dataclass(frozen=True)
class RankingFigures:
    """Means over the tests; of hit rate and NDCG at `CUTOFF`."""

    tests: int
    hit_rate: float
    ndcg: float


@dataclass(frozen=True)
class Tests:
    """The test events of a log, and the histories before them."""

    log: EventLog
    events: np.ndarray
    """(T,) event numbers."""

    @classmethod
    def of(cls, log: EventLog) -> Tests:
        """Test events by `PROTOCOL`."""
        last = log.last_events()
        trained = np.bincount(
            np.delete(log.items, last), minlength=len(log.item_ids)
        ).astype(bool)
        fresh = [
            log.items[event] not in log.items[log.offsets[log.users[event]] : event]
            for event in last.tolist()
        ]
        return cls(log, last[np.array(fresh, bool) & trained[log.items[last]]])

    def batches(
        self, size: int
    ) -> Iterator[tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]]:
        """Test event numbers (B,) with the encoded histories (B, L) ×3 as of their times."""
        log = self.log
        keys = item_keys(log.item_ids)[log.items]
        for start in range(0, len(self.events), size):
            events = self.events[start : start + size]
            encoded = [
                encode_history(
                    keys[before], log.times[before], log.types[before], log.times[event]
                )
                for event in events.tolist()
                for before in [slice(log.offsets[log.users[event]], event)]
            ]
            yield events, tuple(np.stack(parts) for parts in zip(*encoded, strict=True))


def popular(log: EventLog) -> np.ndarray:
    """The baseline: events of each item, (I,) — what everybody has, for everybody."""
    return np.bincount(log.items, minlength=len(log.item_ids)).astype(np.float32)
