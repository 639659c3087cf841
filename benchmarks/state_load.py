"""What the benchmark of the state writes: events of random users, about interests of their own."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from google.protobuf.timestamp_pb2 import Timestamp

from ebbing.history import item_key
from ebbing.v1.user_event_pb2 import UserEvent
from server.state.store import DAY_US, Interaction, Store

__all__ = ["PRELOADED", "START_US", "event", "events", "preload"]

START_US = 1_750_000_000_000_000
INTERESTS = 30
"""Interests of a user."""
ITEMS = 20_000
STEP_US = 40_000_000
"""Time between events."""
PRELOADED = 4
"""Events of each user before anything is measured."""
PRELOADED_AT_ONCE = 2000


def events(seed: int, users: int, first: int) -> Iterator[Interaction]:
    """Events without end, of random users among so many, each about two interests of its user."""
    chance = random.Random(seed)
    number = first
    while True:
        user = chance.randrange(users)
        yield event(chance, number, user, START_US + number * STEP_US)
        number += 1


def event(
    chance: random.Random,
    number: int,
    user: int,
    time_us: int,
    interests: tuple[tuple[str, float], ...] = (),
) -> Interaction:
    """One event of a user, about two interests of the user's unless others are named."""
    topic = int(INTERESTS * chance.random() ** 2)
    item = f"item-{chance.randrange(ITEMS):06}"
    moment = Timestamp()
    moment.FromMicroseconds(time_us)
    body = UserEvent(
        event_id=f"{number:016x}-{chance.getrandbits(32):08x}",
        user_id=f"user-{user:08}",
        item_id=item,
        event_type="EVENT_TYPE_CLICK",
        event_time=moment,
        session_id=f"session-{chance.getrandbits(32):08x}",
    )
    about = (f"topic/{(user + topic) % 400:03}", 1.0), (f"brand/{(user * 7 + topic) % 90}", 0.5)
    return Interaction(
        body.event_id,
        body.user_id,
        item_key(item),
        int(body.event_type),
        time_us,
        1.0,
        interests or about,
        body.SerializeToString(deterministic=True),
    )


def preload(store: Store, users: int, written: Callable[[], None] = lambda: None) -> None:
    """Give every user some events, one a user in each of so many passes, in random order.

    Whatever is loaded once in order lies in full pages, each of which splits when it first grows.

    Args:
        store: where to.
        users: how many.
        written: is called after each group.
    """
    chance = random.Random(users)
    for n in range(PRELOADED):
        order = list(range(users))
        chance.shuffle(order)
        time_us = START_US - (PRELOADED - n) * 5 * DAY_US
        for start in range(0, users, PRELOADED_AT_ONCE):
            store.append(
                [
                    event(chance, (n + 1) * 10**12 + user, user, time_us + user)
                    for user in order[start : start + PRELOADED_AT_ONCE]
                ]
            )
            written()
