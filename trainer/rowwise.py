"""Row-wise Adagrad: one number of state for each row of a table, and only rows used are touched.

The sum G of a row's mean squared gradients sets its rate: w ← w − lr · g / (√G + ε) (Duchi et al.
2011, the squares averaged over the row). AdamW would keep two numbers for every weight and write
all of them each step: for a table of 10⁷ rows of 256 that is 20 GB of state and 40 GB a step.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from trainer.models.sharded import ShardedTable, is_sharded

TABLE_RATE = 20.0
"""Rate of table rows over that of dense weights: Adagrad's steps shrink with every one taken. On a
generated log rows then learn as fast as with AdamW; at the same rate they hardly learn."""


class RowwiseAdagrad(torch.optim.Optimizer):
    """Updates tables (V, D) whose gradients are sparse; its state lies beside their rows."""

    def __init__(
        self, tables: Iterable[nn.Parameter], lr: float, scale: float = 1.0, eps: float = 1e-8
    ) -> None:
        """An optimizer of tables.

        Args:
            tables: parameters (V, D).
            lr: about how far a row goes at its first step, `scale` times over.
            scale: rate over that of what is trained beside, so that one schedule sets both.
            eps: keeps rows whose gradients are zero.
        """
        # Torch refuses no group, but an empty list of parameters.
        super().__init__([{"params": list(tables)}], {"lr": lr, "scale": scale, "eps": eps})
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
                rate = (
                    group["lr"]
                    * group["scale"]
                    / (squares.index_select(0, rows).sqrt() + group["eps"])
                )
                table.index_add_(0, rows, -rate[:, None] * values)


class Optimizers:
    """AdamW for dense weights and row-wise Adagrad for tables, as one optimizer."""

    def __init__(self, model: nn.Module, lr: float, weight_decay: float = 0.0) -> None:
        """Optimizers of all parameters of a model."""
        self.tables = [m for m in model.modules() if isinstance(m, ShardedTable)]
        self.dense = [p for p in model.parameters() if not is_sharded(p)]
        self.adam = torch.optim.AdamW(
            self.dense, lr=lr, betas=(0.9, 0.98), weight_decay=weight_decay, fused=True
        )
        self.adagrad = RowwiseAdagrad(
            [table.weight for table in self.tables], lr=lr, scale=TABLE_RATE
        )

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of both, whose rates may be set."""
        return [*self.adam.param_groups, *self.adagrad.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""
        self.adam.zero_grad(set_to_none)
        self.adagrad.zero_grad(set_to_none)

    def step(self) -> None:
        """Update what has a gradient."""
        self.adam.step()
        self.adagrad.step()

    def state_dict(self) -> dict[str, Any]:
        """The state, that of tables whole; with several processes all must call this together."""
        squares = [t.gather(self.adagrad.state[t.weight]["squares"]) for t in self.tables]
        return {"dense": self.adam.state_dict(), "squares": squares}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state, also with another number of processes."""
        self.adam.load_state_dict(state["dense"])
        for table, squares in zip(self.tables, state["squares"], strict=True):
            self.adagrad.state[table.weight]["squares"].copy_(table.own(squares))
