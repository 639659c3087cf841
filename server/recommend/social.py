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
DOUBT = 5.0
"""Friends taken to have engaged nothing, beside those there are: one friend proves little."""


class Social:
    """Items by what related users engaged."""

    def __init__(self, store: Store) -> None:
        """Set up on a store."""
        self._store = store

    async def shares(self, user_id: str, at_s: float) -> dict[int, float]:
        """Of each item that friends engaged by ``at_s``, by key, the share of them, 0 … 1.

        Friends count with the strength of the relation, and each counts once an item, however
        often and however long ago, as far as their newest engagements tell. What is lately in
        fashion is for popularity to say. Where there are several, the first of them to engage
        an item does not count: what one friend does is chance, what two do is a taste.
        """
        records = self._store.list_relations(user_id, "", MOST_FRIENDS)
        relations = [pb.Relation.FromString(record.body) for record in records]
        worth: dict[int, float] = defaultdict(float)
        friends_seen, whole = 0, 0.0
        for start in range(0, len(relations), STEP):
            friends = relations[start : start + STEP]
            states = self._store.states([friend.other_user_id for friend in friends])
            for friend, state in zip(friends, states, strict=True):
                if state is None:
                    continue
                strength = friend.strength or 1.0
                friends_seen, whole = friends_seen + 1, whole + strength
                for key in set(state.history.keys[state.history.times <= at_s].tolist()):
                    worth[key] += strength
            await asyncio.sleep(0)
        alone = whole / friends_seen if friends_seen > 1 else 0.0
        beyond = {key: strength - alone for key, strength in worth.items()}
        return {key: more / (whole + DOUBT) for key, more in beyond.items() if more > 0}
