"""What the people one knows engage with."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from ebbing.v1 import catalog_service_pb2 as pb
from server.state.store import Store

__all__ = ["Social"]

MOST_FRIENDS = 64
STEP = 16
"""Friends whose states are read before other calls have their turn."""
HALF_LIFE_S = 180 * 86400.0
"""Age at which an engagement of a friend counts half."""


class Social:
    """Items by what related users engaged."""

    def __init__(self, store: Store) -> None:
        """Set up on a store."""
        self._store = store

    async def items(self, user_id: str, at_s: float, most: int) -> list[int]:
        """Keys of items that the user's relations engaged, what most of them had first.

        A friend counts with the strength of the relation, each of their newest engagements with
        what is left of it at ``at_s``; one later than that counts for nothing.
        """
        records = self._store.list_relations(user_id, "", MOST_FRIENDS)
        relations = [pb.Relation.FromString(record.body) for record in records]
        worth: dict[int, float] = defaultdict(float)
        for start in range(0, len(relations), STEP):
            friends = relations[start : start + STEP]
            states = self._store.states([friend.other_user_id for friend in friends])
            for friend, state in zip(friends, states, strict=True):
                if state is None:
                    continue
                keys, times, _ = state.history
                # Each item once a friend: who hears one thing all day is still one person.
                newest = {
                    key: time
                    for key, time in zip(keys.tolist(), times.tolist(), strict=True)
                    if time <= at_s
                }
                for key, time in newest.items():
                    worth[key] += (friend.strength or 1.0) * 2.0 ** ((time - at_s) / HALF_LIFE_S)
            await asyncio.sleep(0)
        best = sorted(worth, key=lambda key: (-worth[key], key))
        return best[:most]
