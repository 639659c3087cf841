"""Guardrails: what a release that is tried is rolled back for, and what it is not."""

from __future__ import annotations

import numpy as np
import pytest

from server.rollout.guardrails import KEPT, Breach, GuardrailConfig, Guardrails, Observation

LIVE, TRIED = 1, 2


def seen(at: float = 1.0, **fields: float | bool | None) -> Observation:
    given = {"failed": False, "model_s": 0.01, "retention": 0.5, **fields}
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
        ("latency", seen(model_s=0.015)),
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


@pytest.mark.parametrize("field", [{"oov_share": 0.5}, {"model_s": 1.0}, {"empty": True}])
def test_few_slates_prove_nothing(field: dict[str, float]) -> None:
    assert judged([seen(**field)] * 49, FINE) is None
    assert judged([seen(**field)] * 50, FINE[:49]) is None


def test_failures_of_most_slates_are_seen_at_once() -> None:
    failing = [seen(failed=True)] * 10
    assert judged(failing, FINE) is not None
    assert judged(failing[:9], FINE) is None
    # A few of few are not.
    assert judged([*failing[:4], *FINE[:10]], FINE) is None


def test_a_release_slower_by_half_is_told_from_noise() -> None:
    random = np.random.default_rng(3)
    noise = random.lognormal(0.0, 0.5, size=(2, 400)) * 0.01
    usual = [seen(model_s=s) for s in noise[0]]
    assert judged([seen(model_s=s) for s in noise[1]], usual) is None
    slower = judged([seen(model_s=1.5 * s) for s in noise[1]], usual)
    assert slower is not None
    assert slower.guardrail == "latency"


def test_slowness_of_failures_does_not_count() -> None:
    mixed = [seen(failed=True, model_s=9.0)] * 2 + FINE
    assert judged(mixed, FINE) is None


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
    assert len(guardrails._seen[TRIED]) == KEPT
    guardrails.forget(TRIED)
    assert guardrails.judge(TRIED, LIVE, 0.0, 1.0) is None
