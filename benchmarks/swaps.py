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
import threading
import time
from pathlib import Path

import numpy as np

from benchmarks.record import circumstances, keep
from ebbing.client import EbbingError
from ebbing.progress import Reporter
from server.inference.embedded import EmbeddedTriton
from tests.harness.gateway import GatewayProcess, catalogue, events
from tests.harness.processes import descendants
from tests.harness.release import LOG, TINY
from tests.harness.releases import publish_again
from tests.harness.triton import embedded_config
from trainer.data.simulate import simulate
from trainer.publish import publish
from trainer.train import TrainingRun, train_run

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


class Callers:
    """Ask for slates as fast as they are answered, until the block ends."""

    def __init__(self, gateway: GatewayProcess, users: list[str], threads: int) -> None:
        self.slates = self.degraded = 0
        self.failures: list[str] = []
        self.slowest_s = 0.0
        self._gateway, self._users = gateway, users
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(threads)]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        with self._gateway.client() as client:
            while not self._stop.is_set():
                number += 1
                began = time.monotonic()
                try:
                    slate = client.recommend(self._users[number % len(self._users)], LOG.end)
                except EbbingError as error:
                    self.failures.append(str(error))
                    continue
                with self._lock:
                    self.slates += 1
                    self.degraded += slate.degraded
                    self.slowest_s = max(self.slowest_s, time.monotonic() - began)


def main() -> None:
    """Measure, print, and keep if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--swaps", type=int, default=200)
    parser.add_argument("--callers", type=int, default=4)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    reporter = Reporter()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        simulation = simulate(LOG)
        simulation.write(folder / "data")
        train_run(TrainingRun(folder / "data", folder / "run", TINY), reporter)
        config = embedded_config(folder)
        first = publish(folder / "run", config.repository, "2025-06-01T00:00:00+00:00").release
        for number in range(first + 1, first + RELEASES):
            publish_again(config.repository, first, number)
        users = list(simulation.log.user_ids)
        with (
            EmbeddedTriton(config) as triton,
            GatewayProcess(
                folder, config.repository, triton.grpc_address, folder / "state.db", **SETTINGS
            ) as gateway,
            gateway.client() as client,
        ):
            client.write_items(catalogue(simulation))
            client.write_events(events(simulation))
            began = time.monotonic()
            memory, took = [memory_bytes(triton.process.pid)], []
            with (
                Callers(gateway, users, options.callers) as callers,
                reporter.stage("swaps", options.swaps, "swaps") as stage,
            ):
                for swap in range(options.swaps):
                    start = time.monotonic()
                    client.promote_release(first + swap % RELEASES)
                    took.append(time.monotonic() - start)
                    memory.append(memory_bytes(triton.process.pid))
                    stage.advance(1, mib=memory[-1] / 2**20, failed=len(callers.failures))
            seconds = time.monotonic() - began
            with Callers(gateway, users, options.callers) as undisturbed:
                time.sleep(min(seconds, 30.0))
            still_s = min(seconds, 30.0)
    later = memory[len(memory) // 2 :]
    slope = float(np.polyfit(np.arange(len(later)), later, 1)[0])
    result = {
        **circumstances(),
        "swaps": options.swaps,
        "callers": options.callers,
        "seconds": round(seconds, 1),
        "slates": callers.slates,
        "failed": len(callers.failures),
        "failures": sorted(set(callers.failures))[:5],
        "degraded": callers.degraded,
        "slates_per_s_over_undisturbed": round(
            callers.slates / seconds / (undisturbed.slates / still_s), 3
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
