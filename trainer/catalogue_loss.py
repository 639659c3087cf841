"""Cross-entropy over the catalogue: whole, or over a sample corrected for how it was drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainer.models.sequence import SequenceModel
from trainer.models.vocabulary import FIRST_ITEM_ROW, OOV_ROW

AT_ONCE = {"cpu": 524_288, "cuda": 33_554_432}
"""Scores that exist at a time: 2 MB stay in a core's cache, 128 MB keep a GPU busy."""


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
        """Losses (N,) of N positions, to be summed or averaged; see `told_apart`.

        Args:
            model: for the popularity it adds to scores.
            table: item vectors (V, D).
            user: user vectors (N, D).
            target: rows (N,).
        """
        # index_select and embedding rather than indexing, whose gradient is slow on CPUs.
        popularity = model.popularity[:, None]
        own = (user * nn.functional.embedding(target, table)).sum(dim=1)
        own = own + nn.functional.embedding(target, popularity).squeeze(1)
        if self.n == 0:
            rows = torch.arange(FIRST_ITEM_ROW, len(table), device=user.device)
            vectors, bias = table[FIRST_ITEM_ROW:], model.popularity[FIRST_ITEM_ROW:]
        else:
            chance = torch.rand(self.n, dtype=torch.float64, device=user.device)
            drawn = torch.searchsorted(self.cumulative, chance)
            drawn = drawn.clamp(max=len(self.cumulative) - 1)
            rows = drawn + FIRST_ITEM_ROW
            vectors = table.index_select(0, rows)
            bias = popularity.index_select(0, rows).squeeze(1) - self.log_expected[drawn]
        return told_apart(user, own, vectors, bias, rows, target)


class _ToldApart(torch.autograd.Function):
    """The loss and its gradients chunk by chunk, so that no more scores exist than fit a cache.

    With z the log-sum-exp of the others' scores and s the target's own, a loss is softplus(z − s)
    and its slope in z is σ(z − s), which the others share as their softmax.
    """

    @staticmethod
    def forward(
        ctx: Any,
        user_ND: Tensor,
        own_N: Tensor,
        vectors_SD: Tensor,
        bias_S: Tensor,
        rows_S: Tensor,
        target_N: Tensor,
    ) -> Tensor:
        of_user, of_vectors = torch.empty_like(user_ND), torch.zeros_like(vectors_SD)
        of_own, of_bias = torch.empty_like(own_N), torch.zeros_like(bias_S)
        rows, target = rows_S.int(), target_N.int()
        losses = torch.empty_like(own_N)
        size = max(AT_ONCE[user_ND.device.type] // len(rows), 16)
        for start in range(0, len(target), size):
            part = slice(start, start + size)
            scores = torch.addmm(bias_S, user_ND[part], vectors_SD.T).to(own_N.dtype)
            scores.masked_fill_(rows == target[part, None], -torch.inf)
            most = scores.amax(dim=1, keepdim=True).clamp(min=-1e30)
            weights = scores.sub_(most).exp_()
            mass = weights.sum(dim=1).clamp(min=1e-30)
            ahead = mass.log() + most.squeeze(1) - own_N[part]
            losses[part] = nn.functional.softplus(ahead)
            slope = ahead.sigmoid()
            weights.mul_((slope / mass)[:, None])
            of_own[part] = -slope
            of_user[part] = weights @ vectors_SD
            of_vectors += weights.T @ user_ND[part]
            of_bias += weights.sum(dim=0)
        ctx.save_for_backward(of_user, of_own, of_vectors, of_bias)
        return losses

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor | None, ...]:
        # A GPU would have to be waited for.
        if not grad_N.is_cuda and bool((grad_N != grad_N[:1]).any()):
            raise ValueError("losses are summed or averaged; they cannot be weighed one by one")
        factor = grad_N[:1].sum()
        return (*(factor * one for one in ctx.saved_tensors), None, None)


# Its chunks are many steps of one kernel each, which a compiler would only unroll.
@torch.compiler.disable
def told_apart(
    user_ND: Tensor, own_N: Tensor, vectors_SD: Tensor, bias_S: Tensor, rows_S: Tensor,
    target_N: Tensor,
) -> Tensor:  # fmt: skip
    """Cross-entropy (N,) of each position's target among S others.

    The gradients are made with the losses, before it is known what is done with them; so the
    losses may be summed or averaged, but not weighed one by one.

    Args:
        user_ND: user vectors.
        own_N: score of each target.
        vectors_SD: vectors of the others.
        bias_S: what is added to their scores.
        rows_S: their rows; where one is the target itself, it is left out.
        target_N: rows of the targets.
    """
    losses: Tensor = _ToldApart.apply(user_ND, own_N, vectors_SD, bias_S, rows_S, target_N)
    return losses


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
