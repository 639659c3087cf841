"""Courses: what to learn next, and when to bring a subject up again.

Run it beside a gateway that serves: python docs/examples/courses.py [ADDRESS]
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

from ebbing.client import Client, catalog_item
from ebbing.v1 import recommendation_service_pb2 as pb


def main(address: str = "127.0.0.1:50051") -> None:
    """A learner with two subjects of different rhythm, and the lessons that are due."""
    now = datetime.now(UTC)
    with Client(address) as ebbing:
        ebbing.write_items(
            catalog_item(f"{subject}-{n:02d}", {f"courses/{subject}": 1.0})
            for subject in ("algebra", "spanish")
            for n in range(20)
        )
        for lesson in range(8):
            at = now - timedelta(days=7 * (8 - lesson))
            ebbing.write_event("learner", "view", at, item_id=f"algebra-{lesson:02d}")
        for lesson in range(12):
            at = now - timedelta(days=0.5 + 2 * (11 - lesson))
            ebbing.write_event("learner", "view", at, item_id=f"spanish-{lesson:02d}")

        slate = ebbing.recommend("learner", strategy=pb.STRATEGY_PACE, page_size=3)
        for pace in slate.paces:
            if pace.due:
                print(f"{pace.interest}: now")
            else:
                wait = pace.next_time.ToDatetime(UTC) - now
                print(f"{pace.interest}: in {wait / timedelta(days=1):.1f} days")
        for item in slate.items:
            print(f"next lesson: {item.item_id}")


if __name__ == "__main__":
    main(*sys.argv[1:])
