"""Guardrails: when a release that is tried does worse than the one it would replace. Pure."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

__all__ = ["Breach", "Call", "GuardrailConfig", "Guardrails", "Observation"]

KEPT = 1024
"""Newest observations, and newest calls, kept of each release."""
JUDGED_S = 60.0
"""A release that is tried is judged by what it did in the last so many seconds."""


class Observation(NamedTuple):
    """One slate of one release, or one comparison of a shadow."""

    at: float
    """When, monotonic seconds."""
    failed: bool
    """Whether the models did not answer, or nothing usable."""
    oov_share: float = 0.0
    """Share of the history that the release does not know, 0 to 1."""
    empty: bool = False
    """Whether nothing was left to recommend."""
    retention: float = 0.0
    """Mean retention of what the slate is about, 0 to 1."""
    overlap: float | None = None
    """Share of the live slate that is in the shadow's too; None where there was no comparison."""


class Call(NamedTuple):
    """One call of one of a release's models that was answered."""

    at: float
    """When, monotonic seconds."""
    model: str
    rows: int
    """Users it was made for."""
    seconds: float
    """How long it took."""


@dataclass(frozen=True)
class GuardrailConfig:
    """What a release may do before it is rolled back."""

    samples: int = 50
    """Slates before anything but failures is judged, of both releases; and calls, for latency."""
    failures: float = 0.05
    """Share of slates whose models fail, above that of the other release."""
    slowdown: float = 1.3
    """What the models' calls take over what those of the other release do."""
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


ENOUGH_FAILING = 5
"""Slates after which failures are judged: most of so many need no statistics."""
ALIKE = 10
"""Calls of a kind after which they have a median."""


class Guardrails:
    """Remembers how releases did, and judges."""

    def __init__(self, config: GuardrailConfig) -> None:
        """Start with nothing seen."""
        self._config = config
        self._seen: dict[int, deque[Observation]] = {}
        self._calls: dict[int, deque[Call]] = {}

    def observe(self, release: int, observation: Observation) -> None:
        """Remember what a release did."""
        self._seen.setdefault(release, deque(maxlen=KEPT)).append(observation)

    def observe_call(self, release: int, call: Call) -> None:
        """Remember how long a call took."""
        self._calls.setdefault(release, deque(maxlen=KEPT)).append(call)

    def forget(self, release: int) -> None:
        """Remember nothing of a release."""
        self._seen.pop(release, None)
        self._calls.pop(release, None)

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
            or self._slowdown(
                [call for call in self._calls.get(tried, ()) if call.at >= start],
                self._calls.get(other, ()),
            )
            or self._shares(mine, theirs)
            or self._overlap(mine)
        )

    def _failures(
        self, mine: Sequence[Observation], theirs: Sequence[Observation]
    ) -> Breach | None:
        if len(mine) < ENOUGH_FAILING:
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

    def _slowdown(self, mine: Iterable[Call], theirs: Iterable[Call]) -> Breach | None:
        """By medians of calls of the same model and about as many users, as both had."""
        own, usual = _kinds(mine), _kinds(theirs)
        compared = own.keys() & usual.keys()
        calls = sum(len(own[kind]) for kind in compared)
        if min(calls, sum(len(usual[kind]) for kind in compared)) < self._config.samples:
            return None
        took, expected = (
            sum(len(own[kind]) * float(np.median(side[kind])) for kind in compared)
            for side in (own, usual)
        )
        if took > expected * self._config.slowdown:
            return Breach(
                "latency",
                f"its models took {took / calls * 1e3:.1f} ms a call ({calls} calls, by medians),"
                f" those of the other release {expected / calls * 1e3:.1f} ms for the like",
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


def _kinds(calls: Iterable[Call]) -> dict[tuple[str, int], list[float]]:
    """Seconds of calls by model and binary logarithm of rows, where there are a few."""
    kinds: dict[tuple[str, int], list[float]] = defaultdict(list)
    for call in calls:
        kinds[call.model, (call.rows - 1).bit_length()].append(call.seconds)
    return {kind: seconds for kind, seconds in kinds.items() if len(seconds) >= ALIKE}
