"""Calls of models as guardrails are told of them."""

from __future__ import annotations

from server.rollout.calls import GuardedCalls
from server.rollout.guardrails import GuardrailConfig, Guardrails


class Listener:
    """Remembers what it is told, as whoever comes after it is."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def request_waited(self, *what: object) -> None:
        self.told.append(("waited", *what))

    def batch_sent(self, *what: object) -> None:
        self.told.append(("sent", *what))

    def batch_finished(self, *what: object) -> None:
        self.told.append(("finished", *what))


def test_calls_that_were_answered_are_judged_and_all_are_told_on() -> None:
    guardrails, listener = Guardrails(GuardrailConfig(samples=10)), Listener()
    calls = GuardedCalls(guardrails, lambda: 5.0, listener)
    calls.request_waited("ranking", 1, 0.1)
    calls.batch_sent("ranking", 1, 3)
    for _ in range(10):
        calls.batch_finished("ranking", 1, 3, 0.01, "ok")
        # Neither failures nor models that make no slates say how fast a release is.
        calls.batch_finished("ranking", 2, 3, 9.0, "deadline")
        calls.batch_finished("item_encoder", 2, 3, 9.0, "ok")
    assert listener.told[:2] == [("waited", "ranking", 1, 0.1), ("sent", "ranking", 1, 3)]
    assert len(listener.told) == 32
    assert guardrails.judge(2, 1, 0.0, 5.0) is None
    for _ in range(10):
        calls.batch_finished("ranking", 2, 3, 0.02, "ok")
    breach = guardrails.judge(2, 1, 0.0, 5.0)
    assert breach is not None
    assert breach.guardrail == "latency"
