"""A shop: has interest in this kind of product waned, and what wins it back?

Run it beside a gateway that serves: python docs/examples/shop.py [ADDRESS]
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

from ebbing.client import Client, catalog_item
from ebbing.v1 import interest_pb2
from ebbing.v1 import recommendation_service_pb2 as pb


def main(address: str = "127.0.0.1:50051") -> None:
    """Write a small life of a customer, and ask about it."""
    now = datetime.now(UTC)
    with Client(address) as ebbing:
        shelf = {"tents": "outdoor/tents", "lamps": "outdoor/lamps", "pans": "kitchen/pans"}
        ebbing.write_items(
            catalog_item(f"{name}-{n}", {path: 1.0})
            for name, path in shelf.items()
            for n in range(6)
        )
        for week in range(10):
            bought = now - timedelta(days=9, weeks=week)
            ebbing.write_event("shopper", "purchase", bought, item_id=f"tents-{week % 3}")
        for day in range(8):
            ebbing.write_event(
                "shopper", "view", now - timedelta(days=day), item_id=f"pans-{day % 3}"
            )

        profile = ebbing.interest_profile("shopper")
        for interest in profile.interests:
            state = interest_pb2.InterestState.Name(interest.state).removeprefix("INTEREST_STATE_")
            print(f"{interest.interest}: {state.lower()}, retention {interest.retention:.0%}")
            print(f"  {interest.reason.text}")

        slate = ebbing.recommend("shopper", strategy=pb.STRATEGY_REKINDLE, page_size=5)
        for item in slate.items:
            source = pb.CandidateSource.Name(item.source).removeprefix("CANDIDATE_SOURCE_").lower()
            print(f"show {item.item_id} ({source}), because of {', '.join(item.because_item_ids)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
