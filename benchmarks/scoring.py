"""What scoring a user's interests costs: retention, beside plain exponential decay.

One user's table of 64 interests is made by chance, with parameters in which every part of
retention has a say and a population that knows thousands of interests. Every task is timed as CPU
time of this process, in turns, many times over; the median of a task is told, for other work on
the machine only ever adds. Decay is what is usually served: strength times 2^(−age / half-life),
over the same table, one array expression. Reading the table's bytes comes before either.

Run it from the project root: python -m benchmarks.scoring
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import circumstances, keep
from ebbing.interest.assessment import assess, half_life, retention, states_at
from ebbing.interest.explanation import explain
from ebbing.interest.forgetting import ForgettingParameters
from ebbing.interest.population import Population
from ebbing.interest.standing import DAY_S, FEATURES, GROWS_BY_WAITING
from ebbing.interest.trace import TraceTable
from server.state.store import Interaction
from server.state.user_state import Bounds, advanced, decode

NOW_S = 1.75e9
KNOWN_INTERESTS = 2000
DIMENSIONS = 8
"""Length of an interest's vectors."""
LIMIT_US = 200
"""What retention may cost."""

Task = Callable[[], object]


def user(chance: np.random.Generator, interests: int) -> bytes:
    """State of a user of a year, who engaged each interest up to some forty times."""
    names = chance.choice(KNOWN_INTERESTS, interests, replace=False)
    times = [
        (round((NOW_S - age * DAY_S) * 1e6), f"{name % 40}/{name}")
        for name in names
        for age in chance.uniform(0, 365, 1 + int(chance.pareto(1)) % 40)
    ]
    return advanced(
        None,
        [
            Interaction(f"{n}", "user", n + 1, 1, time_us, 1.0, ((name, 1.0),), b"")
            for n, (time_us, name) in enumerate(times)
        ],
        Bounds(interests, 2**20),
        lambda: (),
    )


def parameters(chance: np.random.Generator) -> ForgettingParameters:
    """Parameters of which every part has a say."""

    def effects(*shape: int) -> np.ndarray:
        return chance.normal(0, 0.3, shape)

    size = np.abs(chance.normal(0, 0.3, len(FEATURES)))
    signs = np.where(np.isin(np.arange(len(FEATURES)), GROWS_BY_WAITING), -1, 1)
    k, d = KNOWN_INTERESTS, DIMENSIONS
    return replace(
        ForgettingParameters.builtin(),
        coefficients=tuple((size * signs).tolist()),
        population=Population(
            tuple(f"{name % 40}/{name}" for name in range(k)),
            effects(k),
            effects(k),
            effects(k, d),
            effects(k, d),
            -1.0,
        ),
    )


def decay(table: TraceTable, at: float, half_life_s: float) -> np.ndarray:
    """The peer: the strength of each interest as of its newest event, faded since."""
    strengths: np.ndarray = table.own_sums[1:, -1] * np.exp2((table.last - at) / half_life_s)
    return strengths


def tasks(interests: int, seed: int) -> dict[str, Task]:
    """What is timed, by name."""
    chance = np.random.default_rng(seed)
    state, fitted = user(chance, interests), parameters(chance)
    table, at = decode(state).traces, NOW_S + DAY_S
    name = table.names[0]
    return {
        "exponential_decay": lambda: decay(table, at, 30 * DAY_S),
        "retention": lambda: retention(table, at, fitted),
        "states": lambda: states_at(table, at, fitted),
        "assess": lambda: assess(table, at, fitted),
        "half_life": lambda: half_life(table, at, fitted),
        "explain_one": lambda: explain(table, at, name, fitted),
        "decode_state": lambda: decode(state),
    }


def cpu_us(task: Task, calls: int) -> float:
    """CPU time of a call in microseconds, the mean of so many."""
    started = time.process_time_ns()
    for _ in range(calls):
        task()
    return (time.process_time_ns() - started) / calls / 1e3


def measure(named: dict[str, Task], runs: int, calls: int) -> dict[str, dict[str, float]]:
    """Median and quartiles of each task, by turns."""
    times: dict[str, list[float]] = {name: [] for name in named}
    for task in named.values():
        cpu_us(task, calls)
    for _ in range(runs):
        for name, task in named.items():
            times[name].append(cpu_us(task, calls))
    found = {}
    for name, each in times.items():
        low, middle, high = statistics.quantiles(each, n=4)
        found[name] = {"median_us": middle, "lower_us": low, "upper_us": high}
    return {name: {k: round(v, 1) for k, v in row.items()} for name, row in found.items()}


def run(interests: int, runs: int, calls: int, seed: int) -> dict[str, Any]:
    """All tasks."""
    found = measure(tasks(interests, seed), runs, calls)
    score = found["retention"]["median_us"]
    return {
        **circumstances(),
        "interests": interests,
        "known_interests": KNOWN_INTERESTS,
        "dimensions": DIMENSIONS,
        "runs": runs,
        "calls_a_run": calls,
        "seed": seed,
        "cpu_time": found,
        "retention_over_decay": round(score / found["exponential_decay"]["median_us"], 1),
        "retention_over_decode": round(score / found["decode_state"]["median_us"], 2),
        "limit_us": LIMIT_US,
        "within_limit": score <= LIMIT_US,
    }


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    print(f"CPU time of one user's {result['interests']} interests, µs")
    for name, row in result["cpu_time"].items():
        spread = f"{row['lower_us']:.1f} to {row['upper_us']:.1f}"
        print(f"{name.replace('_', ' '):20s}{row['median_us']:9.1f}   {spread}")
    print(
        f"retention is {result['retention_over_decay']} × decay, "
        f"{result['retention_over_decode']} × reading the state"
    )


def main() -> None:
    """Read the options, run, print and keep the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--interests", type=int, default=64, help="interests of the user")
    parser.add_argument("--runs", type=int, default=101, help="runs of each task")
    parser.add_argument("--calls", type=int, default=50, help="calls of a run")
    parser.add_argument("--seed", type=int, default=7, help="the same seed, the same user")
    parser.add_argument("--out", type=Path, help="file to keep the result in")
    options = parser.parse_args()
    result = run(options.interests, options.runs, options.calls, options.seed)
    show(result)
    keep(result, options.out)


if __name__ == "__main__":
    main()
