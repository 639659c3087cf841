"""Which candidates may not come into the slate."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from ebbing.v1 import catalog_service_pb2 as pb
from server.recommend.candidates import Candidate
from server.state.store import ItemRecord

__all__ = ["Filters", "attributes_of", "eligible"]

REMEMBERED_ITEMS = 200_000


@lru_cache(REMEMBERED_ITEMS)
def attributes_of(item: ItemRecord) -> Mapping[str, str]:
    """The attributes an item was written with."""
    return dict(pb.Item.FromString(item.body).attributes) if item.body else {}


@dataclass(frozen=True)
class Filters:
    """Attributes that items must have, and must not have."""

    allow: tuple[tuple[str, frozenset[str]], ...] = ()
    """Of each attribute the item's value must be one of these."""
    deny: tuple[tuple[str, frozenset[str]], ...] = ()
    """Of no attribute may the item's value be one of these."""

    def __bool__(self) -> bool:
        return bool(self.allow or self.deny)

    def take(self, item: ItemRecord) -> bool:
        """Whether an item passes."""
        has = attributes_of(item)
        return all(has.get(name) in values for name, values in self.allow) and not any(
            has.get(name) in values for name, values in self.deny
        )


def eligible(
    candidates: Iterable[Candidate], excluded: Collection[int], at_us: int
) -> list[Candidate]:
    """The candidates that are available at a moment and not excluded, each once, in order.

    Args:
        candidates: best first.
        excluded: keys of items not wanted: seen ones, and those the caller named.
        at_us: the moment, microseconds since the epoch.
    """
    kept: dict[int, Candidate] = {}
    for candidate in candidates:
        item = candidate.item
        available = item.available_us <= at_us and not 0 < item.expire_us <= at_us
        if available and item.item_key not in excluded:
            kept.setdefault(item.item_key, candidate)
    return list(kept.values())
