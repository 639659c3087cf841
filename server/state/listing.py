"""What a store tells page by page, read to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from server.state.store import Store

__all__ = ["each", "held_users", "pages"]

T = TypeVar("T")

ROWS_AT_ONCE = 1000

Read = Callable[[str, int], tuple[list[T], str]]
"""A page after where the last one ended, so long at most, and where it ended."""


def pages(read: Read[T], limit: int) -> Iterator[list[T]]:
    """All pages that are not empty."""
    after, ended = "", None
    while after != ended:
        ended = after
        page, after = read(after, limit)
        if page:
            yield page


def each(read: Read[T], limit: int = ROWS_AT_ONCE) -> Iterator[T]:
    """All there is, read page by page."""
    for page in pages(read, limit):
        yield from page


def held_users(store: Store) -> set[str]:
    """Users of whom a store holds a state or relations."""
    found = {one.user_id for one in each(store.users)}
    for one in each(store.all_relations):
        found |= {one.user_id, one.other_user_id}
    return found
