"""Cross-entropy over the catalogue: whole, or over a sample corrected for how it was drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainer.models.sequence import SequenceModel
from trainer.models.vocabulary import FIRST_ITEM_ROW, OOV_ROW, PADDING_ROW

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

    def draw(self) -> Tensor:
        """Rows (S,) that targets are told from, with repeats; those of all items if all count."""
        if self.n == 0:
            items, device = len(self.cumulative), self.cumulative.device
            return torch.arange(items, device=device) + FIRST_ITEM_ROW
        chance = torch.rand(self.n, dtype=torch.float64, device=self.cumulative.device)
        drawn = torch.searchsorted(self.cumulative, chance)
        return drawn.clamp(max=len(self.cumulative) - 1) + FIRST_ITEM_ROW

    def forward(
        self,
        user_ND: Tensor,
        wanted_ND: Tensor,
        others_SD: Tensor,
        popularity_V: Tensor,
        target_N: Tensor,
        drawn_S: Tensor,
    ) -> Tensor:
        """Losses (N,) of N positions, to be summed or averaged; see `told_apart`.

        Args:
            user_ND: user vectors.
            wanted_ND: vectors of the targets.
            others_SD: vectors of what was drawn.
            popularity_V: what each row's popularity adds to its scores.
            target_N: rows of the targets.
            drawn_S: what was drawn, by `draw`.
        """
        # Embedding and index_select rather than indexing, whose gradient is slow on CPUs.
        popularity = popularity_V[:, None]
        own = (user_ND * wanted_ND).sum(dim=1)
        own = own + nn.functional.embedding(target_N, popularity).squeeze(1)
        bias = popularity.index_select(0, drawn_S).squeeze(1)
        if self.n:
            bias = bias - self.log_expected[drawn_S - FIRST_ITEM_ROW]
        return told_apart(user_ND, own, others_SD, bias, drawn_S, target_N)


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
        # Getting room from the system costs a CPU more than the product that is put there.
        room = own_N.new_empty(min(size, len(target)), len(rows))
        same = torch.empty_like(room, dtype=torch.bool)
        for start in range(0, len(target), size):
            part = slice(start, min(start + size, len(target)))
            scores, taken = room[: part.stop - start], same[: part.stop - start]
            if user_ND.is_cuda:  # in less precision, where that is asked for
                scores = torch.addmm(bias_S, user_ND[part], vectors_SD.T).to(own_N.dtype)
            else:
                torch.addmm(bias_S, user_ND[part], vectors_SD.T, out=scores)
            scores.masked_fill_(torch.eq(rows, target[part, None], out=taken), -torch.inf)
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
        hidden = torch.rand(rows.shape, device=rows.device) < self.oov_share
        rows = rows.masked_fill(hidden & (rows >= FIRST_ITEM_ROW), OOV_ROW)
        # Rows by number: selecting by mask is several times slower to differentiate.
        where = targets.flatten().nonzero().squeeze(1)
        target = targets.flatten().index_select(0, where)
        drawn = self.loss.draw()
        # The table has the rows used alone: the others would cost most of a step. Padding is first.
        padding = rows.new_full((1,), PADDING_ROW)
        used, place = torch.unique(
            torch.cat([padding, rows.flatten(), target, drawn]), return_inverse=True
        )
        _, history, wanted, others = place.split([1, rows.numel(), len(target), len(drawn)])
        table = self.model.items.lookup(used)
        users = self.model(table, history.view_as(rows), types, times)
        return self.loss(
            users.flatten(0, 1).index_select(0, where),
            nn.functional.embedding(wanted, table),
            table.index_select(0, others),
            self.model.popularity,
            target,
            drawn,
        )
