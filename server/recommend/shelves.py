"""Shelves: the items of each interest, for those whom no model knows what to offer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from server.catalog import Catalog
from server.recommend.about import topics
from server.state.store import ItemRecord, Store

__all__ = ["Shelves"]

MOST_POPULAR = 4096
"""Popular items that are put on shelves before all others."""
MOST_ITEMS = 100_000
"""Items of the catalogue that are put on shelves at all."""
PER_SHELF = 64
PAGE = 1000


class Shelves:
    """Items by interest, parents included: the popular ones first, then whatever there is.

    What is popular is looked at anew now and then, the catalogue whenever it has changed.
    """

    def __init__(
        self, store: Store, catalog: Catalog, clock: Callable[[], float], fresh_s: float
    ) -> None:
        """Set up; what is popular is looked at after ``fresh_s`` seconds by ``clock``."""
        self._store = store
        self._catalog = catalog
        self._clock = clock
        self._fresh_s = fresh_s
        self._looked_at = -float("inf")
        self._version = -1
        self._popular: dict[str, list[int]] = {}
        self._others: dict[str, list[int]] = {}

    async def of_all(self, interests: Iterable[str], each: int) -> list[int]:
        """Keys of a few items of each interest, one of each in turn, none twice."""
        await self._refresh()
        rows = [self._of(interest)[:each] for interest in interests]
        keys = (row[place] for place in range(each) for row in rows if place < len(row))
        return list(dict.fromkeys(keys))

    def _of(self, interest: str) -> list[int]:
        keys = [*self._popular.get(interest, ()), *self._others.get(interest, ())]
        return list(dict.fromkeys(keys))[:PER_SHELF]

    async def _refresh(self) -> None:
        version = self._store.catalogue_version()
        if version != self._version:
            self._version, self._others = version, await self._catalogue()
            self._looked_at = -float("inf")
        if self._clock() - self._looked_at > self._fresh_s:
            keys = self._store.popular(MOST_POPULAR)
            items = self._catalog.lookup(keys)
            self._popular = _by_interest(items[key] for key in keys if key in items)
            self._looked_at = self._clock()

    async def _catalogue(self) -> dict[str, list[int]]:
        shelves: dict[str, list[int]] = {}
        after, seen = "", 0
        while page := self._store.list_items(after, PAGE):
            _by_interest(page, shelves)
            after, seen = page[-1].item_id, seen + len(page)
            if len(page) < PAGE or seen >= MOST_ITEMS:
                break
            # Whoever is asked meanwhile has a turn.
            await asyncio.sleep(0)
        return shelves


def _by_interest(
    items: Iterable[ItemRecord], shelves: dict[str, list[int]] | None = None
) -> dict[str, list[int]]:
    """Keys of items on the shelf of each of their interests, in order."""
    filled = {} if shelves is None else shelves
    for item in items:
        for path in topics(item.interests):
            shelf = filled.setdefault(path, [])
            if len(shelf) < PER_SHELF:
                shelf.append(item.item_key)
    return filled
