"""Shelves: the popular items of each interest, for those whom no model knows what to offer."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from server.catalog import Catalog
from server.state.store import Store

__all__ = ["Shelves"]

MOST_ITEMS = 4096
"""Popular items that are put on shelves."""
PER_SHELF = 64


class Shelves:
    """Popular items by interest, parents included; put up anew now and then."""

    def __init__(
        self, store: Store, catalog: Catalog, clock: Callable[[], float], fresh_s: float
    ) -> None:
        """Set up; shelves older than ``fresh_s`` seconds by ``clock`` are put up anew."""
        self._store = store
        self._catalog = catalog
        self._clock = clock
        self._fresh_s = fresh_s
        self._made_at = -float("inf")
        self._shelves: dict[str, list[int]] = {}

    def of(self, interest: str) -> list[int]:
        """Keys of the popular items about an interest, the most popular ``PER_SHELF``, in order."""
        if self._clock() - self._made_at > self._fresh_s:
            self._shelves = self._put_up()
            self._made_at = self._clock()
        return self._shelves.get(interest, [])

    def of_all(self, interests: Iterable[str], each: int) -> list[int]:
        """The most popular few of each interest, one of each in turn, none twice."""
        rows = [self.of(interest)[:each] for interest in interests]
        keys = (row[place] for place in range(each) for row in rows if place < len(row))
        return list(dict.fromkeys(keys))

    def _put_up(self) -> dict[str, list[int]]:
        keys = self._store.popular(MOST_ITEMS)
        items = self._catalog.lookup(keys)
        shelves: dict[str, list[int]] = {}
        for key in keys:
            if key not in items:
                continue
            paths = {
                "/".join(parts[: depth + 1])
                for path, _ in items[key].interests
                for parts in [path.split("/")]
                for depth in range(len(parts))
            }
            for path in paths:
                shelf = shelves.setdefault(path, [])
                if len(shelf) < PER_SHELF:
                    shelf.append(key)
        return shelves
