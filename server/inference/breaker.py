"""A circuit breaker: who has failed many times in a row is left alone for a while. Pure."""

from __future__ import annotations

__all__ = ["Breaker"]

FAILURES = 10
"""Failures in a row that open it: more than the guardrails of a rollout need to judge by."""
REST_S = 1.0
"""How long nobody is let through, seconds; then one is, to see."""


class Breaker:
    """Counts failures in a row. Times are monotonic seconds of one clock."""

    def __init__(self) -> None:
        """Closed: everybody is let through."""
        self._failures = 0
        self._until = 0.0

    @property
    def open(self) -> bool:
        """Whether nobody but a probe now and then is let through."""
        return self._failures >= FAILURES

    def admits(self, now: float) -> bool:
        """Whether to go ahead; of those who ask while it is open, one for each rest."""
        if not self.open:
            return True
        if now < self._until:
            return False
        # A probe that never comes back keeps the others off for one rest, not for ever.
        self._until = now + REST_S
        return True

    def succeeded(self) -> None:
        """Somebody let through got an answer: it closes."""
        self._failures = 0

    def failed(self, now: float) -> None:
        """Somebody let through got none."""
        self._failures += 1
        self._until = now + REST_S
