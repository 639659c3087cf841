"""The article's ranker: a multilayer perceptron 128-64-32-1, φ(I_u, X_i) = R_ui.

Shapes: B users, L events of history, C candidates, D width of item vectors, F features.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from trainer.models.items import unit_variance
from trainer.models.relevance import RelevanceModel, perceptron
from trainer.models.vocabulary import PADDING_ROW, Vocabulary


@dataclass(frozen=True)
class MlpConfig:
    """The shape of the model."""

    hidden: tuple[int, ...] = (128, 64, 32)
    """Widths of the hidden layers, each followed by ReLU: the article's."""
    product: bool = True
    """Whether the elementwise product of I_u and X_i is an input beside them."""


class MlpRanker(RelevanceModel):
    """I_u, the age-weighted mean of what the user had, and X_i, the candidate → relevance.

    The item vectors are those of the retrieval model of the same run and are not trained here.
    """

    day_s: Final[float] = 86_400.0
    padding_row: Final[int] = PADDING_ROW

    table: Tensor
    feature_mean: Tensor
    feature_scale: Tensor

    def __init__(
        self,
        vocabulary: Vocabulary,
        table: Tensor,
        feature_mean: Tensor,
        feature_scale: Tensor,
        config: MlpConfig,
    ) -> None:
        """`table`: (V, D) item vectors; `feature_mean` and `feature_scale`: (F,), scale above 0."""
        super().__init__(vocabulary)
        self.product = config.product
        self.register_buffer("table", unit_variance(table))
        self.register_buffer("feature_mean", feature_mean.clone())
        self.register_buffer("feature_scale", feature_scale.clone())
        self.log_half_life_days = nn.Parameter(torch.tensor(30.0).log())
        width = self.table.size(1) * (3 if config.product else 2) + len(feature_mean)
        self.layers = perceptron(width, config.hidden)

    def logits(
        self,
        rows_BL: Tensor,
        ages_BL: Tensor,
        types_BL: Tensor,
        candidates_BC: Tensor,
        features_BCF: Tensor,
    ) -> Tensor:
        """See `RelevanceModel`; types are not used."""
        user_BCD = self.user(rows_BL, ages_BL)[:, None].expand(-1, candidates_BC.size(1), -1)
        item_BCD = self.table[candidates_BC]
        parts = [user_BCD, item_BCD, (features_BCF - self.feature_mean) / self.feature_scale]
        if self.product:
            parts.append(user_BCD * item_BCD)
        return self.layers(torch.cat(parts, dim=2)).squeeze(2)

    def user(self, rows_BL: Tensor, ages_BL: Tensor) -> Tensor:
        """I_u: mean item vector of the history, halving in weight with each half-life of age."""
        real = rows_BL != self.padding_row
        half_lives = ages_BL.clamp(min=0.0) / self.day_s * torch.exp(-self.log_half_life_days)
        half_lives = half_lives.masked_fill(~real, float("inf"))
        # Relative to the newest event, or old histories would underflow to nothing.
        youngest = half_lives.amin(dim=1, keepdim=True)
        youngest = youngest.masked_fill(youngest.isinf(), 0.0)
        weight = torch.exp2(youngest - half_lives)
        total = weight.sum(dim=1, keepdim=True).clamp(min=1e-6)
        return ((weight / total).unsqueeze(1) @ self.table[rows_BL]).squeeze(1)
