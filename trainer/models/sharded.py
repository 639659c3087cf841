"""An embedding table whose rows lie with different processes, for what outgrows one GPU.

Process p holds the rows from p · ⌈V / P⌉ on. To look rows up, each process asks their owners for
them; backward, the gradients of the vectors go home the same way. So a step moves what it uses,
never the table, and no process holds what it does not own. One process owns everything and asks
nobody.

Gradients are sparse: a step touches the rows it uses, and so does `trainer.rowwise`, whose state
lies beside the rows.

Shapes: V rows, D width, N rows looked up, P processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Span:
    """The rows that one process holds."""

    first: int
    """First of them."""
    size: int
    """How many."""
    each: int
    """How many a process holds at most."""

    @classmethod
    def of(cls, rows: int, rank: int, count: int) -> Span:
        """The share of one of `count` processes."""
        each = -(-rows // count)
        first = min(rank * each, rows)
        return cls(first, min(each, rows - first), each)


class ShardedTable(nn.Module):
    """Vectors of V rows, of which this process holds its span."""

    def __init__(
        self,
        rows: int,
        dim: int,
        rank: int = 0,
        count: int = 1,
        std: float = 0.02,
        device: torch.device | str | None = None,
    ) -> None:
        """A table; `rank` and `count` are those of the process group, if there is one.

        Which process holds a row does not change what it starts with only in distribution: each
        draws its own from torch's generator.
        """
        super().__init__()
        self.rows, self.dim = rows, dim
        self.rank, self.count = rank, count
        self.span = Span.of(rows, rank, count)
        self.weight = nn.Parameter(torch.empty(self.span.size, dim, device=device))
        nn.init.normal_(self.weight, std=std)
        self.weight.sharded = True  # type: ignore[attr-defined]
        self.register_state_dict_post_hook(_whole)
        self.register_load_state_dict_pre_hook(_own)

    def lookup(self, rows_N: Tensor) -> Tensor:
        """Vectors (N, D) of rows in any order, repeats allowed.

        With several processes all of them must call this together, if with nothing to look up.
        """
        if self.count == 1:
            return nn.functional.embedding(rows_N, self.weight, sparse=True)
        rising, order = rows_N.sort()
        vectors = _Exchange.apply(self.weight, rising, self.span, self.count)
        return vectors.index_select(0, order.argsort())

    @torch.no_grad()
    def forward(self) -> Tensor:
        """The whole table (V, D), on every process, without a gradient: for export and measuring.

        With several processes all of them must call this together.
        """
        return self.gather(self.weight.detach())

    def gather(self, own: Tensor) -> Tensor:
        """Of all processes together what each has of its rows: (span, …) → (V, …).

        On the device of `own`, so a table that outgrows a GPU is gathered from the CPU.
        """
        if self.count == 1:
            return own
        here = own.device
        if dist.get_backend() == "nccl":
            # It moves what lies on a GPU only: one span at a time passes through there.
            own = own.cuda()
        parts = []
        for rank in range(self.count):
            span = Span.of(self.rows, rank, self.count)
            part = own if rank == self.rank else own.new_empty(span.size, *own.shape[1:])
            dist.broadcast(part, rank)
            parts.append(part.to(here))
        return torch.cat(parts)

    def own(self, whole: Tensor) -> Tensor:
        """The rows of this process, of what `gather` gave."""
        return whole[self.span.first : self.span.first + self.span.size]


def is_sharded(parameter: nn.Parameter) -> bool:
    """Whether a parameter is the rows that a process holds of a `ShardedTable`."""
    return bool(getattr(parameter, "sharded", False))


def _whole(table: ShardedTable, state: dict[str, Any], prefix: str, _: Any) -> None:
    """What is kept of a table is the whole of it, whoever holds which rows."""
    state[f"{prefix}weight"] = table.gather(state[f"{prefix}weight"])


def _own(table: ShardedTable, state: dict[str, Any], prefix: str, *_: Any) -> None:
    state[f"{prefix}weight"] = table.own(state[f"{prefix}weight"])


class _Exchange(torch.autograd.Function):
    """Rows → their vectors, from whoever holds them, and gradients back."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, rising: Tensor, span: Span, count: int) -> Tensor:
        asked = torch.bincount(rising // span.each, minlength=count)
        asking = torch.empty_like(asked)
        dist.all_to_all_single(asking, asked)
        ctx.asked, ctx.asking = asked.tolist(), asking.tolist()
        wanted = rising.new_empty(sum(ctx.asking))
        dist.all_to_all_single(wanted, rising, ctx.asking, ctx.asked)
        ctx.own = wanted - span.first
        ctx.shape, ctx.count = weight.shape, count
        answers = weight.index_select(0, ctx.own)
        vectors = answers.new_empty(len(rising), weight.size(1))
        dist.all_to_all_single(vectors, answers, ctx.asked, ctx.asking)
        return vectors

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        home = gradient.new_empty(len(ctx.own), gradient.size(1))
        dist.all_to_all_single(home, gradient.contiguous(), ctx.asking, ctx.asked)
        # Averaged over processes, as the gradients of dense weights are.
        values = home / ctx.count
        sparse = torch.sparse_coo_tensor(
            ctx.own[None], values, ctx.shape, check_invariants=False
        ).coalesce()
        return sparse, None, None, None
