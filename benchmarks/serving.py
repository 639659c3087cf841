"""What the gateway costs: RecommendItems beside the same model calls made to Triton directly.

Both are asked by the same closed loop of concurrent callers, in turn, round after round, in one
run. A direct caller sends Triton a user's encoded history for retrieval and 200 candidates for
ranking, one user a call, and does none of what the gateway does besides: state, filters,
features, re-ranking, reasons.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import gzip
import itertools
import json
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import uvloop

from benchmarks.record import circumstances, keep
from ebbing.features import CANDIDATE_FEATURES
from ebbing.history import HISTORY_LENGTH
from ebbing.v1 import recommendation_service_pb2 as pb
from ebbing.v1 import recommendation_service_pb2_grpc
from server.inference.triton import TritonClient

CANDIDATES = 200
Call = Callable[[str], Awaitable[Any]]


async def closed_loop(call: Call, users: list[str], callers: int, seconds: float) -> list[float]:
    """Latencies in seconds of all calls that ``callers`` make one after the other."""
    latencies: list[float] = []
    everyone = itertools.cycle(users)
    end = time.perf_counter() + seconds

    async def caller() -> None:
        while (started := time.perf_counter()) < end:
            await call(next(everyone))
            latencies.append(time.perf_counter() - started)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return latencies


def through_gateway(channel: grpc.aio.Channel, at_s: int) -> Call:
    """RecommendItems; a degraded slate stops the run."""
    stub = recommendation_service_pb2_grpc.RecommendationServiceStub(channel)

    async def call(user_id: str) -> None:
        request = pb.RecommendItemsRequest(user_id=user_id)
        request.at.seconds = at_s
        answer = await stub.RecommendItems(request, timeout=30)
        if answer.slate.degraded or not answer.slate.items:
            sys.exit(f"the gateway answered a degraded slate: {answer.slate.degraded_reason}")

    return call


def directly(triton: TritonClient, release: int) -> Call:
    """Retrieval, then ranking of its answer."""
    history = {
        "HISTORY_KEYS__0": np.zeros((1, HISTORY_LENGTH), np.int64),
        "HISTORY_AGES__1": np.zeros((1, HISTORY_LENGTH), np.float32),
        "HISTORY_TYPES__2": np.zeros((1, HISTORY_LENGTH), np.int32),
    }
    features = np.zeros((1, CANDIDATES, len(CANDIDATE_FEATURES)), np.float32)

    async def call(_: str) -> None:
        found = await triton.infer("retrieval", release, history, 30)
        candidates = np.resize(found["ITEM_KEYS__0"][:, :CANDIDATES], (1, CANDIDATES))
        asked = {**history, "CANDIDATE_KEYS__3": candidates, "CANDIDATE_FEATURES__4": features}
        await triton.infer("ranking", release, asked, 30)

    return call


def users_of(data: Path) -> tuple[list[str], int]:
    """The users of a log, and the second after its last event."""
    path = next(p for p in (data / "events.csv", data / "events.csv.gz") if p.is_file())
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        rows = list(csv.DictReader(file))
    return sorted({row["user_id"] for row in rows}), int(float(rows[-1]["event_time"])) + 1


def summary(rounds: list[list[float]], seconds: float) -> dict[str, float]:
    """Calls a second (median over rounds) and latencies in milliseconds."""
    latencies = np.concatenate([np.array(r) for r in rounds]) * 1e3
    return {
        "calls_per_s": round(statistics.median(len(r) / seconds for r in rounds), 1),
        "p50_ms": round(float(np.percentile(latencies, 50)), 2),
        "p99_ms": round(float(np.percentile(latencies, 99)), 2),
    }


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """All rounds at all levels of concurrency."""
    users, at_s = users_of(options.data)
    levels: dict[str, Any] = {}
    async with (
        TritonClient(options.triton) as triton,
        grpc.aio.insecure_channel(options.gateway) as channel,
    ):
        peers = {
            "gateway": through_gateway(channel, at_s),
            "triton": directly(triton, options.release),
        }
        for call in peers.values():
            await closed_loop(call, users, 4, 2.0)
        for callers in options.callers:
            rounds: dict[str, list[list[float]]] = {name: [] for name in peers}
            for number in range(options.rounds):
                for name, call in peers.items():
                    print(f"{callers} callers, round {number + 1}: {name}", flush=True)
                    rounds[name].append(await closed_loop(call, users, callers, options.seconds))
            level = {name: summary(r, options.seconds) for name, r in rounds.items()}
            ratio = level["gateway"]["calls_per_s"] / level["triton"]["calls_per_s"]
            levels[str(callers)] = {**level, "gateway_over_triton": round(ratio, 3)}
    return {
        **circumstances(),
        "python": platform.python_version(),
        "load": "all processes (callers, gateway, Triton) on this machine",
        "seconds_a_round": options.seconds,
        "rounds": options.rounds,
        "callers": levels,
    }


def main() -> None:
    """Read the options, run, print and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gateway", default="127.0.0.1:50051", help="address of the gateway")
    parser.add_argument("--triton", default="127.0.0.1:8001", help="address of Triton")
    parser.add_argument("--release", type=int, default=1, help="release that is served")
    parser.add_argument("--data", type=Path, default=Path(".demo/data"), help="log with the users")
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 8, 64], help="concurrency")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds each")
    parser.add_argument("--out", type=Path, help="file to keep the result in")
    options = parser.parse_args()
    result = uvloop.run(run(options))
    print(json.dumps(result, indent=2))
    keep(result, options.out)


if __name__ == "__main__":
    main()
