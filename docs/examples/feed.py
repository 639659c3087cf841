"""A social feed: a newcomer whom friends introduce, then a feed that follows each event.

Run it beside a gateway that serves: python docs/examples/feed.py [ADDRESS]
"""

from __future__ import annotations

import sys

from ebbing.client import Client, catalog_item
from ebbing.v1 import catalog_service_pb2
from ebbing.v1 import recommendation_service_pb2 as pb


def main(address: str = "127.0.0.1:50051") -> None:
    """Friends who post about something, a newcomer, and what one like changes."""
    with Client(address) as ebbing:
        ebbing.write_items(
            catalog_item(f"{topic}-{n}", {f"topics/{topic}": 1.0})
            for topic in ("climbing", "chess")
            for n in range(8)
        )
        friends = ("fay", "finn", "flo")
        for friend in friends:
            for n in range(4):
                ebbing.write_event(friend, "like", item_id=f"climbing-{n}")
        ebbing.write_relations(
            catalog_service_pb2.Relation(user_id="newcomer", other_user_id=friend)
            for friend in friends
        )

        def show(title: str) -> None:
            slate = ebbing.recommend("newcomer", page_size=4, diversity=0.2)
            start = pb.ColdStart.Name(slate.cold_start).removeprefix("COLD_START_").lower()
            print(f"{title} (cold start: {start}): {', '.join(i.item_id for i in slate.items)}")
            # What is shown is told, so that no slate shows the same for ever.
            for item in slate.items:
                ebbing.write_event(
                    "newcomer",
                    "impression",
                    item_id=item.item_id,
                    attribution_token=slate.attribution_token,
                )

        show("on arrival")
        ebbing.write_event("newcomer", "like", item_id="chess-0")
        show("after a like of chess")


if __name__ == "__main__":
    main(*sys.argv[1:])
