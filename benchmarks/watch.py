"""How late changes of state are told, and what looking for them costs ingestion.

The benchmark starts gateways of its own, on state files of its own, over a Triton that runs.

Lag: each of many users has an interest whose next change falls at a moment of its own, one after
another at a steady rate. A stream of WatchForgetting is read meanwhile; lag is the time from the
moment of the change until the client has it.

Ingestion: concurrent callers write batches of events in a closed loop, in turn to a gateway that
looks for changes and to one that does not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from benchmarks.record import circumstances, keep
from ebbing.client import AsyncClient, ClientOptions, EbbingError, user_event
from ebbing.v1 import interest_pb2
from ebbing.v1.user_event_pb2 import UserEvent

SEED = 7
PROBE_S = 1_700_000_000.0
LOADED = 500
"""Events written at once when users are set up."""
INTERESTS = tuple(f"interest-{n}" for n in range(40))
OPTIONS = ClientOptions(deadline_s=60.0, batch_deadline_s=120.0)


@asynccontextmanager
async def gateway(options: argparse.Namespace, **settings: object) -> AsyncIterator[AsyncClient]:
    """A client of a gateway on a fresh state file."""
    with tempfile.TemporaryDirectory() as folder:
        given = {
            "state": Path(folder) / "state.db",
            "triton": options.triton,
            "repository": options.repository,
            "port": 0,
            "metrics_port": 0,
            **settings,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "ebbing", "serve"],
            env={**os.environ, **{f"EBBING_{k.upper()}": str(v) for k, v in given.items()}},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            line = await asyncio.to_thread(process.stdout.readline)
            if not line:
                sys.exit("the gateway did not start")
            async with AsyncClient(line.split("://")[1].split()[0], options=OPTIONS) as client:
                yield client
        finally:
            process.terminate()
            process.wait()


async def fading_after(client: AsyncClient) -> float:
    """Seconds of quiet after which an interest engaged once fades."""
    await client.write_event("probe", "view", PROBE_S, interests=["probe"])
    profile = await client.interest_profile("probe", PROBE_S)
    return profile.interests[0].reason.fading_after.ToMicroseconds() / 1e6


async def alarm_lag(options: argparse.Namespace) -> dict[str, Any]:
    """Lags of all changes, from the moment of the change to its reader, in milliseconds."""
    count = options.rate * options.seconds
    lags: list[float] = []
    async with gateway(options) as client:
        quiet_s = await fading_after(client)
        start = time.time() + count / options.setup_rate + 5.0

        async def read() -> None:
            fading = interest_pb2.INTEREST_STATE_FADING
            async for answer in client.watch_forgetting(states=[fading]):
                now = time.time()
                if answer.transition.user_id.startswith("due-"):
                    lags.append(now - answer.transition.transition_time.ToMicroseconds() / 1e6)
                if len(lags) == count:
                    return

        reading = asyncio.create_task(read())
        for first in range(0, count, LOADED):
            await client.write_events(
                user_event(
                    f"due-{n}",
                    "view",
                    start + n / options.rate - quiet_s,
                    interests=[INTERESTS[n % len(INTERESTS)]],
                )
                for n in range(first, min(first + LOADED, count))
            )
        spare_s = start - time.time()
        if spare_s < 0:
            sys.exit("the users were not set up in time: give a lower --setup-rate")
        print(f"{count} users set up, {spare_s:.0f} s before the first change", flush=True)
        async with asyncio.timeout(spare_s + options.seconds + 120):
            await reading
    ms = np.array(lags) * 1e3
    return {
        "changes": count,
        "changes_per_s": options.rate,
        "p50_ms": round(float(np.percentile(ms, 50)), 1),
        "p99_ms": round(float(np.percentile(ms, 99)), 1),
        "max_ms": round(float(ms.max()), 1),
        "within_1_s": round(float((ms < 1000).mean()), 6),
    }


def events(seed: int, number: int, size: int) -> list[UserEvent]:
    """A batch of events of now, of users and interests by chance."""
    chance = random.Random(f"{seed} {number}")
    now = time.time()
    return [
        user_event(
            f"user-{chance.randrange(2000)}", "view", now, interests=[chance.choice(INTERESTS)]
        )
        for _ in range(size)
    ]


async def ingestion(options: argparse.Namespace, watch: bool, seed: int) -> float:
    """Events a second that a gateway takes from concurrent callers."""
    taken = 0
    async with gateway(options, watch=watch) as client:
        end = time.perf_counter() + options.round_s

        async def caller(number: int) -> None:
            nonlocal taken
            for batch in range(1_000_000):
                if time.perf_counter() >= end:
                    return
                try:
                    answer = await client.write_events(
                        events(seed, number * 1_000_000 + batch, options.batch)
                    )
                except EbbingError as error:
                    sys.exit(f"a batch was refused: {error}")
                taken += answer.accepted_count

        began = time.perf_counter()
        await asyncio.gather(*(caller(number) for number in range(options.callers)))
        return taken / (time.perf_counter() - began)


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """Lag, then all rounds of ingestion."""
    lag = await alarm_lag(options)
    print(lag, flush=True)
    rounds: dict[bool, list[float]] = {True: [], False: []}
    for number in range(options.rounds):
        for watch, taken in rounds.items():
            taken.append(await ingestion(options, watch, SEED + number))
            print(f"ingestion, watch {watch}: {taken[-1]:.0f} events/s", flush=True)
    on, off = (statistics.median(rounds[watch]) for watch in (True, False))
    return {
        **circumstances(),
        "python": platform.python_version(),
        "load": "all processes (callers, gateway, Triton) on this machine",
        "alarm_lag": lag,
        "ingestion": {
            "callers": options.callers,
            "events_a_call": options.batch,
            "rounds": options.rounds,
            "seconds_a_round": options.round_s,
            "events_per_s_with_watch": round(on),
            "events_per_s_without": round(off),
            "with_over_without": round(on / off, 3),
        },
    }


def main() -> None:
    """Read the options, run, print and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--triton", default="127.0.0.1:8001", help="address of Triton")
    parser.add_argument("--repository", type=Path, default=Path("triton_repo"), help="its models")
    parser.add_argument("--rate", type=int, default=1000, help="changes a second")
    parser.add_argument("--seconds", type=int, default=30, help="how long changes go on")
    parser.add_argument("--setup-rate", type=float, default=700, help="users set up a second")
    parser.add_argument("--callers", type=int, default=8, help="callers that write events")
    parser.add_argument("--batch", type=int, default=100, help="events a call")
    parser.add_argument("--round-s", type=float, default=8.0, help="length of a round, seconds")
    parser.add_argument("--rounds", type=int, default=3, help="rounds each")
    parser.add_argument("--out", type=Path, help="file to keep the result in")
    options = parser.parse_args()
    result = uvloop.run(run(options))
    print(json.dumps(result, indent=2))
    keep(result, options.out)


if __name__ == "__main__":
    main()
