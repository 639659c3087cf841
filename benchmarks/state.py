"""What keeping state costs: the store's update and read paths beside the raw engine.

Events of random users are appended in groups, as the gateway commits them: each is logged, its
user's state read, advanced and replaced, its alarm touched, in one synced step. The peer writes
the very same bytes into the same tables and indexes, or under the same keys, and reads and computes
nothing: what the engine can do at best. Both take turns on files, or under keys, of their own, so
that other work on the machine hits both alike.

    python -m benchmarks.state                          # rates and ratios, SQLite
    python -m benchmarks.state --redis start            # the same, of a Redis of its own
    python -m benchmarks.state --redis redis://host:port/0
    python -m benchmarks.state --growth                 # cost per event as users grow
    python -m benchmarks.state --capacity [--redis start]  # bytes a user and an event
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.record import circumstances, keep
from benchmarks.state_bytes import capacity, redis_bytes, sqlite_bytes
from benchmarks.state_growth import growth
from benchmarks.state_load import events, preload
from benchmarks.state_peers import (
    Made,
    Peer,
    RawRedis,
    RawSqlite,
    Recording,
    redis_server,
    redis_store,
    sqlite,
)
from server.state.store import Interaction, Store


def turns(
    store: Store, records: Recording, raw: Peer, group: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Rates of groups of one size, store and raw engine by turns."""
    count = max(1, options.events // group // (16 if group == 1 else 1))
    stream = events(group, options.population, group * 20_000)
    rates: dict[str, list[float]] = defaultdict(list)

    def timed(name: str, task: Callable[[Any], Any], of: Sequence[Any]) -> list[Any]:
        gc.freeze()  # what the benchmark holds is nothing for the collector to go through meanwhile
        started = time.perf_counter()
        found = [task(one) for one in of]
        rates[name].append(count * group / (time.perf_counter() - started))
        gc.unfreeze()
        return found

    def append(some: list[Interaction]) -> Made:
        store.append(some)
        return records.taken()

    for _ in range(options.rounds):
        groups = [list(islice(stream, group)) for _ in range(count)]
        made = timed("updates", append, groups)
        timed("raw_updates", raw.write, [raw.ready(records.written(one)) for one in made])
        names = [[one.user_id for one in some] for some in groups]
        timed("reads", store.states, names)
        timed("raw_reads", raw.read, names)
    found: dict[str, Any] = {
        f"{name}_per_s": round(statistics.median(some)) for name, some in rates.items()
    }
    for kind in ("updates", "reads"):
        ratios = [a / b for a, b in zip(rates[kind], rates[f"raw_{kind}"], strict=True)]
        found[f"{kind}_over_raw"] = round(statistics.median(ratios), 3)
    return found


def rates(options: argparse.Namespace) -> dict[str, Any]:
    """Rates and ratios of all sizes of groups, and what they left."""
    records = Recording()
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ebbing-state-")))
        store: Store
        raw: Peer
        if options.redis:
            url = stack.enter_context(redis_server(options.redis, place))
            store = stack.enter_context(closing(redis_store(url, records)))
            raw = stack.enter_context(closing(RawRedis(url, not options.piecemeal)))
        else:
            store = stack.enter_context(closing(sqlite(place / "state.db", records)))
            raw = stack.enter_context(closing(RawSqlite(place / "raw.db")))
        preload(
            store,
            options.population,
            lambda: raw.write(raw.ready(records.written(records.taken()))),
        )
        groups = {str(size): turns(store, records, raw, size, options) for size in options.groups}
        bytes_of = redis_bytes(url) if options.redis else sqlite_bytes(place / "state.db")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        return {
            "population": options.population,
            "groups": groups,
            **bytes_of,
            "peak_memory_mib": peak,
        }


def main() -> None:
    """Read the options, run, print and keep the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--redis", metavar="URL", help="of a Redis: its URL, or 'start'")
    parser.add_argument(
        "--piecemeal", action="store_true", help="the raw Redis writes without a transaction"
    )
    parser.add_argument(
        "--groups", type=int, nargs="+", default=[1, 32, 256], help="events a group"
    )
    parser.add_argument("--population", type=int, default=10_000, help="users")
    parser.add_argument("--events", type=int, default=8192, help="events a round")
    parser.add_argument("--rounds", type=int, default=7, help="rounds each")
    parser.add_argument("--growth", action="store_true", help="measure cost as users grow")
    parser.add_argument(
        "--users", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="they grow to"
    )
    parser.add_argument("--capacity", action="store_true", help="measure bytes")
    parser.add_argument("--out", type=Path, help="file to keep the result in")
    options = parser.parse_args()
    load = round(os.getloadavg()[0], 2)
    if options.capacity:
        part = {"capacity": capacity(options.redis)}
    elif options.growth:
        part = {"growth": growth(options.users, options.rounds)}
    else:
        part = {"redis" if options.redis else "sqlite": rates(options)}
    result = {**circumstances(), "load_before": load, **part}
    print(json.dumps(result, indent=2))
    keep(result, options.out)


if __name__ == "__main__":
    main()
