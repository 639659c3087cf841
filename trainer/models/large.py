"""The sequence model with an item table of its own kind, for catalogues of tens of millions.

What reads a history is `HistoryReader`, unchanged. A step sees the table only as the vectors of
the rows it needs, once each, so that neither its memory nor its time grows with the catalogue.
There is no score an item without a vector: what is popular is learned by the vectors.
"""

from __future__ import annotations

import torch

from trainer.models.sequence import SequenceConfig, SequenceModel
from trainer.models.sharded import ShardedTable
from trainer.models.vocabulary import FIRST_ITEM_ROW


class LargeSequenceModel(SequenceModel):
    """A `SequenceModel` whose items are a `ShardedTable`."""

    def __init__(
        self,
        items: int,
        config: SequenceConfig,
        rank: int = 0,
        count: int = 1,
        device: torch.device | str | None = None,
    ) -> None:
        """A model of so many items; `rank` and `count` are those of the process group.

        The table is made on `device`, since it may outgrow the memory beside it.
        """
        super().__init__((), config)
        self.items = ShardedTable(items + FIRST_ITEM_ROW, config.dim, rank, count, device=device)
        del self.popularity
        rows = torch.zeros(items + FIRST_ITEM_ROW, device=device)
        self.register_buffer("popularity", rows, persistent=False)
        self.reader.to(device)
