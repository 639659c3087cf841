"""The large model on a GPU, beside its plan and the chip's limits; `make gpu-check` runs it.

Steps of the large model at full size on made-up histories: time, products a second, bytes a second
and peak memory, beside what `trainer.plan` says and what one plain product and one plain copy reach
on this chip. Then whether bfloat16 trains as float32 does, and the exact top-k head beside
torch.topk. Without a GPU the same code runs at a thousandth of the size on the CPU, and says so.

It needs torch and numpy, no other package, and no network.

Run it from the project root: python -m benchmarks.gpu
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.record import circumstances, keep
from trainer.large import LargeObjective, Negatives, Steps
from trainer.models.large import LargeSequenceModel
from trainer.models.topk import TopK
from trainer.models.vocabulary import FIRST_ITEM_ROW
from trainer.plan import H200, LargeShape, flops, from_host, memory, moved, parameters, seconds

SMALLER = 1000
DAY_S = 86_400.0


def batch(shape: LargeShape, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Histories of which each item follows from the one before, popular items being likelier."""
    B, L, items = shape.sequences, shape.length, shape.items
    first = (torch.rand(B, 1, device=device).pow(3) * items).long()
    stride = 1 + torch.arange(B, device=device)[:, None] % 3
    targets = (first + stride * torch.arange(L, device=device)) % items + FIRST_ITEM_ROW
    rows = torch.cat([torch.zeros_like(targets[:, :1]), targets[:, :-1]], dim=1)
    times = torch.rand(B, L + 1, device=device).mul(30 * DAY_S).cumsum(dim=1)
    return rows, torch.ones_like(rows), times, targets


def training(shape: LargeShape, device: torch.device, bf16: bool, rate: float, seed: int) -> Steps:
    """A large model about to be trained; the same seed starts with the same weights."""
    torch.manual_seed(seed)
    model = LargeSequenceModel(shape.items, shape.config, device=device)
    logged = (torch.rand(shape.logged_events, device=device).pow(3) * shape.items).long()
    negatives = Negatives(logged + FIRST_ITEM_ROW, shape.items, shape.negatives).to(device)
    return Steps(LargeObjective(model, negatives, 0.01), rate, bf16=bf16)


def median_s(task: Callable[[], object], device: torch.device, runs: int) -> float:
    """Median time of a task, to the end of what it started on the device."""
    times = []
    for _ in range(runs + 2):
        started = time.perf_counter()
        task()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[2:])


def limits(device: torch.device, n: int) -> dict[str, float]:
    """What one plain bfloat16 product of n × n and one plain copy reach here, a second."""
    one = torch.randn(n, n, device=device, dtype=torch.bfloat16)
    source, target = one.float(), torch.empty(n, n, device=device)
    return {
        "tflops": 2 * n**3 / median_s(lambda: one @ one, device, 10) / 1e12,
        "gb_per_s": 2 * 4 * n**2 / median_s(lambda: target.copy_(source), device, 10) / 1e9,
    }


def large_model(shape: LargeShape, device: torch.device, runs: int, seed: int) -> dict[str, Any]:
    """Steps at full speed, beside the plan."""
    cuda = device.type == "cuda"
    steps = training(shape, device, bf16=cuda, rate=3e-3, seed=seed)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    data = batch(shape, device)
    first = float(steps(*data).mean())
    step_s = median_s(lambda: steps(*data), device, runs)
    last = float(steps(*data).mean())
    plan_s = seconds(shape)
    peak = torch.cuda.max_memory_allocated() if cuda else None
    return {
        "parameters": parameters(shape),
        "counted": sum(p.numel() for p in steps.objective.parameters()),
        "step_ms": step_s * 1e3,
        "plan_ms": max(plan_s.values()) * 1e3,
        "events_per_s": shape.events / step_s,
        "tflops": sum(flops(shape).values()) / step_s / 1e12,
        "gb_per_s": sum(moved(shape).values()) / step_s / 1e9,
        "from_host_mb": from_host(shape) / 1e6,
        "plan_gb": sum(memory(shape).values()) / 1e9,
        "peak_gb": peak and peak / 1e9,
        "first_loss": first,
        "last_loss": last,
    }


def parity(shape: LargeShape, device: torch.device, runs: int, seed: int) -> dict[str, float]:
    """The same training in bfloat16 and in float32: how far apart losses and answers come.

    Chance is seeded for each step, so that both see the same batches, drops and negatives.
    """
    losses: dict[bool, list[float]] = {}
    found: dict[bool, Tensor] = {}
    for bf16 in (False, True):
        steps = training(shape, device, bf16, rate=3e-3, seed=seed)
        losses[bf16] = []
        for step in range(runs):
            torch.manual_seed(seed + step)
            losses[bf16].append(float(steps(*batch(shape, device)).mean()))
        model: LargeSequenceModel = steps.objective.model  # type: ignore[assignment]
        table = model.items()
        torch.manual_seed(seed)
        rows, types, times, _ = batch(shape, device)
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            users = model.eval()(table, rows, types, times)[:, -1].float()
        found[bf16] = TopK(10)(users, table, model.popularity)[1]
    apart = [abs(a - b) / a for a, b in zip(losses[False], losses[True], strict=True)]
    shared = (found[False][:, :, None] == found[True][:, None]).any(dim=2).float().mean()
    return {
        "steps": runs,
        "loss_fp32": losses[False][-1],
        "loss_bf16": losses[True][-1],
        "largest_relative_difference": max(apart),
        "shared_top_10": float(shared),
    }


