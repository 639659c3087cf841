"""The article's embedding ranker: user 32 + item 32, concatenated, dense 64, sigmoid.

Who the user is, the model tells by what they have had: the user embedding is the mean of embeddings
that items have for this alone, beside those they have as candidates. So it serves users it was not
trained on, and a user changes with each event.

Shapes: B users, L events of history, C candidates, W width of embeddings, F features.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from trainer.models.relevance import RelevanceModel
from trainer.models.vocabulary import FIRST_ITEM_ROW, Vocabulary


@dataclass(frozen=True)
class NcfConfig:
    """The shape of the model; the defaults are the article's."""

    width: int = 32
    """Width of a user's and of an item's embedding."""
    hidden: int = 64
    """Width of the dense layer, followed by ReLU."""


class NcfRanker(RelevanceModel):
    """Embeddings of user and candidate → relevance; unknown items have the embedding 0."""

    first: Final[int] = FIRST_ITEM_ROW

    def __init__(self, vocabulary: Vocabulary, config: NcfConfig) -> None:
        super().__init__(vocabulary)
        self.had = nn.Embedding(vocabulary.size(), config.width)
        self.item = nn.Embedding(vocabulary.size(), config.width)
        for table in (self.had, self.item):
            nn.init.normal_(table.weight, std=0.1)
            with torch.no_grad():
                table.weight[:FIRST_ITEM_ROW] = 0.0
        self.nobody = nn.Parameter(torch.zeros(config.width))
        self.dense = nn.Linear(2 * config.width, config.hidden)
        self.out = nn.Linear(config.hidden, 1)

    def logits(
        self,
        rows_BL: Tensor,
        ages_BL: Tensor,
        types_BL: Tensor,
        candidates_BC: Tensor,
        features_BCF: Tensor,
    ) -> Tensor:
        """See `RelevanceModel`; only which items there are is used."""
        user_BCW = self.user(rows_BL).unsqueeze(1).expand(-1, candidates_BC.size(1), -1)
        known_BC1 = (candidates_BC >= self.first).unsqueeze(2)
        item_BCW = self.item(candidates_BC) * known_BC1
        hidden = torch.relu(self.dense(torch.cat([user_BCW, item_BCW], dim=2)))
        return self.out(hidden).squeeze(2)

    def user(self, rows_BL: Tensor) -> Tensor:
        """User embeddings (B, W): the mean over known events, or that of a user without any."""
        known_BL1 = (rows_BL >= self.first).unsqueeze(2)
        n_B1 = known_BL1.sum(dim=1)
        mean = (self.had(rows_BL) * known_BL1).sum(dim=1) / n_B1.clamp(min=1)
        return torch.where(n_B1 > 0, mean, self.nobody)
