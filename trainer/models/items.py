"""Item vectors: what an item is by itself and by its interests."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainer.models.vocabulary import FIRST_ITEM_ROW, PADDING_ROW


class ItemTable(nn.Module):
    """Embedding of each vocabulary row plus the share-weighted mean of its interests' embeddings.

    A path `a/b` also counts for its parent `a`, so that an interest with few items leans on its
    siblings.
    """

    shares: Tensor

    def __init__(self, interests: Sequence[Sequence[tuple[str, float]]], dim: int) -> None:
        """`interests`: (path, share) pairs of each item, in the order of the vocabulary's keys."""
        super().__init__()
        size = len(interests) + FIRST_ITEM_ROW
        names: dict[str, int] = {}
        entries: list[tuple[int, int, float]] = []
        for row, pairs in enumerate(interests, FIRST_ITEM_ROW):
            for path, share in pairs:
                levels = path.split("/")
                for depth in range(len(levels)):
                    name = "/".join(levels[: depth + 1])
                    column = names.setdefault(name, len(names))
                    entries.append((row, column, share / len(levels)))
        where = torch.tensor([entry[:2] for entry in entries], dtype=torch.int64).reshape(-1, 2).T
        values = torch.tensor([share for *_, share in entries])
        # Not part of the state: what is exported holds the finished item vectors.
        self.register_buffer(
            "shares",
            torch.sparse_coo_tensor(
                where, values, (size, max(len(names), 1)), check_invariants=True
            ).coalesce(),
            persistent=False,
        )
        self.names = tuple(names)
        self.own = nn.Embedding(size, dim)
        self.interest = nn.Embedding(max(len(names), 1), dim)
        nn.init.normal_(self.own.weight, std=0.02)
        nn.init.normal_(self.interest.weight, std=0.02)

    def forward(self) -> Tensor:
        """Vectors of all rows, (V, D)."""
        return self.own.weight + torch.sparse.mm(self.shares, self.interest.weight)


def unit_variance(table: Tensor) -> Tensor:
    """(V, D) item vectors, each made √D long, so that a component varies as a standardised feature
    does; that of padding is 0."""
    vectors = table.detach() / table.detach().norm(dim=1, keepdim=True).clamp(min=1e-6)
    vectors = vectors * table.size(1) ** 0.5
    vectors[PADDING_ROW] = 0.0
    return vectors
