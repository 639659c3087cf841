"""Named recipes: what `ebbing train --recipe NAME` trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from trainer.ranking import RankingConfig
from trainer.retrieval import RetrievalConfig
from trainer.simple_retrieval import DecayConfig, PopularConfig, SimpleConfig


@dataclass(frozen=True)
class Recipe:
    """Both models of a release."""

    name: str
    """What the recipe is called."""
    retrieval: RetrievalConfig | SimpleConfig = field(default_factory=RetrievalConfig)
    """The retrieval model."""
    ranking: RankingConfig = field(default_factory=RankingConfig)
    """The ranking model."""


def article_mlp() -> Recipe:
    """The article's MLP ranks: 128-64-32-1, ReLU, sigmoid, BCE, Adam, 10 epochs, batch 32, 20 %
    validation; the time-aware sequence model retrieves."""
    return Recipe("article_mlp")


def sequence() -> Recipe:
    """The flagship: attention that forgets retrieves, over long- and short-term read-outs."""
    return Recipe("sequence", RetrievalConfig())


def popular() -> Recipe:
    """A baseline: what is popular lately is retrieved, for everybody."""
    return Recipe("popular", PopularConfig())


def exponential_decay() -> Recipe:
    """A baseline: what a user's own items and interests are by exponentially decayed counts."""
    return Recipe("exponential-decay", DecayConfig())


RECIPES: Mapping[str, Callable[[], Recipe]] = MappingProxyType(
    {
        "article_mlp": article_mlp,
        "sequence": sequence,
        "popular": popular,
        "exponential-decay": exponential_decay,
    }
)
