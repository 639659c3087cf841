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
"""Events of a user before anything is measured, on average."""
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
    """Give every user an event, and then so many of random users that it is some on average.

    Had all the same number, their rows would be alike, and lie in pages that are full.

    Args:
        store: where to.
        users: how many.
        written: is called after each group.
    """
    chance = random.Random(users)
    first = list(range(users))
    chance.shuffle(first)
    for n in range(0, PRELOADED * users, PRELOADED_AT_ONCE):
        store.append(
            [
                event(
                    chance,
                    10**12 + i,
                    first[i] if i < users else chance.randrange(users),
                    START_US - PRELOADED * 5 * DAY_US + i * (5 * DAY_US // users),
                )
                for i in range(n, min(n + PRELOADED_AT_ONCE, PRELOADED * users))
            ]
        )
        written()
