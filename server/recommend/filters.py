"""Which candidates may not come into the slate."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from server.recommend.candidates import Candidate

__all__ = ["eligible"]


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
