"""The same seed, the same model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def reproducible(seed: int, threads: int | None = None, exact: bool = True) -> Iterator[None]:
    """Seed torch, and let it use only algorithms that give the same bits every time.

    Without the latter, gradients of indexing are summed in whatever order the threads come.
    `threads` is how many torch may use; none leaves that as it is. Without `exact` there is the
    seed only: on a GPU not every algorithm needed has an exact form.
    """
    before = torch.are_deterministic_algorithms_enabled()
    filled_before = torch.utils.deterministic.fill_uninitialized_memory
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads or threads_before)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(exact)
    # Nothing here reads memory before it is written, and filling it takes a tenth of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.utils.deterministic.fill_uninitialized_memory = filled_before
        torch.set_num_threads(threads_before)
