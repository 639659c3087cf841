"""What reading a log takes: peak memory and events a second, beside plain polars.

A log of ten million events is made by chance, as CSV, packed CSV and an export in Parquet, in a
folder of its own that is removed afterwards (1 GB of disk). Each task runs in a process of its own,
whose peak of resident memory the system tells. The peer reads the very same files into a data
frame of polars and does nothing else: it neither checks, nor numbers the ids, nor groups the events
by user. Speeds compare CPU time of all threads, which other work on the machine disturbs least. A
little log is read the same way first: that is what Python and its libraries take.

Run it from the project root: python -m benchmarks.data
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.record import circumstances, keep
from ebbing.exported import FORMAT, PROGRESS_FILE, part_path

CHUNK = 1_000_000
YEARS_S = 3 * 365 * 86_400
START_S = 1_640_995_200
LIMIT_BYTES = 4 << 30
"""What ten million events may take."""
INTERESTS = 500
LITTLE = 1000
"""Events of the log that tells what an empty process takes."""


def make(folder: Path, events: int, users: int, items: int, seed: int) -> None:
    """Write the same log as `csv`, `gz` and `export` below a folder."""
    for name in ("csv", "gz", "export"):
        (folder / name).mkdir(parents=True)
    random = np.random.default_rng(seed)
    item_ids = pl.Series([f"item-{number:07d}" for number in range(items)])
    user_ids = pl.Series([f"customer-{number:08d}" for number in range(users)])
    about = pl.Series([f"department-{n % 20}/topic-{n}" for n in range(INTERESTS)])
    catalogue = pl.DataFrame({"item_id": item_ids, "interests": about.gather(_topics(items))})
    for name in ("csv", "gz"):
        catalogue.write_csv(folder / name / "items.csv")
    part = 0
    with (folder / "csv" / "events.csv").open("wb") as file:
        for first in range(0, events, CHUNK):
            size = min(CHUNK, events - first)
            span = YEARS_S * size / events
            start = START_S + YEARS_S * first / events
            times = np.sort(start + random.random(size) * span).astype(np.int64)
            item = (items * random.random(size) ** 2).astype(np.int64)
            user = (users * random.random(size) ** 1.5).astype(np.int64)
            table = pl.DataFrame(
                {
                    "user_id": user_ids.gather(user),
                    "item_id": item_ids.gather(item),
                    "event_type": pl.Series(["view", "click", "purchase"]).gather(
                        random.choice(3, size, p=[0.7, 0.2, 0.1])
                    ),
                    "event_time": times,
                }
            )
            table.write_csv(file, include_header=first == 0)
            part = _export(folder / "export", table, about.gather(_topics(items)[item]), part)
    (folder / "export" / PROGRESS_FILE).write_text(json.dumps({"format": FORMAT, "parts": part}))
    with (
        (folder / "csv" / "events.csv").open("rb") as plain,
        gzip.open(folder / "gz" / "events.csv.gz", "wb", compresslevel=1) as packed,
    ):
        shutil.copyfileobj(plain, packed, 1 << 20)


def _topics(items: int) -> np.ndarray:
    return np.arange(items) % INTERESTS


def _export(folder: Path, table: pl.DataFrame, interest: pl.Series, part: int) -> int:
    """Write events as `ebbing events export` does; returns the number of the last part."""
    exported = table.select(
        # As long as the ids that clients make, and in no order.
        event_id=pl.int_range(pl.len()).hash(part).cast(pl.String).str.zfill(32),
        user_id="user_id",
        item_id="item_id",
        query=pl.lit(None, pl.String),
        event_type="event_type",
        event_time=pl.from_epoch("event_time").cast(pl.Datetime("us", "UTC")),
        interests=pl.concat_list(pl.struct(name=interest, share=pl.lit(1.0))),
        body=pl.lit(None, pl.Binary),
    ).with_columns(day=pl.col("event_time").dt.strftime("%Y-%m-%d"))
    for (day,), events in exported.partition_by("day", as_dict=True, include_key=False).items():
        part += 1
        path = folder / part_path(str(day), part)
        path.parent.mkdir(exist_ok=True)
        events.write_parquet(path)
    return part


def read_ours(folder: Path) -> int:
    """Read with the trainer's reader."""
    from trainer.data.log import read_log  # noqa: PLC0415

    return len(read_log(folder))


def read_polars_csv(folder: Path) -> int:
    """Read the texts of a file of events."""
    (path,) = folder.glob("events.csv*")
    return len(pl.read_csv(path, infer_schema=False))


def read_polars_export(folder: Path) -> int:
    """Read the columns of an export that the trainer's reader looks at."""
    columns = ["event_id", "user_id", "item_id", "event_type", "event_time", "interests"]
    return len(pl.read_parquet(sorted(folder.glob("day=*/*.parquet")), columns=columns))


TASKS: Mapping[str, Callable[[Path], int]] = {
    "ours": read_ours,
    "polars_csv": read_polars_csv,
    "polars_export": read_polars_export,
}


def measured(task: str, folder: Path) -> dict[str, Any]:
    """Run a task in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.data", "--task", task, str(folder)]
    told: dict[str, Any] = json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout
    )
    return told


def peak_bytes() -> int:
    """The most resident memory this process has had.

    Of its own: the figure of getrusage begins with what the parent had.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def _run(task: str, folder: Path) -> None:
    started, busy = time.perf_counter(), time.process_time()
    events = TASKS[task](folder)
    busy, seconds = time.process_time() - busy, time.perf_counter() - started
    print(
        json.dumps(
            {
                "events": events,
                "seconds": round(seconds, 2),
                "cpu_seconds": round(busy, 2),
                "events_a_cpu_second": round(events / busy),
                "peak_bytes": peak_bytes(),
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--users", type=int, default=500_000)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="Where to make the log; it is then kept.")
    parser.add_argument("--out", type=Path, help="Write the result to this file.")
    parser.add_argument("--task", nargs=2, metavar=("TASK", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        _run(options.task[0], Path(options.task[1]))
        return
    with tempfile.TemporaryDirectory(prefix="ebbing-data-") as temporary:
        folder = options.folder or Path(temporary)
        if not (folder / "large").is_dir():
            make(folder / "little", LITTLE, 100, 100, options.seed)
            make(folder / "large", options.events, options.users, options.items, options.seed)
        result: dict[str, Any] = {
            **circumstances(),
            "events": options.events,
            "users": options.users,
            "items": options.items,
            "seed": options.seed,
            "limit_bytes": LIMIT_BYTES,
            "empty_process_bytes": measured("ours", folder / "little" / "csv")["peak_bytes"],
        }
        for form in ("csv", "gz", "export"):
            there = folder / "large" / form
            ours = measured("ours", there)
            peer = measured("polars_export" if form == "export" else "polars_csv", there)
            result[form] = {
                "file_bytes": sum(p.stat().st_size for p in there.rglob("*") if p.is_file()),
                "ours": ours,
                "polars": peer,
                "speed_ratio": round(peer["cpu_seconds"] / ours["cpu_seconds"], 3),
                "memory_ratio": round(ours["peak_bytes"] / peer["peak_bytes"], 3),
                "share_of_limit": round(ours["peak_bytes"] / LIMIT_BYTES, 3),
                "bytes_an_event": round(
                    (ours["peak_bytes"] - result["empty_process_bytes"]) / options.events
                ),
            }
    print(json.dumps(result, indent=2))
    keep(result, options.out)


if __name__ == "__main__":
    main()
