"""Where a user's interests stand at a moment: retention, rhythm, trend and state together."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ebbing.interest import forgetting
from ebbing.interest.forgetting import (
    ForgettingParameters,
    half_life_s,
    log_odds_parts,
    quiet_until,
)
from ebbing.interest.rhythm import Rhythm, rhythm_of, trend
from ebbing.interest.standing import standing_of, usual_gap_s
from ebbing.interest.states import (
    QuietLimits,
    StateThresholds,
    next_change_s,
    quiet_limits,
    revived,
    states_of,
)
from ebbing.interest.trace import TraceTable

__all__ = ["Assessment", "Outlook", "assess", "half_life", "retention", "states_at"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Part = TypeVar("Part", Rhythm, QuietLimits)

DEFAULT_THRESHOLDS = StateThresholds()


@dataclass(frozen=True, slots=True)
class Assessment:
    """The N interests of a table at a moment, arrays (N,) in its order."""

    retention: Floats
    """ρ in [0, 1]: probability of a return within the horizon."""
    freshness: Floats
    """Odds of a return over those just after an event, in [0, 1]."""
    recency_s: Floats
    """Seconds since the newest event."""
    states: NDArray[np.int64]
    """``InterestState`` numbers."""
    changes: Floats
    """When each state changes next if nothing more comes, seconds since the epoch; inf: never.
    At that moment the new state holds."""
    rhythm: Rhythm
    trend: Floats
    """Above 0: engaged more often of late; below: less."""
    limits: QuietLimits


@dataclass(frozen=True, slots=True)
class Outlook:
    """How N interests will stand if nothing more comes, arrays (N,).

    It follows from each interest's own trace alone: neither the moment nor what else the user did
    has a say. So the interests of many users can be looked at as if they were one's.
    """

    parameters: ForgettingParameters
    thresholds: StateThresholds
    count: Floats
    """Events of each interest."""
    last: Floats
    """Newest event of each, seconds since the epoch."""
    gap_s: Floats
    """Mean time between its events, seconds, as retention reads it."""
    rhythm: Rhythm
    trend: Floats
    """Above 0: engaged more often of late; below: less."""
    limits: QuietLimits
    came_back: Flags
    """Whether it was forgotten before its newest occasion."""

    @classmethod
    def of(
        cls,
        table: TraceTable,
        parameters: ForgettingParameters,
        thresholds: StateThresholds | None = None,
    ) -> Outlook:
        """Of every interest of a table; ``thresholds`` are the defaults if None."""
        t = thresholds or DEFAULT_THRESHOLDS
        count, first, last = table.count, table.first, table.last
        gap_s = usual_gap_s(count, first, last, parameters.default_gap_s)
        rhythm = rhythm_of(table.occasions, last, parameters.default_gap_s)
        direction = trend(table.own_sums[1:])
        fades_s, forgets_s = quiet_until((t.fading, t.forgotten), gap_s, parameters)
        default_s, maps = parameters.default_gap_s, table.occasions
        return cls(
            parameters=parameters,
            thresholds=t,
            count=count,
            last=last,
            gap_s=gap_s,
            rhythm=rhythm,
            trend=direction,
            limits=quiet_limits(rhythm, direction, count, fades_s, forgets_s, t),
            came_back=revived(maps, first, last, rhythm, forgets_s, default_s, t),
        )

    def states(self, quiet_s: Floats) -> NDArray[np.int64]:
        """``InterestState`` numbers after so many seconds of quiet (N,), (N,)."""
        return states_of(
            quiet_s, self.limits, self.rhythm, self.count, self.came_back, self.thresholds
        )

    def next_change_s(self, quiet_s: Floats) -> Floats:
        """Seconds of quiet at which each state changes next after ``quiet_s``, (N,); inf: never."""
        return next_change_s(quiet_s, self.limits)

    def assessed(self, at: float, retention: Floats) -> Assessment:
        """The interests at a moment not before their newest events, with their retention (N,)."""
        quiet_s = at - self.last
        change_s = self.next_change_s(quiet_s)
        changes = self.last + change_s
        # A moment rounded down would still have the state before.
        changes = np.where(changes - self.last < change_s, np.nextafter(changes, np.inf), changes)
        return Assessment(
            retention=retention,
            freshness=forgetting.freshness(quiet_s, self.gap_s, self.parameters),
            recency_s=quiet_s,
            states=self.states(quiet_s),
            changes=changes,
            rhythm=self.rhythm,
            trend=self.trend,
            limits=self.limits,
        )

    def only(self, i: int) -> Outlook:
        """That of interest ``i`` alone."""

        def of(part: Part) -> Part:
            return type(part)(*(getattr(part, field.name)[i : i + 1] for field in fields(part)))

        return replace(
            self,
            count=self.count[i : i + 1],
            last=self.last[i : i + 1],
            gap_s=self.gap_s[i : i + 1],
            rhythm=of(self.rhythm),
            trend=self.trend[i : i + 1],
            limits=of(self.limits),
            came_back=self.came_back[i : i + 1],
        )


def _check(table: TraceTable, at: float) -> None:
    newest = table.span[1]
    if not at >= newest:
        raise ValueError(f"{at} is before the newest event, {newest}")


def retention(
    table: TraceTable, at: float, parameters: ForgettingParameters, horizon_s: float | None = None
) -> Floats:
    """ρ of every interest, (N,); arguments and errors as for ``assess``."""
    _check(table, at)
    parts = log_odds_parts(standing_of(table), table.names, at, parameters, horizon_s)
    return forgetting.retention(parts)


def assess(
    table: TraceTable,
    at: float,
    parameters: ForgettingParameters,
    thresholds: StateThresholds | None = None,
    horizon_s: float | None = None,
) -> Assessment:
    """Assess every interest at a moment.

    Args:
        table: the traces of one user.
        at: seconds since the epoch, not before the user's newest event.
        parameters: of a release.
        thresholds: of the states; the defaults if None.
        horizon_s: of retention, seconds; the one fitted if None.

    Raises:
        ValueError: ``at`` is before the user's newest event.
        HorizonOutOfFamily: the parameters say nothing of such a horizon.
    """
    chance = retention(table, at, parameters, horizon_s)
    return Outlook.of(table, parameters, thresholds).assessed(at, chance)


def states_at(
    table: TraceTable,
    at: float,
    parameters: ForgettingParameters,
    thresholds: StateThresholds | None = None,
) -> NDArray[np.int64]:
    """``InterestState`` numbers of every interest, (N,); arguments and errors as for ``assess``."""
    _check(table, at)
    return Outlook.of(table, parameters, thresholds).states(at - table.last)


def half_life(
    table: TraceTable, at: float, parameters: ForgettingParameters, horizon_s: float | None = None
) -> Floats:
    """Seconds until each retention has halved with no new event, (N,); inf beyond ten years.

    Arguments and errors as for ``assess``.
    """
    _check(table, at)
    standing = standing_of(table)
    parts = log_odds_parts(standing, table.names, at, parameters, horizon_s)
    return half_life_s(parts, standing, at, parameters)
