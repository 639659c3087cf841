"""What is asked for, and what comes of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from server.recommend.filters import Filters
from server.recommend.interests import InterestContext
from server.recommend.pacing import Pace
from server.recommend.reranking import Scored
from server.recommend.strategies import Strategy, StrategyConfig
from server.users import UserView

__all__ = ["ColdStart", "RecommenderConfig", "ScoreRequest", "Slate", "SlateRequest"]


NO_FILTERS = Filters()


class ColdStart(IntEnum):
    """What a slate was made from where the history says nothing; numbers are the contract's."""

    NONE = 0
    SOCIAL = 1
    CONTEXT = 2
    POPULAR = 3


@dataclass(frozen=True, slots=True)
class SlateRequest:
    """A checked request for a slate."""

    user_id: str
    size: int
    at_us: int | None
    """The moment, microseconds since the epoch; None is now."""
    include_seen: bool
    excluded_ids: frozenset[str]
    release: int
    """The release to answer from; 0 is the one that serves the user."""
    alpha: float | None
    """The articles' α; None is the setting's."""
    strategy: Strategy = Strategy.FOLLOW
    filters: Filters = NO_FILTERS
    """Attributes that are asked for, and those that are not wanted."""
    context: Mapping[str, str] = field(default_factory=dict)
    """What rules are told of the request."""
    context_interests: tuple[str, ...] = ()
    """What the user is looking at."""
    diversity: float | None = None
    """0 … 1; None is the setting's."""


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """A checked request to score given items."""

    user_id: str
    item_ids: tuple[str, ...]
    at_us: int | None
    release: int
    alpha: float | None


@dataclass(frozen=True, slots=True)
class Slate:
    """What is recommended, and what is behind it."""

    user: UserView
    items: Sequence[Scored]
    probabilities: NDArray[np.float64]
    """The articles' p(i|u,t), (C,)."""
    article_score: float
    """The articles' R(u,t)."""
    context: InterestContext
    release: int
    degraded_reason: str = ""
    """Why models had no say; empty where they had."""
    priority: Sequence[str] = ()
    """The user's interests in the strategy's order."""
    cold_start: ColdStart = ColdStart.NONE
    """What it was made from where the user has no history."""
    paces: Sequence[Pace] = ()
    """When each subject should be shown; of PACE alone."""
    because: Sequence[Sequence[str]] = ()
    """For each item ids of the history that speak for it; empty where that was not asked."""

    @property
    def attribution_token(self) -> str:
        """Names the slate, for events to echo; the same slate has the same token."""
        what = [
            self.user.user_id,
            repr(self.user.at_s),
            *(s.candidate.item.item_id for s in self.items),
        ]
        digest = hashlib.blake2b("\0".join(what).encode(), digest_size=12).hexdigest()
        return f"1.{self.release}.{digest}"


@dataclass(frozen=True)
class RecommenderConfig:
    """How slates are made."""

    alpha: float = 5.0
    """The articles' α where a request names none."""
    candidates: int = 200
    """Candidates ranked for a slate."""
    diversity: float = 0.0
    """How much unlikeness counts where a request does not say, 0 … 1."""
    per_interest: int = 0
    """Items of one main interest in a slate at most, as far as others are at hand; 0: any."""
    strategies: StrategyConfig = field(default_factory=StrategyConfig)
    """How much each strategy asks for."""
