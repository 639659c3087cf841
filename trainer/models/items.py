"""Item vectors: what an item is by itself and by its interests."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from trainer.models.vocabulary import FIRST_ITEM_ROW, PADDING_ROW


class ItemTable(nn.Module):
    """Embedding of each vocabulary row plus the share-weighted mean of its interests' embeddings.

    A path `a/b` also counts for its parent `a`, so that an interest with few items leans on its
    siblings.
    """

    starts: Tensor
    counts: Tensor
    columns: Tensor
    shares: Tensor

    def __init__(self, interests: Sequence[Sequence[tuple[str, float]]], dim: int) -> None:
        """`interests`: (path, share) pairs of each item, in the order of the vocabulary's keys."""
        super().__init__()
        names: dict[str, int] = {}
        counts, columns, shares = [0] * FIRST_ITEM_ROW, [], []
        for pairs in interests:
            before = len(columns)
            for path, share in pairs:
                levels = path.split("/")
                for depth in range(len(levels)):
                    name = "/".join(levels[: depth + 1])
                    columns.append(names.setdefault(name, len(names)))
                    shares.append(share / len(levels))
            counts.append(len(columns) - before)
        # Not part of the state: what is exported holds the finished item vectors.
        for name, told in (
            ("starts", np.cumsum(counts) - counts),
            ("counts", np.array(counts, np.int64)),
            ("columns", np.array(columns, np.int64)),
            ("shares", np.array(shares, np.float32)),
        ):
            self.register_buffer(name, torch.from_numpy(told), persistent=False)
        self.names = tuple(names)
        """Interest of each vector of `interest`."""
        self.own = nn.Embedding(len(counts), dim)
        self.interest = nn.Embedding(max(len(names), 1), dim)
        nn.init.normal_(self.own.weight, std=0.02)
        nn.init.normal_(self.interest.weight, std=0.02)

    def forward(self) -> Tensor:
        """Vectors of all rows, (V, D)."""
        return self.lookup(torch.arange(len(self.counts), device=self.counts.device))

    def lookup(self, rows_N: Tensor) -> Tensor:
        """Vectors of some rows, (N, D); costs what they do, however many there are."""
        count = self.counts[rows_N]
        bag = count.cumsum(0) - count
        # Entries of a row lie side by side: its first, and so many on.
        first = (self.starts[rows_N] - bag).repeat_interleave(count)
        entry = first + torch.arange(len(first), device=first.device)
        of_interests = nn.functional.embedding_bag(
            self.columns[entry],
            self.interest.weight,
            bag,
            mode="sum",
            per_sample_weights=self.shares[entry].to(self.interest.weight.dtype),
        )
        return nn.functional.embedding(rows_N, self.own.weight) + of_interests


def unit_variance(table: Tensor) -> Tensor:
    """(V, D) item vectors, each made √D long, so that a component varies as a standardised feature
    does; that of padding is 0."""
    vectors = table.detach() / table.detach().norm(dim=1, keepdim=True).clamp(min=1e-6)
    vectors = vectors * table.size(1) ** 0.5
    vectors[PADDING_ROW] = 0.0
    return vectors
