"""Examples for the ranker, as it would have met them: the state before each event, nothing after.

State and features come from the code the gateway serves with. What a user was shown in vain or
disliked is the best of negatives; where a log does not say, others are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ebbing.events import DEFAULT_EVENT_WEIGHTS, EventType
from ebbing.features import candidate_features
from ebbing.history import encode_history, item_keys
from ebbing.interest.forgetting import ForgettingParameters
from ebbing.interest.trace import TraceTable
from trainer.data.log import EventLog

History = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Keys, ages and types of B encoded histories, (B, L) each."""

Propose = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""(keys, ages, types) of B histories → (B, K) item indexes a retrieval model would hand over."""


@dataclass(frozen=True)
class ReplayConfig:
    """Which examples are drawn."""

    events: int = 6000
    """Events replayed as positives, drawn over users and times; all if the log has fewer."""
    fewest_untrained: int | None = None
    """If there are so many events that the retrieval model was not trained on, only those are
    replayed: what it says of the others, it remembers. None takes any."""
    random_negatives: int = 2
    """Items drawn from the catalogue for each positive."""
    retrieved_negatives: int = 2
    """Items for each positive that were shown to the user in vain, nearest in time, or, where there
    are none, drawn from those the retrieval model would hand over."""


@dataclass(frozen=True)
class Examples:
    """G moments with C candidates each; candidate 0 is what the user took."""

    keys: np.ndarray
    """(G, L) int64 encoded histories."""
    ages: np.ndarray
    """(G, L) float32."""
    types: np.ndarray
    """(G, L) int32."""
    candidates: np.ndarray
    """(G, C) int64 item keys."""
    features: np.ndarray
    """(G, C, F) float32 candidate features."""

    @property
    def labels(self) -> np.ndarray:
        """(G, C) float32: 1 for what the user took."""
        labels = np.zeros(self.candidates.shape, np.float32)
        labels[:, 0] = 1.0
        return labels

    def take(self, which: np.ndarray) -> Examples:
        """Some of the moments."""
        return Examples(
            self.keys[which],
            self.ages[which],
            self.types[which],
            self.candidates[which],
            self.features[which],
        )


def replay(
    log: EventLog,
    parameters: ForgettingParameters,
    config: ReplayConfig,
    random: np.random.Generator,
    propose: Propose,
    advance: Callable[[int], None] = lambda _: None,
    *,
    shown: EventLog | None = None,
    untrained: np.ndarray | None = None,
    repeats: bool = False,
) -> Examples:
    """Replay a log and draw examples; deterministic in its arguments.

    Args:
        log: engagements, which become positives and histories.
        parameters: how interests are forgotten.
        config: which examples are drawn.
        random: where chance comes from.
        propose: the retrieval model.
        advance: told how many examples are done.
        shown: the log with what showed no interest, of the same users and items.
        untrained: numbers of the events that the retrieval model was not trained on.
        repeats: whether what a user had is recommended again.

    Returns:
        Examples whose negatives are what can be a candidate: unless `repeats`, nothing the user
        had before.

    Raises:
        ValueError: no user has a second event.
    """
    moments = _moments(log, config, random, untrained)
    vain = _shown_in_vain(shown, log) if shown else {}
    histories = histories_before(log, moments)
    candidates = _candidates(log, moments, config, random, propose(*histories), vain, repeats)

    features: list[np.ndarray] = []
    for event, table in zip(moments.tolist(), _states(log, moments), strict=True):
        interests = [log.interests[item] for item in candidates[len(features)].tolist()]
        features.append(candidate_features(table, interests, float(log.times[event]), parameters))
        advance(1)
    return Examples(*histories, item_keys(log.item_ids)[candidates], np.stack(features))


def _moments(
    log: EventLog,
    config: ReplayConfig,
    random: np.random.Generator,
    untrained: np.ndarray | None,
) -> np.ndarray:
    """Event numbers to learn from, ascending: any but a user's first."""
    able = np.ones(len(log), bool)
    able[log.offsets[:-1][np.diff(log.offsets) > 0]] = False
    able = np.flatnonzero(able)
    if not len(able):
        raise ValueError("no user has a second event, so there is no history to rank by")
    if untrained is not None and config.fewest_untrained is not None:
        fresh = np.intersect1d(able, untrained)
        if len(fresh) >= config.fewest_untrained:
            able = fresh
    return np.sort(random.choice(able, size=min(config.events, len(able)), replace=False))


