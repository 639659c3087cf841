"""Training of the large model: steps whose cost is that of the rows they touch.

The rows of a batch, of its targets and of the sampled negatives are looked up once each and the
step works on that small table: with one process or with many, on a CPU or a GPU.

Shapes: N events, K negatives, D width, V vocabulary rows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from trainer.catalogue_loss import told_apart
from trainer.models.large import LargeSequenceModel
from trainer.models.vocabulary import FIRST_ITEM_ROW, OOV_ROW, PADDING_ROW
from trainer.rowwise import Optimizers


class Negatives(nn.Module):
    """Sampled items, half of them by popularity and half uniformly.

    To draw an event's item costs a look at the log, and a row one number, so the catalogue is
    never summed up and drawing takes no time that grows with it.
    """

    counts: Tensor
    rows: Tensor

    def __init__(self, rows: Tensor, items: int, n: int) -> None:
        """`rows`: (E,) vocabulary row of each training event, or of a sample of them."""
        super().__init__()
        self.n, self.items = n, items
        self.register_buffer("rows", rows.to(torch.int32), persistent=False)
        counts = torch.bincount(rows, minlength=items + FIRST_ITEM_ROW).float()
        self.register_buffer("counts", counts, persistent=False)

    def draw(self) -> Tensor:
        """K vocabulary rows, with repeats."""
        device, half = self.rows.device, self.n // 2
        events = torch.randint(len(self.rows), (half,), device=device)
        anywhere = torch.randint(self.items, (self.n - half,), device=device) + FIRST_ITEM_ROW
        return torch.cat([self.rows[events].long(), anywhere])

    def log_expected(self, rows: Tensor) -> Tensor:
        """Log of how often each row is expected in a draw."""
        share = 0.5 * self.counts[rows] / len(self.rows) + 0.5 / self.items
        return torch.log(self.n * share)


class LargeObjective(nn.Module):
    """The model with its loss: cross-entropy of the target among negatives, corrected for how
    they were drawn (Bengio and Senécal 2008)."""

    def __init__(self, model: LargeSequenceModel, negatives: Negatives, oov_share: float) -> None:
        """`oov_share`: share of history items shown as unknown, so that the unknown row learns."""
        super().__init__()
        self.model = model
        self.negatives = negatives
        self.oov_share = oov_share

    def forward(self, rows: Tensor, types: Tensor, times: Tensor, targets: Tensor) -> Tensor:
        """Losses (N,) of the N events of a batch, to be summed or averaged; see `SequenceBatch`."""
        hidden = torch.rand(rows.shape, device=rows.device) < self.oov_share
        rows = rows.masked_fill(hidden & (rows >= FIRST_ITEM_ROW), OOV_ROW)
        where = targets.flatten().nonzero().squeeze(1)
        target = targets.flatten().index_select(0, where)
        drawn = self.negatives.draw()
        # Padding stands first, as it does in the whole table.
        padding = rows.new_full((1,), PADDING_ROW)
        used, place = torch.unique(
            torch.cat([padding, rows.flatten(), target, drawn]), return_inverse=True
        )
        table = self.model.items.lookup(used)
        _, history, wanted, others = place.split([1, rows.numel(), len(target), len(drawn)])

        users = self.model(table, history.view_as(rows), types, times)
        users = users.flatten(0, 1).index_select(0, where)
        own = (users * nn.functional.embedding(wanted, table)).sum(dim=1)
        vectors, bias = table.index_select(0, others), -self.negatives.log_expected(drawn)
        return told_apart(users, own, vectors, bias, drawn, target)


class Steps:
    """The steps of a training: gradients, dense weights by AdamW, rows of tables by Adagrad."""

    def __init__(
        self,
        objective: nn.Module,
        learning_rate: float,
        mean: Callable[[Tensor], Tensor] = torch.mean,
        bf16: bool = False,
        clip: float = 5.0,
    ) -> None:
        """Steps on an objective.

        Args:
            objective: batch → losses; shared with other processes already, if there are any.
            learning_rate: of both optimizers.
            mean: what of the losses is differentiated; `Group.mean` with several processes.
            bf16: whether matrix products are made in bfloat16; weights stay float32.
            clip: largest norm of the dense gradient.
        """
        self.objective, self.mean = objective, mean
        self.bf16, self.clip = bf16, clip
        self.optimizer = Optimizers(objective, learning_rate)

    def __call__(self, *batch: Tensor) -> Tensor:
        """One step; returns the losses (N,), detached. Waits for no GPU."""
        with torch.autocast(batch[0].device.type, torch.bfloat16, enabled=self.bf16):
            losses = self.objective(*batch)
        self.optimizer.zero_grad()
        self.mean(losses).backward()
        nn.utils.clip_grad_norm_(self.optimizer.dense, self.clip)
        self.optimizer.step()
        return losses.detach()
