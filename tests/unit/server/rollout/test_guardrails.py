"""Guardrails: what a release that is tried is rolled back for, and what it is not."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from server.rollout.guardrails import KEPT, Breach, Call, GuardrailConfig, Guardrails, Observation

LIVE, TRIED = 1, 2


def seen(at: float = 1.0, **fields: float | bool | None) -> Observation:
    given = {"failed": False, "retention": 0.5, **fields}
    return Observation(at=at, **given)  # type: ignore[arg-type]


def judged(
    tried: list[Observation],
    live: list[Observation],
    config: GuardrailConfig | None = None,
    since: float = 0.0,
    now: float = 1.0,
) -> Breach | None:
    guardrails = Guardrails(config or GuardrailConfig())
    for release, observations in ((TRIED, tried), (LIVE, live)):
        for observation in observations:
            guardrails.observe(release, observation)
    return guardrails.judge(TRIED, LIVE, since, now)


FINE = [seen()] * 60


def test_a_release_that_does_the_same_is_fine() -> None:
    assert judged(FINE, FINE) is None


def test_nothing_is_judged_by_nothing() -> None:
    assert judged([], []) is None
    assert judged(FINE, []) is None
    assert judged([], FINE) is None


@pytest.mark.parametrize(
    ("guardrail", "bad"),
    [
        ("failures", seen(failed=True)),
        ("oov", seen(oov_share=0.5)),
        ("empty", seen(empty=True)),
        ("retention", seen(retention=0.1)),
        ("retention", seen(retention=0.9)),
    ],
)
def test_each_guardrail_is_broken_by_what_it_guards(guardrail: str, bad: Observation) -> None:
    breach = judged([bad] * 60, FINE)
    assert breach is not None
    assert breach.guardrail == guardrail
    assert breach.reason
    # The same of the release that is live: that is how things are.
    assert judged([bad] * 60, [bad] * 60) is None


@pytest.mark.parametrize("field", [{"oov_share": 0.5}, {"empty": True}])
def test_few_slates_prove_nothing(field: dict[str, float]) -> None:
    assert judged([seen(**field)] * 49, FINE) is None
    assert judged([seen(**field)] * 50, FINE[:49]) is None


def test_failures_of_most_slates_are_seen_at_once() -> None:
    failing = [seen(failed=True)] * 5
    assert judged(failing, FINE) is not None
    assert judged(failing[:4], FINE) is None
    # A few of few are not.
    assert judged([*failing[:4], *FINE[:10]], FINE) is None


def calls(seconds: Iterable[float], at: float = 1.0, rows: int = 1) -> list[Call]:
    return [Call(at, "retrieval", rows, s) for s in seconds]


def judged_by_calls(tried: list[Call], live: list[Call], **told: float) -> Breach | None:
    guardrails = Guardrails(GuardrailConfig())
    for release, made in ((TRIED, tried), (LIVE, live)):
        for call in made:
            guardrails.observe_call(release, call)
    return guardrails.judge(TRIED, LIVE, told.get("since", 0.0), told.get("now", 1.0))


def test_a_release_slower_by_half_is_told_from_noise() -> None:
    random = np.random.default_rng(3)
    usual, again = random.lognormal(0.0, 0.5, size=(2, 400)) * 0.01
    assert judged_by_calls(calls(again), calls(usual)) is None
    slower = judged_by_calls(calls(1.5 * again), calls(usual))
    assert slower is not None
    assert slower.guardrail == "latency"
    assert "400 calls" in slower.reason
    assert judged_by_calls(calls(0.5 * again), calls(usual)) is None


def test_calls_for_many_are_compared_with_calls_for_as_many() -> None:
    """The live release has more to do at once, which makes its calls longer, not slower."""
    usual = [*calls([0.01] * 100), *calls([0.05] * 900, rows=16)]
    assert judged_by_calls(calls([0.015] * 60), usual) is not None
    assert judged_by_calls(calls([0.05] * 60, rows=14), usual) is None
    # Nothing of the kind to compare with.
    assert judged_by_calls(calls([0.9] * 60, rows=4), usual) is None


def test_few_calls_prove_nothing() -> None:
    usual = calls([0.01] * 60)
    assert judged_by_calls(calls([1.0] * 49), usual) is None
    assert judged_by_calls(calls([1.0] * 60), usual[:49]) is None
    assert judged_by_calls(calls([1.0] * 50), usual[:50]) is not None


def test_calls_before_it_was_tried_or_long_ago_do_not_count() -> None:
    slow, usual = calls([1.0] * 60, at=10.0), calls([0.01] * 60)
    assert judged_by_calls(slow, usual, since=11.0, now=12.0) is None
    assert judged_by_calls(slow, usual, now=71.0) is None
    assert judged_by_calls(slow, usual, now=69.0) is not None


def test_a_shadow_has_to_agree_only_if_that_is_asked_for() -> None:
    other = [seen(overlap=0.1)] * 60
    assert judged(other, FINE) is None
    breach = judged(other, FINE, GuardrailConfig(overlap=0.3))
    assert breach is not None
    assert breach.guardrail == "overlap"
    assert judged([seen(overlap=0.4)] * 60, FINE, GuardrailConfig(overlap=0.3)) is None


def test_what_was_before_it_was_tried_or_long_ago_does_not_count() -> None:
    bad = [seen(at=10.0, failed=True)] * 60
    assert judged(bad, FINE, since=11.0, now=12.0) is None
    assert judged(bad, FINE, since=0.0, now=71.0) is None
    assert judged(bad, FINE, since=0.0, now=69.0) is not None


def test_memory_is_bounded_and_can_be_lost() -> None:
    guardrails = Guardrails(GuardrailConfig())
    for _ in range(KEPT + 100):
        guardrails.observe(TRIED, seen(failed=True))
        guardrails.observe_call(TRIED, Call(1.0, "ranking", 1, 1.0))
        guardrails.observe_call(LIVE, Call(1.0, "ranking", 1, 0.1))
    assert len(guardrails._seen[TRIED]) == len(guardrails._calls[TRIED]) == KEPT
    guardrails.forget(TRIED)
    assert guardrails.judge(TRIED, LIVE, 0.0, 1.0) is None
