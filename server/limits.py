"""How much one write may hold."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """Limits of writes. The contract's by default; a gateway may be stricter, never laxer."""

    id_bytes: int = 128
    """Bytes of an id."""
    path_bytes: int = 256
    """Bytes of an interest's path."""
    text_bytes: int = 1024
    """Bytes of a query, an attribution token or the value of an attribute."""
    interests: int = 32
    """Interests of one event or item."""
    events: int = 1000
    """Events of one call."""
    rows: int = 1000
    """Items, interests or relations of one call."""
