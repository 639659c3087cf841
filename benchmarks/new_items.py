"""How soon a new item can be recommended: from its acknowledged write until it is in a slate.

A real gateway over a real Triton with a small release; items that no model has seen are written one
after another, and a user who is after their kind asks for slates until each is among them. The
limit is one second.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.record import circumstances, keep
from ebbing.client import catalog_item
from ebbing.progress import Reporter
from tests.harness.release import LOG
from tests.harness.world import world
from trainer.data.simulate import PROTAGONIST

LONGEST_S = 30.0


def main() -> None:
    """Measure, print, and keep if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=50)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    reporter = Reporter()
    with tempfile.TemporaryDirectory() as folder, world(Path(folder), reporter) as made:
        client = made.client
        # The catalogue itself is compared with the models first.
        time.sleep(2)
        took = []
        with reporter.stage("new items", options.items, "items") as stage:
            for number in range(options.items):
                item_id = f"new-{number:04d}"
                client.write_items([catalog_item(item_id, {"cooking/baking": 1.0})])
                began = time.monotonic()
                while time.monotonic() - began < LONGEST_S:
                    slate = client.recommend(PROTAGONIST, LOG.end, page_size=100)
                    if item_id in {item.item_id for item in slate.items}:
                        break
                took.append(time.monotonic() - began)
                client.delete_item(item_id)
                stage.advance(1, seconds=took[-1])
        known = len(made.simulation.log.item_ids)
    result = {
        **circumstances(),
        "items": options.items,
        "catalogue": known,
        "median_s": round(float(np.median(took)), 3),
        "p95_s": round(float(np.percentile(took, 95)), 3),
        "longest_s": round(max(took), 3),
        "within_1_s": round(float(np.mean(np.array(took) <= 1.0)), 3),
    }
    print(result)
    keep(result, options.out)


if __name__ == "__main__":
    main()
