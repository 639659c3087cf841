"""What an item is about: the paths of its interests, their parents, and the main one."""

from __future__ import annotations

from server.state.store import Interests

__all__ = ["levels", "main_interest", "topics"]


def levels(path: str) -> list[str]:
    """``a/b`` → ``["a", "a/b"]``."""
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]


def topics(interests: Interests) -> set[str]:
    """All paths an item is about, parents included."""
    return {level for path, _ in interests for level in levels(path)}


def main_interest(interests: Interests) -> str:
    """The interest with the greatest share of an item; empty if nothing is known of it."""
    return max(((share, path) for path, share in interests), default=(0.0, ""))[1]
