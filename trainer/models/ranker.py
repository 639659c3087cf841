"""The ranker: each candidate asks the history what it has to do with it; old events answer less.

What it learns goes through few numbers a candidate: how alike it is to the events it hears and how
loudly they speak, by head; its popularity; and what is known of the user's interest in what it is
about, retention among it (`ebbing.features`). With whole item vectors beside these it remembered
its examples and told others apart less well.

Shapes: B users, L events of history, C candidates, D width of item vectors, W width inside,
H heads, F features.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from ebbing.history import HISTORY_LENGTH
from trainer.models.items import unit_variance
from trainer.models.relevance import RelevanceModel, perceptron
from trainer.models.vocabulary import FIRST_ITEM_ROW, PADDING_ROW, Vocabulary

EVENT_TYPES = 32
"""Event type numbers the model tells apart; higher ones share the last."""


@dataclass(frozen=True)
class RankerConfig:
    """The shape of the model."""

    width: int = 32
    """Width of items and events inside."""
    heads: int = 4
    """Attention heads; each forgets at a pace of its own."""
    hidden: tuple[int, ...] = (64, 32)
    """Widths of the hidden layers, each followed by ReLU."""
    dropout: float = 0.1
    """Share of activations dropped in training."""


class TargetAttention(nn.Module):
    """Attention from candidates to events, which forgets as a power law of elapsed time.

    After target attention in Deep Interest Networks (Zhou et al., 2018), with softmax and, as in
    `trainer.models.sequence`, a decay and a prior: what nothing in the history speaks for is told
    by the prior.
    """

    day_s: Final[float] = 86_400.0

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.distance_bias = nn.Embedding(HISTORY_LENGTH, heads)
        nn.init.zeros_(self.distance_bias.weight)
        # softplus(-2 … 1): one head starts out hardly forgetting, the last one fast.
        self.decay = nn.Parameter(torch.linspace(-2.0, 1.0, heads))
        self.prior_score = nn.Parameter(torch.zeros(heads))
        # Newest last: the events are told apart by how many came after them.
        self.register_buffer("behind", torch.arange(HISTORY_LENGTH - 1, -1, -1))

    behind: Tensor

    def forward(
        self, candidates_BCW: Tensor, events_BLW: Tensor, ages_BL: Tensor, real_BL: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What of each event every candidate hears (B, H, C, L), and how much in all (B, H, C)."""
        B, C, W = candidates_BCW.shape
        L = events_BLW.size(1)
        d = W // self.heads
        q = self.query(candidates_BCW).view(B, C, self.heads, d).transpose(1, 2)
        k = self.key(events_BLW).view(B, L, self.heads, d).transpose(1, 2)
        pace_H1 = nn.functional.softplus(self.decay).unsqueeze(1)
        # What does not depend on the candidate, (B, H, 1, L).
        bias = self.distance_bias(self.behind[-L:]).T - pace_H1 * torch.log1p(
            ages_BL / self.day_s
        ).unsqueeze(1)
        bias = bias.masked_fill(~real_BL.unsqueeze(1), float("-inf")).unsqueeze(2)
        scores = q @ k.transpose(2, 3) / d**0.5 + bias
        prior = self.prior_score.view(1, -1, 1, 1).expand(B, -1, C, 1)
        scores = torch.cat([prior, scores], dim=3)
        loud = torch.logsumexp(scores, dim=3)
        return torch.exp(scores[..., 1:] - loud.unsqueeze(3)), loud


class Ranker(RelevanceModel):
    """History, candidates and features → relevance.

    The item vectors are those of the retrieval model of the same run and are not trained here.
    """

    padding_row: Final[int] = PADDING_ROW
    last_type: Final[int] = EVENT_TYPES - 1

    table: Tensor
    popularity: Tensor
    feature_mean: Tensor
    feature_scale: Tensor

    def __init__(
        self,
        vocabulary: Vocabulary,
        table: Tensor,
        popularity: Tensor,
        feature_mean: Tensor,
        feature_scale: Tensor,
        config: RankerConfig,
    ) -> None:
        """`table`: (V, D) item vectors; `popularity`: (V,), what the retrieval model adds to an
        item's score; `feature_mean` and `feature_scale`: (F,), scale above 0."""
        super().__init__(vocabulary)
        self.register_buffer("table", unit_variance(table))
        self.register_buffer("popularity", _standardised(popularity.detach()))
        self.register_buffer("feature_mean", feature_mean.clone())
        self.register_buffer("feature_scale", feature_scale.clone())
        W, F = config.width, len(feature_mean)
        self.item = nn.Linear(self.table.size(1), W)
        self.event_type = nn.Embedding(EVENT_TYPES, W)
        nn.init.normal_(self.event_type.weight, std=0.02)
        self.attention = TargetAttention(W, config.heads)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = perceptron(2 * config.heads + 1 + F, config.hidden)

    def logits(
        self,
        rows_BL: Tensor,
        ages_BL: Tensor,
        types_BL: Tensor,
        candidates_BC: Tensor,
        features_BCF: Tensor,
    ) -> Tensor:
        """See `RelevanceModel`."""
        history_BLD, items_BCD = self.table[rows_BL], self.table[candidates_BC]
        events = self.item(history_BLD) + self.event_type(types_BL.clamp(0, self.last_type))
        heard_BHCL, loud_BHC = self.attention(
            self.item(items_BCD), events, ages_BL.clamp(min=0.0), rows_BL != self.padding_row
        )
        alike_BCL = items_BCD @ history_BLD.transpose(1, 2) / history_BLD.size(2) ** 0.5
        alike_BCH = (heard_BHCL * alike_BCL.unsqueeze(1)).sum(dim=3).transpose(1, 2)
        popular_BC1 = self.popularity[candidates_BC].unsqueeze(2)
        known = (features_BCF - self.feature_mean) / self.feature_scale
        parts = torch.cat([alike_BCH, loud_BHC.transpose(1, 2), popular_BC1, known], dim=2)
        return self.layers(self.dropout(parts)).squeeze(2)


def _standardised(popularity: Tensor) -> Tensor:
    """(V,) of mean 0 and spread 1 over items; 0 for padding and unknown ones."""
    items = popularity[FIRST_ITEM_ROW:]
    out = torch.zeros_like(popularity)
    out[FIRST_ITEM_ROW:] = (items - items.mean()) / items.std(unbiased=False).clamp(min=1e-6)
    return out
