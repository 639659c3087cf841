"""Named recipes: what `ebbing train --recipe NAME` trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from trainer.data.replay import ReplayConfig
from trainer.item_encoding import ItemEncoderConfig
from trainer.models.ncf import NcfConfig
from trainer.models.ranker import RankerConfig
from trainer.ranking import RankingConfig
from trainer.recipe_xl import large_retrieval
from trainer.retrieval import RetrievalConfig
from trainer.simple_retrieval import DecayConfig, PopularConfig, SimpleConfig


@dataclass(frozen=True)
class Recipe:
    """The models of a release."""

    name: str
    """What the recipe is called."""
    retrieval: RetrievalConfig | SimpleConfig = field(default_factory=RetrievalConfig)
    """The retrieval model."""
    ranking: RankingConfig = field(default_factory=RankingConfig)
    """The ranking model."""
    item_encoder: ItemEncoderConfig | None = None
    """What places items that no model has seen; None: the release has none."""


def article_mlp() -> Recipe:
    """The article's MLP ranks: 128-64-32-1, ReLU, sigmoid, BCE, Adam, 10 epochs, batch 32, 20 %
    validation; the time-aware sequence model retrieves."""
    return Recipe("article_mlp")


def article_ncf() -> Recipe:
    """The article's embedding ranker: user 32 + item 32, concatenated, dense 64, sigmoid; the
    time-aware sequence model retrieves."""
    # Embeddings are learned of the items met: many more examples, in larger batches.
    ranking = RankingConfig(NcfConfig(), ReplayConfig(events=20_000), batch=256)
    return Recipe("article_ncf", ranking=ranking)


def sequence() -> Recipe:
    """The flagship: attention that forgets retrieves, over long- and short-term read-outs; each
    candidate asks the history what it has to do with it; new items are placed by what they are."""
    ranking = RankingConfig(
        RankerConfig(),
        ReplayConfig(fewest_untrained=500, retrieved_negatives=6),
        epochs=8,
        batch=144,
        learning_rate=2e-3,
        weight_decay=0.01,
    )
    return Recipe("sequence", RetrievalConfig(), ranking, ItemEncoderConfig())


def sequence_xl() -> Recipe:
    """The flagship for 10⁷ items: 2.6 · 10⁹ parameters, trained by rows; see docs/scaling.md."""
    return Recipe("sequence_xl", large_retrieval())


def popular() -> Recipe:
    """A baseline: what is popular lately is retrieved, for everybody."""
    return Recipe("popular", PopularConfig())


def exponential_decay() -> Recipe:
    """A baseline: what a user's own items and interests are by exponentially decayed counts."""
    return Recipe("exponential-decay", DecayConfig())


RECIPES: Mapping[str, Callable[[], Recipe]] = MappingProxyType(
    {
        "article_mlp": article_mlp,
        "article_ncf": article_ncf,
        "sequence": sequence,
        "sequence_xl": sequence_xl,
        "popular": popular,
        "exponential-decay": exponential_decay,
    }
)
