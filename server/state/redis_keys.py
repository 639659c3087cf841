"""Where what is stored lies among the keys of Redis.

A user belongs to one of P partitions, and all keys of a partition lie in one hash slot: so one
script changes all that is kept of a user as one step, in a Cluster too. What concerns all users
has slots of its own.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

__all__ = ["Keys", "Place"]


@dataclass(frozen=True)
class Place:
    """Keys that share one hash slot."""

    tag: str

    @cached_property
    def slot(self) -> int:
        """The hash slot."""
        return key_slot(self.tag.encode())

    def __call__(self, kind: str, owner: str = "") -> str:
        """The key of a kind, of an owner where there is one for each."""
        return f"{self.tag}{kind}:{owner}" if owner else f"{self.tag}{kind}"


class Keys:
    """All places of a store."""

    def __init__(self, name: str, partitions: int) -> None:
        """Set up for a store of a name; ``partitions`` is fixed when it is made."""
        self.partitions = tuple(Place(tag) for tag in _spread(name, partitions))
        self.catalogue = Place(f"{{{name}:catalogue}}")
        self.heat = Place(f"{{{name}:heat}}")
        self.transitions = Place(f"{{{name}:transitions}}")

    def number(self, text: str) -> int:
        """Which partition an owner, or the id of an event, belongs to."""
        return zlib.crc32(text.encode()) % len(self.partitions)

    def of(self, text: str) -> Place:
        """The partition an owner, or the id of an event, belongs to."""
        return self.partitions[self.number(text)]


def _spread(name: str, partitions: int) -> Iterator[str]:
    """Tags whose slots lie evenly over all of them, so that servers get even shares."""
    found: dict[int, str] = {}
    n = 0
    while len(found) < partitions:
        tag = f"{{{name}:{n}}}"
        share = key_slot(tag.encode()) * partitions // REDIS_CLUSTER_HASH_SLOTS
        found.setdefault(share, tag)
        n += 1
    return (found[share] for share in range(partitions))
