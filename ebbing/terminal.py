"""How interests are shown to a person at a terminal."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.markup import escape

from ebbing.v1.interest_pb2 import InterestState

__all__ = ["date", "painted", "plain", "state_name"]

_COLOURS = {
    "new": "cyan",
    "active": "green",
    "resting": "blue",
    "fading": "yellow",
    "forgotten": "red",
    "revived": "magenta",
}


def plain(text: str) -> str:
    """Text of a log as it may be printed: no markup, no control characters."""
    return escape("".join(char if char.isprintable() else "·" for char in text))


def date(seconds: float) -> str:
    """A moment as a day: 31 May 2025."""
    return f"{datetime.fromtimestamp(seconds, UTC):%-d %b %Y}"


def state_name(state: InterestState.ValueType) -> str:
    """A state in a word."""
    return InterestState.Name(state).removeprefix("INTEREST_STATE_").lower()


def painted(state: InterestState.ValueType) -> str:
    """A state in a word, in its colour."""
    name = state_name(state)
    return f"[{_COLOURS.get(name, 'default')}]{name}[/]"