def _candidates(
    log: EventLog,
    moments: np.ndarray,
    config: ReplayConfig,
    random: np.random.Generator,
    proposed: np.ndarray,
    vain: Mapping[int, tuple[np.ndarray, np.ndarray]],
    repeats: bool,
) -> np.ndarray:
    """(G, C) item indexes: what was taken, then what was shown in vain or proposed, then random."""
    rows = []
    for event, offered in zip(moments.tolist(), proposed, strict=True):
        had = log.items[event if repeats else log.offsets[log.users[event]] : event + 1]
        hard = offered[~np.isin(offered, had)]
        anything = random.integers(len(log.item_ids), size=8 * config.random_negatives + 8)
        easy = anything[~np.isin(anything, had)]
        hard = random.permutation(hard)
        if (own := vain.get(int(log.users[event]))) is not None:
            items, times = own
            near = np.argsort(np.abs(times - log.times[event]), kind="stable")
            hard = np.concatenate([items[near], hard])
        hard = hard[: config.retrieved_negatives]
        wanted = config.random_negatives + config.retrieved_negatives
        # A user who had nearly everything is told apart from whatever is at hand.
        negatives = np.concatenate([hard, easy, anything])[:wanted]
        rows.append(np.concatenate([[log.items[event]], negatives]))
    return np.stack(rows).astype(np.int64)


def _shown_in_vain(shown: EventLog, log: EventLog) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Items, each once, and times of what users saw until the log's end and never took, by user."""
    n = len(log.item_ids)
    pairs = shown.users * n + shown.items
    idle = [kind for kind, weight in DEFAULT_EVENT_WEIGHTS.items() if not weight]
    in_vain = np.isin(shown.types, idle) & (shown.times <= log.times.max())
    in_vain &= ~np.isin(pairs, log.users * n + log.items)
    events = np.flatnonzero(in_vain)
    # The newest showing of an item stands for all of them.
    _, newest = np.unique(pairs[events][::-1], return_index=True)
    events = np.sort(events[::-1][newest])
    users, starts = np.unique(shown.users[events], return_index=True)
    parts = np.split(events, starts[1:]) if len(users) else []
    return {
        user: (shown.items[own], shown.times[own])
        for user, own in zip(users.tolist(), parts, strict=True)
    }


def _states(log: EventLog, moments: np.ndarray) -> Iterator[TraceTable]:
    """The state just before each moment, moments ascending."""
    table, user, position = TraceTable.empty(), -1, 0
    for event in moments.tolist():
        if log.users[event] != user:
            user = int(log.users[event])
            table, position = TraceTable.empty(), int(log.offsets[user])
        table = table.add_all(traced_events(log, position, event))
        position = event
        yield table


def state_before(log: EventLog, event: int) -> TraceTable:
    """The user's traces just before an event."""
    return TraceTable.from_events(traced_events(log, int(log.offsets[log.users[event]]), event))


def traced_events(
    log: EventLog, start: int, stop: int
) -> Iterator[tuple[float, float, tuple[tuple[str, float], ...]]]:
    """Events [start, stop) of a log as `TraceTable` takes them, those without a trace left out."""
    for event in range(start, stop):
        weight = DEFAULT_EVENT_WEIGHTS[EventType(int(log.types[event]))]
        if weight > 0:
            yield float(log.times[event]), weight, log.interests[log.items[event]]


def histories_before(log: EventLog, events: np.ndarray) -> History:
    """Encoded histories (B, L) ×3 of the users of some events, just before them."""
    keys = item_keys(log.item_ids)[log.items]
    encoded = []
    for event in events.tolist():
        before = slice(log.offsets[log.users[event]], event)
        encoded.append(
            encode_history(keys[before], log.times[before], log.types[before], log.times[event])
        )
    stacked = [np.stack(part) for part in zip(*encoded, strict=True)]
    return stacked[0], stacked[1], stacked[2]
