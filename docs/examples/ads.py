"""Advertising: whom to show a subject, how often, and when to stop.

Run it beside a gateway that serves: python docs/examples/ads.py [ADDRESS]
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

from ebbing.client import Client, catalog_item
from ebbing.v1 import recommendation_service_pb2 as pb


def main(address: str = "127.0.0.1:50051") -> None:
    """An interest that was let go, advertisements for it, and the growing rest between them."""
    now = datetime.now(UTC)
    with Client(address) as ebbing:
        ebbing.write_items(catalog_item(f"ad-{n}", {"sports/running": 1.0}) for n in range(5))
        for week in range(12):
            run = now - timedelta(days=30, weeks=week)
            ebbing.write_event("runner", "click", run, item_id=f"ad-{week % 5}")
        for shown in range(4):
            slate = ebbing.recommend(
                "runner", strategy=pb.STRATEGY_PACE, page_size=1, include_seen=True
            )
            (pace,) = (p for p in slate.paces if p.interest == "sports/running")
            rest = pace.interval.ToTimedelta() / timedelta(days=1)
            print(f"shown {shown} times in vain: due {pace.due}, a rest of {rest:.1f} days")
            ebbing.write_event("runner", "impression", item_id=f"ad-{shown}")


if __name__ == "__main__":
    main(*sys.argv[1:])
