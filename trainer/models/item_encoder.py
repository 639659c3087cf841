"""The item encoder: what an item is about and looks like → where retrieval would have it.

One linear map of what describes an item. The description is made here, in TorchScript, for training
and serving alike, so the two cannot differ.

Shapes: B items, A interests, N levels of a path, M modalities given, W widest vector given,
P parts of a description, D width of item vectors.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from ebbing.history import item_key
from trainer.models.vocabulary import FIRST_ITEM_ROW, Vocabulary


class Description(nn.Module):
    """What describes an item as numbers: shares of known interests, and standardised contents.

    An interest is the mean of those levels of its path that are known, so an unknown child falls to
    its parent. Interests without a known level, and modalities unknown or absent, are left out;
    what is left of an item's interests is scaled up to 1.
    """

    widths: list[int]
    modality_keys: Tensor
    mean: Tensor
    scale: Tensor
    first: Final[int] = FIRST_ITEM_ROW

    def __init__(
        self, interests: Sequence[int], contents: Mapping[str, tuple[Tensor, Tensor]]
    ) -> None:
        """`interests`: keys of the levels to know; `contents`: mean and scale (D_m,) of each
        modality's numbers, scale above 0."""
        super().__init__()
        # The key of no path keeps the vocabulary of a catalogue without interests from being empty.
        self.interests = Vocabulary(sorted({*interests, item_key("")}))
        names = sorted(contents)
        self.widths = [len(contents[name][0]) for name in names]
        self.register_buffer(
            "modality_keys", torch.tensor([item_key(name) for name in names], dtype=torch.int64)
        )
        empty = torch.zeros(0)
        self.register_buffer("mean", torch.cat([empty, *(contents[name][0] for name in names)]))
        self.register_buffer("scale", torch.cat([empty, *(contents[name][1] for name in names)]))

    def forward(
        self, interest_keys: Tensor, shares: Tensor, content_keys: Tensor, contents: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`ebbing.history.ITEM_ENCODER_INPUTS` → parts (B, P), and what was unknown (B, 1) int32.

        The parts are one a vocabulary row of interests, then for each modality whether it is there
        and its numbers, then 1.
        """
        B = interest_keys.size(0)
        rows_BAN = self.interests(interest_keys)
        known_BAN = rows_BAN >= self.first
        levels_BA = known_BAN.sum(dim=2)
        weight_BA = shares * (levels_BA > 0)
        weight_BA = weight_BA / weight_BA.sum(dim=1, keepdim=True).clamp(min=1e-6)
        each_BAN = known_BAN * (weight_BA / levels_BA.clamp(min=1)).unsqueeze(2)
        parts = [
            torch.zeros(B, self.interests.size(), device=shares.device).scatter_add(
                1, rows_BAN.flatten(1), each_BAN.flatten(1)
            )
        ]
        unknown_B = ((levels_BA == 0) & (shares > 0)).sum(dim=1)
        unknown_B = unknown_B + (content_keys != 0).sum(dim=1)
        start = 0
        for number, width in enumerate(self.widths):
            here_BM = content_keys == self.modality_keys[number]
            # A vector that is too short is no vector of this modality.
            there_B1 = here_BM.any(dim=1, keepdim=True) & (contents.size(2) >= width)
            if contents.size(2) >= width:
                vector = (here_BM.unsqueeze(2) * contents)[:, :, :width].sum(dim=1)
            else:
                vector = torch.zeros(B, width, device=shares.device)
            stop = start + width
            standard = (vector - self.mean[start:stop]) / self.scale[start:stop]
            present = there_B1.to(shares.dtype)
            parts += [present, standard * present]
            unknown_B = unknown_B - there_B1.squeeze(1).to(torch.int64)
            start = stop
        parts.append(torch.ones(B, 1, device=shares.device))
        return torch.cat(parts, dim=1), unknown_B.to(torch.int32).unsqueeze(1)

    def size(self) -> int:
        """P."""
        return self.interests.size() + sum(width + 1 for width in self.widths) + 1


class ItemEncoder(nn.Module):
    """Descriptions → item vectors and popularity in the space of one retrieval model."""

    weight: Tensor

    def __init__(self, description: Description, weight: Tensor) -> None:
        """`weight`: (P, D + 1), the last column popularity's."""
        super().__init__()
        self.description = description
        self.register_buffer("weight", weight.detach().clone())

    def forward(
        self, interest_keys: Tensor, shares: Tensor, content_keys: Tensor, contents: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`ebbing.history.ITEM_ENCODER_INPUTS` → `ITEM_ENCODER_OUTPUTS`, batch axis first."""
        parts, unknown = self.description(interest_keys, shares, content_keys, contents)
        placed = parts @ self.weight
        return placed[:, :-1], placed[:, -1:], unknown
