"""The exact top-k head beside torch.topk over all scores, and beside faiss's flat index.

One catalogue of random vectors a size, the same queries to each, the served (scripted) head among
them. The tasks take turns and the median is told: on one core of CPU time, which other work on the
machine disturbs less, on more of wall time. Before they are timed, all must find the same items.
faiss has no bias an item, so ours is zero. It comes with the extra `benchmarks`; where it is
missing it is left out.

Run it from the project root: python -m benchmarks.topk
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import circumstances, keep
from trainer.models.topk import TopK

Task = Callable[[], object]

SIZES = (12_000, 100_000, 1_000_000)
BATCHES = (1, 16, 64)
DIM = 64


def tasks(
    table: torch.Tensor, user: torch.Tensor, k: int, head: torch.nn.Module
) -> dict[str, Task]:
    """What is timed, by name; each returns the rows it found last."""
    bias = torch.zeros(len(table))
    named: dict[str, Task] = {
        "ours": lambda: head(user, table, bias)[1],
        "torch.topk": lambda: torch.topk(user @ table.T, k, dim=1)[1],
    }
    try:
        import faiss  # noqa: PLC0415
    except ImportError:
        return named
    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatIP(table.size(1))
    index.add(table.numpy())
    return {**named, "faiss": lambda: torch.from_numpy(index.search(user.numpy(), k)[1])}


def check(named: dict[str, Task]) -> None:
    """All of them find the same items, but for those whose scores differ in the last bit.

    Raises:
        AssertionError: they do not.
    """
    ours = named["ours"]()
    for name, task in named.items():
        apart = float((task() != ours).float().mean())
        assert apart < 1e-3, f"{name} finds other items at {apart:.1%} of the places"


def measure(named: dict[str, Task], runs: int) -> dict[str, float]:
    """Median of each task in milliseconds, by turns."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in named}
    for _ in range(runs):
        for name, task in named.items():
            started = clock()
            task()
            times[name].append((clock() - started) * 1e3)
    return {name: round(statistics.median(each), 3) for name, each in times.items()}


def run(threads: int, ks: list[int], seed: int, seconds: float) -> list[dict[str, Any]]:
    """All sizes and batches on so many cores, each for about so many seconds."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    rows = []
    for items in SIZES:
        table = torch.randn(items, DIM)
        for batch in BATCHES:
            user = torch.randn(batch, DIM)
            for k in ks:
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
                    head = torch.jit.script(TopK(k))
                named = tasks(table, user, k, head)
                check(named)
                once = sum(measure(named, 2).values()) / 1e3
                took = measure(named, min(max(round(seconds / once), 5), 301))
                row = {"cores": threads, "items": items, "batch": batch, "k": k, "ms": took}
                over = {n: round(ms / took["ours"], 2) for n, ms in took.items() if n != "ours"}
                rows.append({**row, "times_ours": over})
                show(rows[-1])
    return rows


def show(row: dict[str, Any]) -> None:
    """Print a line."""
    beside = "  ".join(f"{name} {ratio:5.2f} ×" for name, ratio in row["times_ours"].items())
    print(
        f"{row['cores']} cores  {row['items']:>9,} items  batch {row['batch']:>2}  "
        f"k {row['k']:>3}  ours {row['ms']['ours']:8.2f} ms  {beside}",
        flush=True,
    )


def main() -> None:
    """Read the options, run, print and keep the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2], help="threads of each")
    parser.add_argument("--k", type=int, nargs="+", default=[10, 200], help="items asked for")
    parser.add_argument("--seconds", type=float, default=3.0, help="time for each comparison")
    parser.add_argument("--seed", type=int, default=7, help="the same seed, the same catalogue")
    parser.add_argument("--out", type=Path, help="file to keep the result in")
    options = parser.parse_args()
    rows = [
        row
        for threads in options.cores
        for row in run(threads, options.k, options.seed, options.seconds)
    ]
    keep({**circumstances(), "dim": DIM, "seed": options.seed, "rows": rows}, options.out)


if __name__ == "__main__":
    main()
