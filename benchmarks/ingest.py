"""How fast a log is loaded in bulk, and how near that is to what SQLite does at most.

Each log is loaded as `ebbing events import` does it, into a fresh state file: rows read, checked,
resolved, logged, and the states of their users computed, every commit synced to disk
(synchronous=FULL). Beside it, in turns, the limit: the very rows of the event log that the import
left are inserted by bare apsw into a table of the same shape, with the same indexes, in steps of
the same size, with the same settings of SQLite; their bytes lie ready in memory.

The folders named are logs (events.csv[.gz], items.csv[.gz]); another log is generated.

    python -m benchmarks.ingest DIR [DIR …] [--generated 1000000]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import numpy as np

from benchmarks.record import circumstances, keep
from server.catalogue_import import read_items
from server.cli_events import prepared
from server.cli_opening import opened
from server.events_import import GROUP, ahead, write
from server.events_rows import event_files
from server.events_taking import Taking
from server.settings import Settings
from server.state.sqlite import SCHEMA

SEED = 7
USERS, ITEMS, INTERESTS = 50_000, 20_000, 400
LATEST_US = 2 * 10**15


def generate(folder: Path, events: int) -> None:
    """A log of users of very unlike activity, items of unlike popularity, 1 to 4 interests each."""
    chance = np.random.default_rng(SEED)
    activity = chance.lognormal(0.0, 1.2, USERS)
    users = np.sort(chance.choice(USERS, events, p=activity / activity.sum()))
    chance.shuffle(users)
    items = (ITEMS * chance.power(0.4, events)).astype(int)
    times = np.sort(chance.uniform(1.6e9, 1.7e9, events)).astype(int)
    with (folder / "events.csv").open("w", encoding="utf-8") as out:
        out.write("user_id,item_id,event_type,event_time\n")
        out.writelines(
            f"user-{user},item-{item},view,{moment}\n"
            for user, item, moment in zip(users, items, times, strict=True)
        )
    with (folder / "items.csv").open("w", encoding="utf-8") as out:
        out.write("item_id,interests\n")
        for item in range(ITEMS):
            about = chance.choice(INTERESTS, chance.integers(1, 5), replace=False)
            out.write(f"item-{item},{'|'.join(f'interest-{n}' for n in about)}\n")


def load(log: Path, state: Path) -> float:
    """Load a log; seconds it took, the catalogue and the start of processes included."""
    began = time.perf_counter()
    settings = Settings(state=state)
    taking = Taking(settings.event_weights, settings.limits, 0, LATEST_US)
    with opened(settings) as (store, _):
        (items,) = (path for path in log.glob("items.csv*"))
        read_items(items, settings.limits, store, settings.limits.rows)
        with closing(ahead(partial(prepared, settings, event_files(log), taking))) as groups:
            done = write(store, groups, lambda *_: None)
    took = time.perf_counter() - began
    assert done.accepted and not done.duplicates and not done.left_out
    return took


def rows_of(state: Path) -> list[tuple[Any, ...]]:
    """The rows of an event log."""
    with closing(apsw.Connection(str(state))) as db:
        return db.execute("SELECT * FROM events ORDER BY number").fetchall()


def insert(rows: list[tuple[Any, ...]], state: Path) -> float:
    """Insert rows with nothing around; seconds it took."""
    began = time.perf_counter()
    with closing(apsw.Connection(str(state))) as db:
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "cache_size = -65536"):
            db.execute(f"PRAGMA {pragma}").fetchall()
        db.execute(SCHEMA)
        for first in range(0, len(rows), GROUP):
            with db:
                db.executemany(
                    "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", rows[first : first + GROUP]
                )
    return time.perf_counter() - began


def cpu_s() -> tuple[float, float]:
    """CPU time of this process, which writes, and of its children, which read."""
    return time.process_time(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime


def measure(log: Path, rounds: int) -> dict[str, Any]:
    """Events a second of both, in turns."""
    loaded, inserted, spent = [], [], []
    rows: list[tuple[Any, ...]] = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            state, bare = Path(folder) / "state.db", Path(folder) / "bare.db"
            before = cpu_s()
            loaded.append(load(log, state))
            spent.append([now - then for now, then in zip(cpu_s(), before, strict=True)])
            rows = rows or rows_of(state)
            state_bytes = state.stat().st_size
            inserted.append(insert(rows, bare))
        print(f"  {len(rows) / loaded[-1]:,.0f} / {len(rows) / inserted[-1]:,.0f}", flush=True)
    took, limit = statistics.median(loaded), statistics.median(inserted)
    writing, reading = (
        1e6 * statistics.median(each) / len(rows) for each in zip(*spent, strict=True)
    )
    return {
        "events": len(rows),
        "users": len({row[2] for row in rows}),
        "events_per_s": round(len(rows) / took),
        "limit_rows_per_s": round(len(rows) / limit),
        "ratio": round(limit / took, 3),
        "writer_cpu_us_per_event": round(writing, 1),
        "reader_cpu_us_per_event": round(reading, 1),
        "state_bytes_per_event": round(state_bytes / len(rows)),
    }


def logs(options: argparse.Namespace) -> Iterator[tuple[str, Path]]:
    """Names and folders of the logs."""
    for folder in options.folders:
        yield folder.name, folder
    if options.generated:
        with tempfile.TemporaryDirectory() as folder:
            generate(Path(folder), options.generated)
            yield "generated", Path(folder)


def main() -> None:
    """Read the options, run, print and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="*", help="logs")
    parser.add_argument("--generated", type=int, default=1_000_000, help="events; 0: no such log")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each; medians are kept")
    parser.add_argument("--out", type=Path, help="file to keep the result in")
    options = parser.parse_args()
    result: dict[str, Any] = {
        **circumstances(),
        "sqlite": apsw.sqlite_lib_version(),
        "synchronous": "FULL",
        "rounds": options.rounds,
        "events_a_step": GROUP,
        "logs": {},
    }
    for name, folder in logs(options):
        print(f"{name}: events/s loaded / inserted", flush=True)
        result["logs"][name] = measure(folder, options.rounds)
    print(json.dumps(result, indent=2))
    keep(result, options.out)


if __name__ == "__main__":
    main()
