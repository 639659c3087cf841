"""Cross-entropy over the catalogue: whole, or over a sample corrected for how it was drawn."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from trainer.models.sequence import SequenceModel
from trainer.models.vocabulary import FIRST_ITEM_ROW, OOV_ROW


class CatalogueSoftmax(nn.Module):
    """Cross-entropy over the catalogue, or over the target and sampled negatives of a large one.

    Negatives come half uniformly, half by popularity; the logits of the sample are lowered by the
    log of how often each item is expected in it, so that the sum estimates the full one (Bengio
    and Senécal 2008).
    """

    log_expected: Tensor
    cumulative: Tensor

    def __init__(self, counts: np.ndarray, negatives: int) -> None:
        """`counts`: (V,) training events of each vocabulary row; 0 `negatives` score all items."""
        super().__init__()
        items = counts[FIRST_ITEM_ROW:].astype(np.float64)
        share = 0.5 / len(items) + 0.5 * items / max(items.sum(), 1.0)
        share /= share.sum()
        self.n = negatives
        self.register_buffer("cumulative", torch.from_numpy(np.cumsum(share)))
        expected = np.log(share * max(self.n, 1))
        self.register_buffer("log_expected", torch.from_numpy(expected).float())

    def forward(self, model: SequenceModel, table: Tensor, user: Tensor, target: Tensor) -> Tensor:
        """Losses (N,) of N positions: user vectors (N, D), target rows (N,), item table (V, D)."""
        if self.n == 0:
            return nn.functional.cross_entropy(
                model.score(table, user), target - FIRST_ITEM_ROW, reduction="none"
            )
        chance = torch.rand(self.n, dtype=torch.float64, device=user.device)
        drawn = torch.searchsorted(self.cumulative, chance).clamp(max=len(self.cumulative) - 1)
        rows = drawn + FIRST_ITEM_ROW
        # index_select and embedding rather than indexing, whose gradient is slow on CPUs; one
        # pass over all the scores wherever one will do, as they are far more than the rest.
        popularity = model.popularity[:, None]
        bias = popularity.index_select(0, rows).squeeze(1) - self.log_expected[drawn]
        negative = torch.addmm(bias, user, table.index_select(0, rows).T)
        same = rows.int()[None] == target.int()[:, None]
        negative = negative.masked_fill_(same, float("-inf"))
        positive = (user * nn.functional.embedding(target, table)).sum(dim=1)
        positive = positive + nn.functional.embedding(target, popularity).squeeze(1)
        return nn.functional.softplus(torch.logsumexp(negative, dim=1) - positive)


class Objective(nn.Module):
    """The model with its loss: all of a step that is differentiated, so that it can be wrapped."""

    def __init__(self, model: SequenceModel, loss: CatalogueSoftmax, oov_share: float) -> None:
        """`oov_share`: share of history items shown as unknown, so that the unknown row learns."""
        super().__init__()
        self.model = model
        self.loss = loss
        self.oov_share = oov_share

    def forward(self, rows: Tensor, types: Tensor, times: Tensor, targets: Tensor) -> Tensor:
        """Losses (N,) of the N events of a batch; see `SequenceBatch` for the shapes."""
        hidden = (torch.rand(rows.shape, device=rows.device) < self.oov_share) & (
            rows >= FIRST_ITEM_ROW
        )
        # A sparse product has no bfloat16 gradient.
        with torch.autocast(rows.device.type, enabled=False):
            table = self.model.items()
        users = self.model(table, rows.masked_fill(hidden, OOV_ROW), types, times)
        # Rows by number: selecting by mask is several times slower to differentiate.
        where = targets.flatten().nonzero().squeeze(1)
        users = users.flatten(0, 1).index_select(0, where)
        return self.loss(self.model, table, users, targets.flatten()[where])