def heads(
    device: torch.device, items: int, dim: int, batches: tuple[int, ...], runs: int
) -> list[dict[str, float]]:
    """The top-k head beside torch.topk over all scores, and beside reading the table once."""
    table, bias = torch.randn(items, dim, device=device), torch.randn(items, device=device)
    rows = []
    for queries in batches:
        user = torch.randn(queries, dim, device=device)
        ours = median_s(partial(TopK(200), user, table, bias), device, runs)
        peer = median_s(partial(scored_whole, user, table, bias), device, runs)
        rows.append(
            {
                "items": items,
                "dim": dim,
                "batch": queries,
                "ms": ours * 1e3,
                "torch_topk_over_ours": peer / ours,
                "table_gb_per_s": table.numel() * 4 / ours / 1e9,
            }
        )
    return rows


def scored_whole(user: Tensor, table: Tensor, bias: Tensor) -> Tensor:
    """The peer of the top-k head."""
    return torch.topk(torch.addmm(bias, user, table.T), 200)[1]


def run(seed: int) -> dict[str, Any]:
    """Everything, on the GPU if there is one."""
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    shape = LargeShape() if cuda else LargeShape().scaled(SMALLER)
    reached = limits(device, 16_384 if cuda else 512)
    large = large_model(shape, device, 30 if cuda else 10, seed)
    return {
        **circumstances(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "full_size": cuda,
        "published_limits": {"tflops": H200.bf16_flops / 1e12, "gb_per_s": H200.bytes_per_s / 1e9},
        "reached_limits": reached,
        "large_model": large,
        "share_of_reached_tflops": large["tflops"] / reached["tflops"],
        "share_of_reached_gb_per_s": large["gb_per_s"] / reached["gb_per_s"],
        "bf16_parity": parity(LargeShape().scaled(SMALLER), device, 60 if cuda else 5, seed),
        "top_k": heads(device, *((10_000_000, 128) if cuda else (100_000, 64)), (1, 16, 64), 10),
    }


def show(result: dict[str, Any]) -> None:
    """Print what came of it."""
    large, parity_, reached = (result[k] for k in ("large_model", "bf16_parity", "reached_limits"))
    if not result["full_size"]:
        print(
            f"NO GPU HERE: this is the same code at 1/{SMALLER} of the items on the CPU, which "
            "shows that it runs. It says nothing about a GPU."
        )
    print(
        f"{result['device']}, torch {result['torch']}: one plain product reaches "
        f"{reached['tflops']:.3g} TFLOP/s, one plain copy {reached['gb_per_s']:.4g} GB/s"
    )
    print(
        f"large model, {large['parameters']:,} parameters: {large['step_ms']:.3g} ms a step, "
        f"{large['events_per_s']:,.0f} events/s, loss {large['first_loss']:.3f} → "
        f"{large['last_loss']:.3f}"
    )
    print(
        f"  {large['tflops']:.3g} TFLOP/s ({result['share_of_reached_tflops']:.1%} of the plain "
        f"product), {large['gb_per_s']:.4g} GB/s ({result['share_of_reached_gb_per_s']:.1%} of the "
        "plain copy)"
    )
    if result["full_size"]:
        published = result["published_limits"]
        print(
            f"  of an H200's published limits: {large['tflops'] / published['tflops']:.0%} of "
            f"{published['tflops']:.0f} TFLOP/s, {large['gb_per_s'] / published['gb_per_s']:.0%} "
            f"of {published['gb_per_s']:.0f} GB/s; planned {large['plan_ms']:.3g} ms a step"
        )
        print(f"  peak memory {large['peak_gb']:.1f} GB, planned {large['plan_gb']:.1f} GB")
    print(
        f"bf16 beside fp32 after {parity_['steps']} steps: losses within "
        f"{parity_['largest_relative_difference']:.2%}, {parity_['shared_top_10']:.1%} of the top "
        "10 shared"
    )
    for row in result["top_k"]:
        print(
            f"top 200 of {row['items']:,} × {row['dim']}, batch {row['batch']:>2}: {row['ms']:.3g} "
            f"ms, torch.topk takes {row['torch_topk_over_ours']:.2f} × as long; the table is read "
            f"with {row['table_gb_per_s']:.3g} GB/s"
        )


def main() -> None:
    """Read the options, run, print and keep the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=7, help="the same seed, the same weights")
    parser.add_argument("--out", type=Path, help="file to keep the result in")
    options = parser.parse_args()
    result = run(options.seed)
    show(result)
    keep(result, options.out)


if __name__ == "__main__":
    main()
