"""Guardrails: when a release that is tried does worse than the one it would replace. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

__all__ = ["Breach", "GuardrailConfig", "Guardrails", "Observation"]

KEPT = 1024
"""Newest observations kept of each release."""
JUDGED_S = 60.0
"""A release that is tried is judged by what it did in the last so many seconds."""


class Observation(NamedTuple):
    """One slate of one release, or one comparison of a shadow."""

    at: float
    """When, monotonic seconds."""
    failed: bool
    """Whether the models did not answer, or nothing usable."""
    model_s: float
    """How long the models took, seconds; of no meaning where they failed."""
    oov_share: float = 0.0
    """Share of the history that the release does not know, 0 to 1."""
    empty: bool = False
    """Whether nothing was left to recommend."""
    retention: float = 0.0
    """Mean retention of what the slate is about, 0 to 1."""
    overlap: float | None = None
    """Share of the live slate that is in the shadow's too; None where there was no comparison."""


@dataclass(frozen=True)
class GuardrailConfig:
    """What a release may do before it is rolled back."""

    samples: int = 50
    """Slates before anything but failures is judged, of both releases."""
    failures: float = 0.05
    """Share of slates whose models fail, above that of the other release."""
    slowdown: float = 1.3
    """Median time of the models over that of the other release."""
    oov: float = 0.2
    """Share of history items it does not know, above that of the other release."""
    empty: float = 0.05
    """Share of empty slates, above that of the other release."""
    overlap: float = 0.0
    """Least mean overlap of a shadow's slates with those shown; 0 asks for none."""
    retention: float = 0.25
    """Difference in mean retention of what slates are about, either way."""


class Breach(NamedTuple):
    """A guardrail that was broken."""

    guardrail: str
    """Its name: failures, latency, oov, empty, overlap or retention."""
    reason: str
    """What was found, for people."""


FEW = 10
"""Slates after which failures are judged: most of so many need no statistics."""


class Guardrails:
    """Remembers how releases did, and judges."""

    def __init__(self, config: GuardrailConfig) -> None:
        """Start with nothing seen."""
        self._config = config
        self._seen: dict[int, deque[Observation]] = {}

    def observe(self, release: int, observation: Observation) -> None:
        """Remember what a release did."""
        self._seen.setdefault(release, deque(maxlen=KEPT)).append(observation)

    def forget(self, release: int) -> None:
        """Remember nothing of a release."""
        self._seen.pop(release, None)

    def judge(self, tried: int, other: int, since: float, now: float) -> Breach | None:
        """The first guardrail that a release broke, if any.

        Args:
            tried: the release that is judged.
            other: the release it would replace, or has replaced.
            since: when it began to be tried, monotonic seconds; nothing before counts.
            now: monotonic seconds.
        """
        start = max(since, now - JUDGED_S)
        mine = [seen for seen in self._seen.get(tried, ()) if seen.at >= start]
        theirs = list(self._seen.get(other, ()))
        return (
            self._failures(mine, theirs)
            or self._slowdown(mine, theirs)
            or self._shares(mine, theirs)
            or self._overlap(mine)
        )

    def _failures(
        self, mine: Sequence[Observation], theirs: Sequence[Observation]
    ) -> Breach | None:
        if len(mine) < FEW:
            return None
        share, usual = (_mean(seen, lambda s: s.failed) for seen in (mine, theirs))
        enough = len(mine) >= self._config.samples or share >= 0.5
        if enough and share > usual + self._config.failures:
            return Breach(
                "failures",
                f"its models failed in {share:.1%} of {len(mine)} slates, those of the other"
                f" release in {usual:.1%}",
            )
        return None

    def _slowdown(
        self, mine: Sequence[Observation], theirs: Sequence[Observation]
    ) -> Breach | None:
        took, usual = ([s.model_s for s in seen if not s.failed] for seen in (mine, theirs))
        if min(len(took), len(usual)) < self._config.samples:
            return None
        median, usually = float(np.median(took)), float(np.median(usual))
        if median > usually * self._config.slowdown:
            return Breach(
                "latency",
                f"its models took {median * 1e3:.1f} ms (median of {len(took)}), those of the"
                f" other release {usually * 1e3:.1f} ms",
            )
        return None

    def _shares(self, mine: Sequence[Observation], theirs: Sequence[Observation]) -> Breach | None:
        mine, theirs = ([s for s in seen if not s.failed] for seen in (mine, theirs))
        if min(len(mine), len(theirs)) < self._config.samples:
            return None
        limits = (
            ("oov", lambda s: s.oov_share, self._config.oov, "of the history is unknown to it"),
            ("empty", lambda s: s.empty, self._config.empty, "of its slates are empty"),
        )
        for name, value, limit, words in limits:
            share, usual = _mean(mine, value), _mean(theirs, value)
            if share > usual + limit:
                return Breach(name, f"{share:.1%} {words}, {usual:.1%} with the other release")
        kept, usual = (_mean(seen, lambda s: s.retention) for seen in (mine, theirs))
        if abs(kept - usual) > self._config.retention:
            return Breach(
                "retention",
                f"what its slates are about has retention {kept:.2f} in the mean, {usual:.2f}"
                " with the other release",
            )
        return None

    def _overlap(self, mine: Sequence[Observation]) -> Breach | None:
        shared = [s.overlap for s in mine if s.overlap is not None]
        if len(shared) < self._config.samples or self._config.overlap <= 0:
            return None
        mean = float(np.mean(shared))
        if mean < self._config.overlap:
            return Breach(
                "overlap",
                f"{mean:.1%} of the slates shown are in its own (mean of {len(shared)}),"
                f" at least {self._config.overlap:.1%} were asked for",
            )
        return None


def _mean(seen: Sequence[Observation], value: Callable[[Observation], float]) -> float:
    return sum(value(s) for s in seen) / len(seen) if seen else 0.0
