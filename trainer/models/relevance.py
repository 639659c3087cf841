"""What every ranking model is: keys of history and candidates → relevance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainer.models.vocabulary import Vocabulary


class RelevanceModel(nn.Module):
    """A ranker: whoever inherits gives the log-odds, `logits`.

    Shapes: B users, L events of history, C candidates, F features.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.vocabulary = vocabulary

    def forward(
        self, keys: Tensor, ages: Tensor, types: Tensor, candidates: Tensor, features: Tensor
    ) -> Tensor:
        """`ebbing.history.RANKING_INPUTS` → relevance (B, C) in 0 … 1."""
        return torch.sigmoid(
            self.logits(self.vocabulary(keys), ages, types, self.vocabulary(candidates), features)
        )

    def logits(
        self,
        rows_BL: Tensor,
        ages_BL: Tensor,
        types_BL: Tensor,
        candidates_BC: Tensor,
        features_BCF: Tensor,
    ) -> Tensor:
        """Log-odds (B, C), with keys already turned into rows."""
        raise NotImplementedError


def perceptron(width: int, hidden: Sequence[int]) -> nn.Sequential:
    """Layers from `width` numbers to one, those between followed by ReLU."""
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(width, size), nn.ReLU()]
        width = size
    return nn.Sequential(*layers, nn.Linear(width, 1))
