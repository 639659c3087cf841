"""Strategies: how a slate follows from the state of interest.

Each takes what the models believe of the candidates and gives scores, (C,), and the user's
interests in order of priority. FOLLOW goes where interest is alive. REKINDLE keeps some places for
interests that fade but can be won back. EXPLORE goes where the user has not been. PACE shows a
subject when its own rhythm asks for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.recommend.about import main_interest
from server.recommend.candidates import Candidate, Source
from server.recommend.interests import InterestContext
from server.recommend.pacing import Pace

__all__ = ["Plan", "Strategy", "StrategyConfig", "plan"]

Floats = NDArray[np.float64]


class Strategy(IntEnum):
    """How the slate follows; numbers are those of ``ebbing.v1.Strategy``."""

    FOLLOW = 1
    REKINDLE = 2
    EXPLORE = 3
    PACE = 4


@dataclass(frozen=True)
class StrategyConfig:
    """How much each strategy asks for."""

    forgetting_share: float = 0.7
    """How much of a FOLLOW score hangs on liveliness; 0 orders by belief alone."""
    explore_share: float = 0.9
    """How much of an EXPLORE score hangs on what the user has not engaged yet."""
    rekindle_share: float = 0.3
    """Share of the places of a slate that REKINDLE may take, at least one."""
    rekindle_daily: int = 3
    """Times a day that one interest may be shown to be won back."""


class Plan(NamedTuple):
    """What a strategy makes of the candidates."""

    scores: Floats
    """(C,) from 0 on; −1 where a candidate may not be shown."""
    priority: list[str]
    """The user's interests, what the strategy cares for most first."""
    reserved: list[int]
    """Candidates that are given a place whatever their score, in order."""


def plan(
    strategy: Strategy,
    candidates: Sequence[Candidate],
    believed: Floats,
    context: InterestContext,
    config: StrategyConfig,
    size: int,
    paces: Sequence[Pace] = (),
    shown_today: Counter[str] | None = None,
) -> Plan:
    """Score candidates by a strategy.

    Args:
        strategy: which.
        candidates: C of them.
        believed: what the models think of each, (C,) from 0 on.
        context: the user's interests.
        config: how much each strategy asks for.
        size: places of the slate.
        paces: of every interest; PACE needs them.
        shown_today: how often items of each interest were shown in the last day; REKINDLE asks.
    """
    interests = [candidate.item.interests for candidate in candidates]
    _, lively = context.forgetting_of(interests)
    followed = believed * (1.0 - config.forgetting_share * (1.0 - lively))
    by_retention = context.order(context.retention)
    if strategy is Strategy.REKINDLE:
        places = max(1, round(config.rekindle_share * size))
        reserved = _rekindled(
            candidates, believed, context, config.rekindle_daily, places, shown_today or Counter()
        )
        worth = context.recoverable
        # What was brought to win an interest back has no other place than those kept for it.
        brought = np.array([c.source is Source.REKINDLE for c in candidates], bool)
        return Plan(
            np.where(brought, -1.0, followed),
            context.order(np.where(worth > 0, 1 + worth, context.retention)),
            reserved,
        )
    if strategy is Strategy.EXPLORE:
        known = context.means_of(np.ones(len(context.names)), 0.0, interests)
        scores = believed * (1.0 - config.explore_share * known)
        return Plan(scores, by_retention[::-1], [])
    if strategy is Strategy.PACE:
        due = {pace.interest for pace in paces if pace.due}
        paced = np.array([main_interest(about) in due for about in interests], bool)
        order = [pace.interest for pace in sorted(paces, key=lambda p: (not p.due, p.next_s))]
        return Plan(np.where(paced, followed, -1.0), order, [])
    return Plan(followed, by_retention, [])


def _rekindled(
    candidates: Sequence[Candidate],
    believed: Floats,
    context: InterestContext,
    daily: int,
    places: int,
    shown_today: Counter[str],
) -> list[int]:
    """The best candidate of each interest that can be won back, most recoverable first."""
    best: dict[str, int] = {}
    for i, candidate in enumerate(candidates):
        main = main_interest(candidate.item.interests)
        if main not in best or believed[i] > believed[best[main]]:
            best[main] = i
    worth = context.recoverable
    wanted = [context.names[i] for i in np.argsort(-worth, kind="stable") if worth[i] > 0]
    allowed = [name for name in wanted if name in best and shown_today[name] < daily]
    return [best[name] for name in allowed[:places]]
