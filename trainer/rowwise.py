"""Row-wise Adagrad: one number of state for each row of a table, and only rows used are touched.

The sum G of a row's mean squared gradients sets its rate: w ← w − lr · g / (√G + ε) (Duchi et al.
2011, the squares averaged over the row). AdamW would keep two numbers for every weight and write
all of them each step: for a table of 10⁷ rows of 256 that is 20 GB of state and 40 GB a step.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


class RowwiseAdagrad(torch.optim.Optimizer):
    """Updates tables (V, D) whose gradients are sparse; its state lies beside their rows."""

    def __init__(self, tables: Iterable[nn.Parameter], lr: float, eps: float = 1e-8) -> None:
        """`lr`: about how far a row goes at its first step; `eps` keeps rows without gradient."""
        super().__init__(tables, {"lr": lr, "eps": eps})
        for group in self.param_groups:
            for table in group["params"]:
                self.state[table]["squares"] = torch.zeros(
                    table.size(0), dtype=torch.float32, device=table.device
                )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of the rows that have a gradient."""
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is None:
                    continue
                gradient = table.grad.coalesce()
                rows, values = gradient.indices()[0], gradient.values()
                squares = self.state[table]["squares"]
                squares.index_add_(0, rows, values.float().square().mean(dim=1))
                rate = group["lr"] / (squares.index_select(0, rows).sqrt() + group["eps"])
                table.index_add_(0, rows, -rate[:, None] * values)
