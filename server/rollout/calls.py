"""Tells the guardrails how long the calls of each release's models take."""

from __future__ import annotations

from collections.abc import Callable

from ebbing.manifest import REQUIRED_MODELS
from server.inference.batcher import BatchObserver
from server.rollout.guardrails import Call, Guardrails

__all__ = ["GuardedCalls"]


class GuardedCalls:
    """A ``BatchObserver`` before another one, which is told all the same."""

    def __init__(
        self, guardrails: Guardrails, clock: Callable[[], float], then: BatchObserver
    ) -> None:
        """Set up; ``clock`` gives monotonic seconds, the guardrails' own."""
        self._guardrails = guardrails
        self._clock = clock
        self._then = then

    def request_waited(self, model: str, version: int, seconds: float) -> None:
        """A request left the queue for Triton."""
        self._then.request_waited(model, version, seconds)

    def batch_sent(self, model: str, version: int, rows: int) -> None:
        """A call left for Triton."""
        self._then.batch_sent(model, version, rows)

    def batch_finished(
        self, model: str, version: int, rows: int, seconds: float, outcome: str
    ) -> None:
        """A call ended. A model's version is its release's number."""
        if outcome == "ok" and model in REQUIRED_MODELS:
            self._guardrails.observe_call(version, Call(self._clock(), model, rows, seconds))
        self._then.batch_finished(model, version, rows, seconds, outcome)
