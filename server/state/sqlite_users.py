"""Where users lie in the embedded store: each under a number made of its name.

So finding one takes no index, of which every event of a random user among many would read a page.
"""

from __future__ import annotations

from hashlib import blake2b

__all__ = ["HELD", "NEW_NUMBER", "held", "number_of"]

_NAMESAKES = 4
"""Owners whose numbers may begin alike. Two among 10⁸ do with a chance of .002; five never do."""

HELD = "number BETWEEN ? AND ? AND owner = ?"
"""What is so of the row of a user alone; takes ``held``."""
NEW_NUMBER = (
    "(SELECT coalesce(max(number) + 1, ?1) FROM users"
    f" WHERE number BETWEEN ?1 AND ?1 + {_NAMESAKES - 1})"
)
"""The number of a user who is not there yet; its ?1 is ``number_of``."""


def number_of(owner: str) -> int:
    """The first number that a user may have: 61 bits of a digest, in steps of ``_NAMESAKES``."""
    digest = blake2b(owner.encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 3) * _NAMESAKES


def held(owner: str) -> tuple[int, int, str]:
    """The numbers that a user may have, from and to, and its name."""
    first = number_of(owner)
    return first, first + _NAMESAKES - 1, owner
