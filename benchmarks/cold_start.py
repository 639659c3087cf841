"""What a newcomer of whom only relations are known is offered, beside what is popular.

A real log with relations is written into a store in time order. At several moments, those who are
new until the next one and know somebody who is not are asked about: the gateway's own pipeline makes
a slate for them before their first event, from their relations, and for nobody in particular, from
what is popular. A hit is a slate with an item the newcomer engages afterwards. Hit rates are paired
by user; the interval of their difference is a bootstrap over users. The first half of the moments is
for choosing how friends are weighed, the second is the result.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry

from benchmarks.record import circumstances, keep
from ebbing.client import catalog_item
from ebbing.events import DEFAULT_EVENT_WEIGHTS, EventType
from ebbing.history import item_key
from ebbing.interest.forgetting import ForgettingParameters
from ebbing.progress import Reporter
from ebbing.v1 import catalog_service_pb2 as pb
from server.catalog import Catalog, item_record, relation_record
from server.metrics import Metrics
from server.recommend.pipeline import Recommender
from server.recommend.rules import Rules
from server.recommend.shelves import Shelves
from server.recommend.slates import RecommenderConfig, SlateRequest
from server.recommend.social import Social
from server.recommend.sources import Sources
from server.state.sqlite import SqliteStore
from server.state.store import Interaction
from server.users import Users
from tests.harness.state import records
from trainer.data.log import EventLog, read_log

SHARES = tuple(np.arange(0.3, 0.95, 0.05))
"""Shares of the events after which newcomers are asked about."""
SIZE = 10
DRAWS = 2000
NOBODY = "nobody in particular"


class NoModels:
    """A release that is never asked: newcomers have no history."""

    def serving(self, user_id: str, release: int = 0) -> Any:
        return SimpleNamespace(release=1, forgetting=ForgettingParameters.builtin())

    def shadowing(self, user_id: str) -> None:
        return None

    def observe(self, release: int, observation: object) -> None:
        raise AssertionError("no model was to be asked")


def interactions(log: EventLog, order: np.ndarray) -> Iterator[Interaction]:
    """Events of a log in an order, as a store takes them."""
    for number in order.tolist():
        item = log.item_ids[log.items[number]]
        kind = EventType(int(log.types[number]))
        yield Interaction(
            event_id=f"e{number}",
            user_id=log.user_ids[log.users[number]],
            item_key=item_key(item),
            event_type=int(kind),
            time_us=round(float(log.times[number]) * 1e6),
            weight=DEFAULT_EVENT_WEIGHTS[kind],
            interests=log.interests[log.items[number]],
            body=b"",
        )


async def measured(log: EventLog, folder: Path) -> list[dict[str, float]]:
    """One row a newcomer: the number of the moment, and whether each slate was a hit."""
    order = np.argsort(log.times, kind="stable")
    relations = [(int(one), int(other)) for one, other in log.relations]
    friends: dict[int, list[int]] = {}
    for one, other in relations:
        friends.setdefault(one, []).append(other)
    rows: list[dict[str, float]] = []
    with closing(SqliteStore(folder / "state.db", records())) as store, ThreadPoolExecutor(1) as w:
        catalog = Catalog(store, w)
        shelves = Shelves(store, catalog, time.monotonic, 1e9)
        sources = Sources(store, catalog, shelves, Social(store))
        metrics = Metrics(CollectorRegistry())
        recommender = Recommender(
            store,
            Users(store, 128),
            catalog,
            NoModels(),
            sources,
            Rules(),
            metrics,
            time.monotonic,
            RecommenderConfig(),
        )
        items = zip(log.item_ids, log.interests, strict=True)
        for page in _pages([item_record(catalog_item(i, dict(about))) for i, about in items], 1000):
            store.write_items(page)
        names = log.user_ids
        told = [
            relation_record(pb.Relation(user_id=names[one], other_user_id=names[other]))
            for one, other in relations
            if one != other
        ]
        for page in _pages(told, 1000):
            store.write_relations(page)
        first = np.full(len(log.user_ids), np.inf)
        np.minimum.at(first, log.users, log.times)
        edges = [round(share * len(log)) for share in SHARES]
        written = 0
        with Reporter().stage("newcomers", len(edges) - 1, "moments") as stage:
            for number, (edge, until) in enumerate(zip(edges, edges[1:], strict=False)):
                for page in _pages(list(interactions(log, order[written:edge])), 500):
                    store.append(page)
                written = edge
                at, end = float(log.times[order[edge]]), float(log.times[order[until]])
                known = first < at
                for user in np.flatnonzero((first >= at) & (first < end)).tolist():
                    if not any(known[friend] for friend in friends.get(user, ())):
                        continue
                    mine = slice(log.offsets[user], log.offsets[user + 1])
                    wanted = {log.item_ids[item] for item in log.items[mine]}
                    hits = {}
                    for name, who in (("social", names[user]), ("popular", NOBODY)):
                        request = SlateRequest(
                            who, SIZE, round(at * 1e6), False, frozenset(), 0, None
                        )
                        slate = await recommender.recommend(request, round(at * 1e6), 5.0)
                        ids = {scored.candidate.item.item_id for scored in slate.items}
                        hits[name] = float(bool(ids & wanted))
                    rows.append({"moment": number, **hits})
                stage.advance(1, newcomers=len(rows))
    return rows


def _pages(rows: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def summary(rows: list[dict[str, float]]) -> dict[str, float]:
    """Hit rates and the interval of their difference."""
    social, popular = (np.array([row[name] for row in rows]) for name in ("social", "popular"))
    random = np.random.default_rng(7)
    draws = random.integers(len(rows), size=(DRAWS, len(rows)))
    low, high = np.percentile((social - popular)[draws].mean(axis=1), [2.5, 97.5])
    return {
        "newcomers": len(rows),
        "social_hit_rate_at_10": round(float(social.mean()), 4),
        "popular_hit_rate_at_10": round(float(popular.mean()), 4),
        "difference": round(float((social - popular).mean()), 4),
        "low_95": round(float(low), 4),
        "high_95": round(float(high), 4),
    }


def main() -> None:
    """Measure, print, and keep if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder of a log with relations")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    log = read_log(options.data)
    with tempfile.TemporaryDirectory() as folder:
        rows = asyncio.run(measured(log, Path(folder)))
    half = len(SHARES) // 2
    chosen, told = ([r for r in rows if (r["moment"] < half) is early] for early in (True, False))
    result = {
        **circumstances(),
        "data": options.data.resolve().name,
        "choosing": summary(chosen),
        "result": summary(told),
    }
    print(result)
    keep(result, options.out)


if __name__ == "__main__":
    main()
