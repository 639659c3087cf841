"""The item vocabulary a model carries: 63-bit keys on the wire, rows inside."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

PADDING_ROW = 0
OOV_ROW = 1
FIRST_ITEM_ROW = 2


class Vocabulary(nn.Module):
    """Maps item keys to embedding rows: 0 padding, 1 out of vocabulary, 2 … the known items.

    Rows follow the sorted keys, so that two models of one catalogue agree on them.
    """

    keys: Tensor

    def __init__(self, keys: Sequence[int]) -> None:
        """`keys`: the known items' keys, distinct and non-zero, in any order.

        Raises:
            ValueError: there is no key, one is zero, or two are the same.
        """
        super().__init__()
        ordered = sorted(keys)
        if not ordered or ordered[0] <= 0 or len(set(ordered)) != len(ordered):
            raise ValueError("a vocabulary needs distinct keys above zero, and at least one")
        self.register_buffer("keys", torch.tensor(ordered, dtype=torch.int64))

    def forward(self, keys: Tensor) -> Tensor:
        """int64 keys of any shape → int64 rows of that shape."""
        position = torch.searchsorted(self.keys, keys.contiguous())
        position = position.clamp(max=self.keys.size(0) - 1)
        known = self.keys[position] == keys
        rows = torch.where(known, position + 2, torch.ones_like(position))
        return torch.where(keys == 0, torch.zeros_like(rows), rows)

    def size(self) -> int:
        """Rows, with the two special ones."""
        return self.keys.size(0) + 2
