"""What the processes of a group do in tests: functions that a fresh process can import."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from trainer.distributed import Group, joined
from trainer.large import LargeObjective, Negatives, Steps
from trainer.models.large import LargeSequenceModel
from trainer.models.sequence import SequenceConfig
from trainer.models.sharded import ShardedTable
from trainer.rowwise import RowwiseAdagrad

ROWS, DIM, ITEMS = 23, 4, 60
Batch = tuple[Tensor, Tensor, Tensor, Tensor]


def whole_table() -> Tensor:
    """What a table starts with, whoever holds it."""
    return torch.arange(ROWS * DIM, dtype=torch.float32).view(ROWS, DIM).sin()


def asked(rank: int) -> Tensor:
    """Rows a process looks up: repeats, any order, other numbers of them; the last asks none."""
    chance = torch.Generator().manual_seed(rank)
    return torch.randint(ROWS, (0 if rank == 2 else 9 + rank,), generator=chance)


def weights(rank: int) -> Tensor:
    """What the loss weighs each number of a looked up vector with."""
    chance = torch.Generator().manual_seed(100 + rank)
    return torch.randn(len(asked(rank)), DIM, generator=chance)


def batch(users: range, length: int = 6) -> Batch:
    """Sequences of a catalogue of `ITEMS`, of different lengths."""
    parts = []
    for user in users:
        chance = torch.Generator().manual_seed(user)
        target = torch.randint(2, ITEMS + 2, (length,), generator=chance)
        times = torch.rand(length + 1, generator=chance).sort()[0] * 1e6
        n = 2 + user % (length - 1)
        target[n:] = 0
        rows = torch.cat([torch.zeros(1, dtype=torch.int64), target[:-1]])
        parts.append((rows, torch.ones(length, dtype=torch.int64), times, target))
    rows, types, times, targets = (torch.stack(part) for part in zip(*parts, strict=True))
    return rows, types, times, targets


class EveryItem(Negatives):
    """All items as negatives, so that no chance is in a step."""

    def draw(self) -> Tensor:
        return torch.arange(2, ITEMS + 2)

    def log_expected(self, rows: Tensor) -> Tensor:
        return torch.zeros(len(rows))


def large_model(rank: int, count: int) -> LargeSequenceModel:
    """The same model whatever the number of processes."""
    torch.manual_seed(3)
    config = SequenceConfig(dim=8, heads=2, dropout=0.0)
    model = LargeSequenceModel(ITEMS, config, rank, count)
    span = model.items.span
    table = torch.randn(ITEMS + 2, 8, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        model.items.weight.copy_(table[span.first : span.first + span.size])
    return model


def dense_start(model: LargeSequenceModel) -> None:
    """Start the dense weights from the same numbers; those of a table drew from the generator."""
    chance = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "items.weight":
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=chance))


def train_large(rank: int, count: int, group: Group | None = None) -> dict[str, Any]:
    """Some steps of the large model on this process's part of each batch."""
    model = large_model(rank, count)
    dense_start(model)
    rows = batch(range(24))[3].flatten()
    objective = LargeObjective(model, EveryItem(rows[rows > 0], ITEMS, ITEMS), 0.0)
    if group is None:
        steps = Steps(objective, 0.01)
    else:
        steps = Steps(group.share(objective), 0.01, group.mean)
    for step in range(4):
        mine = range(6 * step, 6 * step + 6)[rank::count]
        steps(*batch(mine))
    dense = {name: p for name, p in model.named_parameters() if name != "items.weight"}
    return {"table": model.items(), **{name: p.detach() for name, p in dense.items()}}


def do_everything(folder: str) -> None:
    """What one launch of so many processes proves; the answers are left in `folder`."""
    with joined(os.environ, "cpu") as group:
        rank = group.rank
        table = ShardedTable(ROWS, DIM, rank, group.count)
        span = table.span
        with torch.no_grad():
            table.weight.copy_(whole_table()[span.first : span.first + span.size])
        optimizer = RowwiseAdagrad([table.weight], lr=0.1)
        vectors = table.lookup(asked(rank))
        (vectors * weights(rank)).sum().backward()
        assert table.weight.grad is not None
        gradient = table.weight.grad.to_dense()
        gathered: list[Any] = [None] * group.count
        dist.all_gather_object(gathered, gradient)
        optimizer.step()
        answers = {
            "vectors": vectors.detach(),
            "gradient": torch.cat(gathered),
            "stepped": table(),
            "state_rows": len(optimizer.state[table.weight]["squares"]),
            "total": group.total(torch.tensor([1.0 + rank])),
            "large": train_large(rank, group.count, group),
        }
        torch.save(answers, Path(folder) / f"{rank}.pt")


if __name__ == "__main__":
    # As torchrun starts it.
    do_everything(sys.argv[1])
