"""Named recipes: what `ebbing train --recipe NAME` trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from trainer.ranking import RankingConfig
from trainer.retrieval import RetrievalConfig


@dataclass(frozen=True)
class Recipe:
    """Both models of a release."""

    name: str
    """What the recipe is called."""
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
    """The retrieval model."""
    ranking: RankingConfig = field(default_factory=RankingConfig)
    """The ranking model."""


def article_mlp() -> Recipe:
    """The article's MLP ranks: 128-64-32-1, ReLU, sigmoid, BCE, Adam, 10 epochs, batch 32, 20 %
    validation; the time-aware sequence model retrieves."""
    return Recipe("article_mlp")


RECIPES: Mapping[str, Callable[[], Recipe]] = MappingProxyType({"article_mlp": article_mlp})
