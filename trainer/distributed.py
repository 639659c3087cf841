"""Many processes that train one model: how they find each other, share work and end together.

Every process holds the whole of the dense weights and takes its share of the users of each batch,
so that the batch of a step, and with it the learning rate that suits it, is the recipe's however
many processes there are. Gradients are averaged so that the step is that of one process on the
whole batch, but for the order of sums.

Either torchrun starts the processes, or `launch` does; with several machines it must be torchrun.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainer.models.sharded import is_sharded

PATIENCE = timedelta(hours=6)
"""How long processes wait for one another: the first does alone what comes before training."""


class WorkerError(Exception):
    """Processes that could not start, or of which one ended early; the message says how."""


@dataclass(frozen=True)
class Group:
    """The processes of one training, as one of them sees them."""

    rank: int
    """Which of them this is, from 0; 0 writes whatever is written."""
    count: int
    """How many there are."""
    local_rank: int = 0
    """Which of those on its machine it is, and so which GPU it takes."""

    def part(self, users: np.ndarray) -> np.ndarray:
        """The users of a batch that this process takes."""
        return users[self.rank :: self.count]

    def share(self, module: nn.Module) -> nn.Module:
        """The module, called in its place: gradients are averaged over all processes.

        Tables that processes share out are left alone: each has rows of its own, and brings their
        gradients home itself.
        """
        alone = [n for n, p in module.named_parameters() if is_sharded(p)]
        # Nor do buffers change, which would be sent around before each step.
        alone += [n for n, _ in module.named_buffers()]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, alone)
        # A graph that is the same each step may have weights that no loss depends on.
        return DistributedDataParallel(module, static_graph=True)

    def total(self, values: Tensor) -> Tensor:
        """The sum of everybody's `values`."""
        total = values.detach().clone()
        dist.all_reduce(total)
        return total

    def mean(self, losses: Tensor) -> Tensor:
        """What to differentiate so that averaged gradients are those of the mean of all losses.

        Processes have different numbers of losses, so the mean of their means is another.
        """
        n = self.total(losses.new_tensor(float(losses.numel())))
        return losses.sum() * (self.count / n.clamp(min=1.0))

    def first(self, value: float) -> float:
        """What the first of them has; the same on all, for what they must decide alike."""
        told = [value]
        dist.broadcast_object_list(told, 0)
        return told[0]

    def everybody(self, value: Any) -> list[Any]:
        """What each of them has, by rank."""
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values


@contextmanager
def joined(environment: Mapping[str, str], device: str) -> Iterator[Group]:
    """Join the processes that `environment` tells of, as torchrun sets it; leave when done.

    Args:
        environment: RANK, WORLD_SIZE, LOCAL_RANK, and where to meet.
        device: "cpu", over gloo, or "cuda", over nccl with a GPU for each process of a machine.

    Raises:
        WorkerError: they do not find each other, or there are fewer GPUs than processes.
    """
    try:
        group = Group(*(int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    except (KeyError, ValueError) as error:
        raise WorkerError(f"no process group is declared ({error}): start with torchrun") from error
    if device == "cuda":
        if group.local_rank >= torch.cuda.device_count():
            raise WorkerError(
                f"process {group.local_rank} of this machine has no GPU: there are "
                f"{torch.cuda.device_count()}; start so many processes, or use --device cpu"
            )
        torch.cuda.set_device(group.local_rank)
    try:
        dist.init_process_group(
            "nccl" if device == "cuda" else "gloo",
            init_method=environment.get("EBBING_MEET", "env://"),
            rank=group.rank,
            world_size=group.count,
            timeout=PATIENCE,
        )
    except (RuntimeError, ValueError) as error:
        raise WorkerError(f"the {group.count} processes do not find each other: {error}") from error
    try:
        yield group
    finally:
        dist.destroy_process_group()


def declared(environment: Mapping[str, str]) -> bool:
    """Whether this process was started as one of several."""
    return int(environment.get("WORLD_SIZE", "1")) > 1


def launch(processes: int, function: Callable[..., None], arguments: Sequence[Any] = ()) -> None:
    """Run a function in several processes of this machine, and wait for all of them.

    The processes meet through a file in a folder of their own, so no port is taken. When one ends
    early the others are ended too.

    Args:
        processes: how many; each finds `joined` in its environment.
        function: what each runs; importable by its name.
        arguments: what each is handed; picklable.

    Raises:
        WorkerError: one of them was killed or failed.
    """
    with tempfile.TemporaryDirectory(prefix="ebbing-workers-") as folder:
        meet = (Path(folder) / "meet").as_uri()
        context = torch.multiprocessing.start_processes(
            _run, (processes, meet, function, tuple(arguments)), processes, join=False
        )
        assert context is not None
        try:
            while not context.join():
                pass
        except torch.multiprocessing.ProcessExitedException as error:
            raise WorkerError(_told(error, processes)) from error
        except torch.multiprocessing.ProcessRaisedException as error:
            # Whose peer was killed fails too, and may be noticed first.
            killed = [p.exitcode for p in context.processes if (p.exitcode or 0) == -signal.SIGKILL]
            name, _, text = str(error).strip().splitlines()[-1].partition(": ")
            last = "it was killed" if killed else f"{name.rpartition('.')[2]}: {text}"
            raise WorkerError(f"one of {processes} processes ended early: {last}") from error
        finally:
            for process in context.processes:
                process.kill()
                process.join()


def _told(error: torch.multiprocessing.ProcessExitedException, processes: int) -> str:
    how = f"ended with status {error.exit_code}"
    if error.signal_name:
        how = f"was killed ({error.signal_name})"
    remedy = ""
    if error.signal_name == "SIGKILL":
        remedy = "; if nobody killed it the machine ran out of memory: take fewer processes"
    return f"process {error.error_index} of {processes} {how}, so the others were ended{remedy}"


def _run(
    rank: int, processes: int, meet: str, function: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes), EBBING_MEET=meet
    )
    # Each its share of the cores: threads of more than there are only wait for one another.
    torch.set_num_threads(max(torch.get_num_threads() // processes, 1))
    function(*arguments)
