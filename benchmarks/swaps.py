"""What swapping releases costs those who ask meanwhile, and Triton's memory.

A real gateway over a real Triton answers callers in a closed loop while one release after another
is promoted, round robin over more releases than stay loaded, so that each swap loads one and
unloads another. Failed and degraded slates are counted, and the memory of Triton with all its
processes is read after each swap; its slope is over the second half, when the first loads are past.

The limit beside: the same callers for as long without any swap.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.record import circumstances, keep
from ebbing.progress import Reporter
from tests.harness.callers import Callers
from tests.harness.processes import descendants
from tests.harness.world import world

RELEASES = 5
"""Live, the one before, two that linger or load, and one to spare."""
SETTINGS = {"rollout_poll_s": 0.1, "release_linger_s": 0.5}


def memory_bytes(root: int) -> int:
    """Resident memory of a process and all it started, without what they share."""
    total = 0
    for pid in [root, *descendants(root)]:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
        except OSError:
            continue
        total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def main() -> None:
    """Measure, print, and keep if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--swaps", type=int, default=200)
    parser.add_argument("--callers", type=int, default=4)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    reporter = Reporter()
    with (
        tempfile.TemporaryDirectory() as folder,
        world(Path(folder), reporter, RELEASES, **SETTINGS) as made,
    ):
        users, triton = list(made.simulation.log.user_ids), made.triton.process.pid
        began = time.monotonic()
        memory, took = [memory_bytes(triton)], []
        with (
            Callers(made.gateway, users, options.callers) as callers,
            reporter.stage("swaps", options.swaps, "swaps") as stage,
        ):
            for swap in range(options.swaps):
                start = time.monotonic()
                made.client.promote_release(made.releases[swap % RELEASES])
                took.append(time.monotonic() - start)
                memory.append(memory_bytes(triton))
                stage.advance(1, mib=memory[-1] / 2**20, failed=len(callers.failures))
        seconds = time.monotonic() - began
        still_s = min(seconds, 30.0)
        with Callers(made.gateway, users, options.callers) as undisturbed:
            time.sleep(still_s)
    later = memory[len(memory) // 2 :]
    slope = float(np.polyfit(np.arange(len(later)), later, 1)[0])
    result = {
        **circumstances(),
        "swaps": options.swaps,
        "callers": options.callers,
        "seconds": round(seconds, 1),
        "slates": callers.answered.total(),
        "failed": len(callers.failures),
        "failures": sorted({str(error) for error in callers.failures})[:5],
        "degraded": callers.degraded,
        "slates_per_s_over_undisturbed": round(
            callers.answered.total() / seconds / (undisturbed.answered.total() / still_s), 3
        ),
        "slowest_slate_s": round(callers.slowest_s, 3),
        "slowest_undisturbed_s": round(undisturbed.slowest_s, 3),
        "swap_median_s": round(float(np.median(took)), 3),
        "triton_first_mib": round(memory[0] / 2**20, 1),
        "triton_last_mib": round(memory[-1] / 2**20, 1),
        "triton_slope_kib_per_swap": round(slope / 1024, 1),
        "triton_mib": [round(m / 2**20, 1) for m in memory[:: max(len(memory) // 50, 1)]],
    }
    print({name: value for name, value in result.items() if name != "triton_mib"})
    keep(result, options.out)


if __name__ == "__main__":
    main()
