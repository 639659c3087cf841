"""Which items of the history speak for an item of a slate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ebbing.history import EncodedHistory
from server.recommend.diversity import similarity
from server.state.store import Interests, ItemRecord

__all__ = ["because"]

MOST = 3
HALF_LIFE_S = 30 * 86400.0
"""Age at which an engagement speaks half as loud."""


def because(
    slate: Sequence[Interests], history: EncodedHistory, items: Mapping[int, ItemRecord]
) -> list[list[str]]:
    """For each item of a slate the ids of at most three of the history, loudest first.

    An engagement speaks for an item with what they have in common, see
    ``server.recommend.diversity.similarity``, halved with each ``HALF_LIFE_S`` of its age.

    Args:
        slate: interests of each item.
        history: the user's, as the models take it.
        items: what the catalogue knows of it, by key.
    """
    newest = {
        int(key): float(age)
        for key, age in zip(history.keys, history.ages, strict=True)
        if int(key) in items
    }
    had = [items[key] for key in newest]
    if not had or not slate:
        return [[] for _ in slate]
    alike = similarity([*slate, *(item.interests for item in had)])[: len(slate), len(slate) :]
    loud = alike * np.exp2(-np.array(list(newest.values())) / HALF_LIFE_S)
    return [
        [had[i].item_id for i in np.argsort(-row, kind="stable")[:MOST] if row[i] > 0]
        for row in loud
    ]
