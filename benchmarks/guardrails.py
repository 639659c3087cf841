"""How long a release that misbehaves stays: from the operator's word to its rollback by itself.

A real gateway over a real Triton, with the settings it comes with, answers callers in a closed loop
while releases are tried that answer NaN, or whose calls to Triton take half as long again as the
live one's: how much work that takes is found with slower ones first, by what their rollbacks say.

The same is done with callers who pause, as guardrails judge by slates: the fewer, the later.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.record import circumstances, keep
from ebbing.progress import Reporter
from ebbing.v1 import release_service_pb2 as pb
from server.rollout.control import RolloutConfig
from tests.harness.callers import Callers
from tests.harness.releases import Nan, Slow, publish_again
from tests.harness.world import World, world

NAN, MUCH_SLOWER, SLOWER = "NaN", "much slower", "half as long again"
PRODUCTS = 400
"""Work added to the model by which the machine is gauged."""
WAYS = {
    "canary 10%": (pb.RELEASE_ROLE_CANARY, 0.1),
    "canary 50%": (pb.RELEASE_ROLE_CANARY, 0.5),
    "shadow": (pb.RELEASE_ROLE_SHADOW, 1.0),
    "promoted": None,
}
PATIENCE_S = 120.0


def row(made: World, release: int, way: str, pause_s: float) -> dict[str, Any]:
    """Try a release one way; what became of it."""
    users, live = list(made.simulation.log.user_ids), made.releases[0]
    with Callers(made.gateway, users, pause_s=pause_s) as callers:
        while callers.answered[live] < 100:  # something to compare with
            time.sleep(0.1)
        told = time.monotonic()
        if asked := WAYS[way]:
            made.client.set_release_traffic(release, *asked)
        else:
            made.client.promote_release(release)
        began, before = time.monotonic(), callers.answered.total()
        while time.monotonic() - began < PATIENCE_S:
            roles = {one.release: one for one in made.client.list_releases()}
            if roles[release].role == pb.RELEASE_ROLE_IDLE:
                break
            time.sleep(0.05)
        seconds = time.monotonic() - began
        slates = callers.answered.total() - before
    found = {
        "tried": way,
        "pause_s": pause_s,
        "loading_s": round(began - told, 2),
        "rolled_back_s": round(seconds, 2) if seconds < PATIENCE_S else None,
        "slates_per_s": round(slates / seconds, 1),
        "reason": roles[release].reason,
        "failed": len(callers.failures),
    }
    time.sleep(RolloutConfig().linger_s + 2.0)  # until it is unloaded, what it did forgotten
    return found


def slower_by(found: dict[str, Any]) -> float:
    """How many times as long a release's calls took, as its rollback says."""
    took, usual = re.findall(r"([\d.]+) ms", found["reason"])
    return float(took) / float(usual)


def main() -> None:
    """Measure, print, and keep if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pauses", type=float, nargs="+", default=[0.0, 0.2], help="seconds")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        world(Path(folder), Reporter()) as made,
    ):
        live = made.releases[0]

        def add(kind: str, release: int, way: str, pause_s: float) -> dict[str, Any]:
            found = {"release": kind, **row(made, release, way, pause_s)}
            print(found, flush=True)
            rows.append(found)
            return found

        repository = made.repository
        nan = publish_again(repository, live, live + 1, Nan)
        products = float(PRODUCTS)
        for number in (live + 2, live + 3):
            gauge = publish_again(repository, live, number, Slow, round(products))
            products *= 0.5 / (slower_by(add(MUCH_SLOWER, gauge, "canary 50%", 0.0)) - 1.0)
        slower = publish_again(repository, live, live + 4, Slow, round(products))
        for pause_s in options.pauses:
            for way in WAYS:
                add(NAN, nan, way, pause_s)
                add(SLOWER, slower, way, pause_s)
    result = {**circumstances(), "products": round(products), "rows": rows}
    keep(result, options.out)


if __name__ == "__main__":
    main()
