"""Whom the figures are of: tests by what is known of the user, the item and its interest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ebbing.interest.assessment import states_at
from ebbing.interest.forgetting import ForgettingParameters
from ebbing.interest.states import InterestState
from trainer.data.log import EventLog
from trainer.data.replay import state_before
from trainer.evaluation.protocol import HeldOut, first_time
from trainer.evaluation.scorers import popularity_order

FEW_EVENTS, MANY_EVENTS = 5, 20
"""A new user has had fewer events than the first, a well-known one no fewer than the second."""

FEW_TRAINED = 5
"""A new item was had fewer times in training."""

POPULAR_SHARE = 0.2
"""Share of the items, those most had in training, that are the popular ones."""


@dataclass(frozen=True)
class Slice:
    """Some of the tests."""

    name: str
    title: str
    """For people."""
    which: np.ndarray
    """(T,) bool."""


def slices_of(
    log: EventLog,
    tests: HeldOut,
    events: np.ndarray,
    parameters: ForgettingParameters,
    at_most: int,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Slice]:
    """Slices of tests (T,) by event number; one without any test is left out.

    Where the item's interest stands is found for at most `at_most` tests, evenly spread; the others
    are in none of those slices. `advance` is told of them.
    """
    history = events - log.offsets[log.users[events]]
    trained = np.bincount(tests.known.items, minlength=len(log.item_ids))[log.items[events]]
    popular = popular_items(tests.known)[log.items[events]]
    seen = trained > 0
    slices = [
        Slice("new_users", f"new users: under {FEW_EVENTS} events", seen & (history < FEW_EVENTS)),
        Slice(
            "regular_users",
            f"users with {FEW_EVENTS} to {MANY_EVENTS - 1} events",
            seen & (history >= FEW_EVENTS) & (history < MANY_EVENTS),
        ),
        Slice(
            "known_users",
            f"well-known users: {MANY_EVENTS} events or more",
            seen & (history >= MANY_EVENTS),
        ),
        Slice("popular_items", f"popular items: the first {POPULAR_SHARE:.0%}", seen & popular),
        Slice("tail_items", "tail items: all others", seen & ~popular),
        Slice(
            "new_items",
            f"new items: under {FEW_TRAINED} times in training",
            seen & (trained < FEW_TRAINED),
        ),
        Slice("unseen_items", "unseen items: never in training (not in the whole)", ~seen),
    ]
    if tests.repeats:
        fresh = first_time(log)[events]
        slices += [
            Slice("own_items", "items the user had before", seen & ~fresh),
            Slice("other_items", "items new to the user", seen & fresh),
        ]
    every = -(-len(events) // at_most) or 1
    some = np.arange(0, len(events), every)
    state, main = np.full(len(events), -1), main_interests(log)
    for row in some.tolist():
        state[row] = _state_of_interest(log, int(events[row]), main, parameters)
        advance(1)
    sampled = "" if every == 1 else f" (every {_ordinal(every)} test)"
    forgotten, unknown = int(InterestState.FORGOTTEN), int(InterestState.UNSPECIFIED)
    slices += [
        Slice(
            "alive_interests",
            f"interest alive{sampled}",
            seen & (state > unknown) & (state != forgotten),
        ),
        Slice("forgotten_interests", f"interest forgotten{sampled}", seen & (state == forgotten)),
        Slice("other_interests", f"interest new to the user{sampled}", seen & (state == unknown)),
    ]
    return [one for one in slices if one.which.any()]


def popular_items(known: EventLog) -> np.ndarray:
    """(I,) bool: the first `POPULAR_SHARE` of the items that were had in training."""
    order = popularity_order(known)
    popular: np.ndarray = order >= len(order) - POPULAR_SHARE * len(np.unique(known.items))
    return popular


def main_interests(log: EventLog) -> list[str | None]:
    """What each item is about most; among equals what the fewest items are about."""
    items: dict[str, int] = {}
    for interests in log.interests:
        for name, _ in interests:
            items[name] = items.get(name, 0) + 1
    return [
        min(interests, key=lambda one: (-one[1], items[one[0]], one[0]))[0] if interests else None
        for interests in log.interests
    ]


def _state_of_interest(
    log: EventLog, event: int, main: list[str | None], parameters: ForgettingParameters
) -> int:
    """`InterestState` of the main interest of an event's item, just before the event; −1 if the
    item is about nothing."""
    name = main[log.items[event]]
    if name is None:
        return -1
    table = state_before(log, event)
    if name not in table.names:
        return int(InterestState.UNSPECIFIED)
    states = states_at(table, float(log.times[event]), parameters)
    return int(states[table.names.index(name)])


def _ordinal(number: int) -> str:
    return {2: "second", 3: "third"}.get(number, f"{number}th")
