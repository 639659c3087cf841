"""What tells the rhythm of an interest: occasion maps, or phase sums of its raw events.

Both read the same generated lives, of a known rhythm or of none, after every occasion from the
fourth on, with one event an occasion and with bursts of up to ten. Phase sums are Σ cos and Σ sin
of the event times at a day, a week and a mean month; a period is told where Rayleigh's test
refuses chance at 1 % in all, the longest if there are several. Then the states that follow from
the maps: how often an interest that comes back was called forgotten, how often one abandoned is
called so within 1.5 of its usual gaps. Both are shown at their worst over retentions that fall at
once and that never fall.

Run it from the project root: python -m benchmarks.rhythm
"""

from __future__ import annotations

import argparse
import timeit
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import circumstances, keep
from ebbing.interest.occasions import occasion_maps
from ebbing.interest.rhythm import DAY_S, MONTH_S, WEEK_S, rhythm_of
from tests.harness.rhythms import (
    DEFAULT_GAP_S,
    KNOWN_OCCASIONS,
    POISSON_GAP_DAYS,
    RHYTHMS,
    Life,
    cases_of,
    irregular,
    rhythmic,
    told,
)

PERIODS_S = np.array([DAY_S, WEEK_S, MONTH_S])
CHANCE = 0.01
RIGHT = 0.15
"""A gap or period within this share of the true one is right."""


@dataclass(frozen=True)
class Row:
    """Shares of the cases of one kind of life."""

    maps_tell: float
    maps_right: float
    sums_tell: float
    sums_right: float
    forgotten_too_early: float
    """Of daily checks of an interest that came back."""
    forgotten_within_gaps: float
    """Of cases that then came back; within 1.5 usual gaps, and before they did."""
    forgotten_in_time: float
    """Of interests abandoned; within 1.5 usual gaps."""


def periods_by_phase(lives: list[Life]) -> np.ndarray:
    """The period that phase sums tell, of every case of ``cases_of``, (C,) seconds; nan if none."""
    found = []
    for life in lives:
        angles = 2 * np.pi * np.concatenate(life.occasions)[:, None] / PERIODS_S
        n = np.cumsum([len(session) for session in life.occasions])[KNOWN_OCCASIONS - 1 : -1]
        cos, sin = (np.cumsum(wave(angles), axis=0)[n - 1] for wave in (np.cos, np.sin))
        by_chance = np.exp(-(cos**2 + sin**2) / n[:, None])
        refused = by_chance < CHANCE / len(PERIODS_S)
        found.append(np.where(refused, PERIODS_S, 0.0).max(axis=1))
    longest = np.concatenate(found)
    return np.where(longest > 0, longest, np.nan)


def row(lives: list[Life], seed: int) -> Row:
    """Both readings of these lives, and the states that follow."""
    cases = cases_of(lives)
    seen = np.where(cases.rhythm.regular, cases.rhythm.gap_s, np.nan)
    phase = periods_by_phase(lives)
    states = [told(cases, quiet, quiet, seed) for quiet in (0.0, np.inf)]

    def right(gaps: np.ndarray) -> float:
        return float(np.mean(np.abs(gaps / cases.usual_gap_s - 1) <= RIGHT))

    return Row(
        maps_tell=float(np.isfinite(seen).mean()),
        maps_right=right(seen),
        sums_tell=float(np.isfinite(phase).mean()),
        sums_right=right(phase),
        forgotten_too_early=max(state.false_alarms for state in states),
        forgotten_within_gaps=max(state.early for state in states),
        forgotten_in_time=min(state.detected for state in states),
    )


def microseconds(interests: int) -> float:
    """Best time of reading the rhythms of so many interests."""
    lives = [life for gap in (1, 3, 7, 30) for life in irregular(gap, interests // 4, 60, True, 1)]
    events = [np.concatenate(life.occasions) for life in lives]
    segments = np.repeat(np.arange(len(events)), [len(one) for one in events])
    maps = occasion_maps(segments, len(events), np.concatenate(events))
    last = np.array([one[-1] for one in events])
    runs = timeit.repeat(lambda: rhythm_of(maps, last, DEFAULT_GAP_S), number=200, repeat=15)
    return min(runs) / 200 * 1e6


def run(lives: int, occasions: int, seed: int) -> dict[str, Any]:
    """All kinds of lives, without and with bursts."""
    table: dict[str, dict[str, dict[str, float]]] = {}
    for bursts in (False, True):
        kinds = {kind: rhythmic(kind, lives, occasions, bursts, seed) for kind in RHYTHMS}
        for gap in POISSON_GAP_DAYS:
            kinds[f"irregular, {gap:g} d"] = irregular(gap, lives, occasions, bursts, seed)
        table["bursts" if bursts else "single events"] = {
            kind: {name: round(v, 4) for name, v in vars(row(made, seed)).items()}
            for kind, made in kinds.items()
        }
    return {
        **circumstances(),
        "lives_of_a_kind": lives,
        "occasions_of_a_life": occasions,
        "seed": seed,
        "rhythms_of_64_interests_us": round(microseconds(64), 1),
        "kinds": table,
    }


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    names = [name.replace("_", " ") for name in Row.__dataclass_fields__]
    for events, kinds in result["kinds"].items():
        print(f"\n{events:26s}" + "".join(f"{name:>23s}" for name in names))
        for kind, shares in kinds.items():
            print(f"{kind:26s}" + "".join(f"{share:23.1%}" for share in shares.values()))
    print(f"\nrhythms of 64 interests: {result['rhythms_of_64_interests_us']} µs")


def main() -> None:
    """Read the options, run, print and keep the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lives", type=int, default=100, help="lives of each kind")
    parser.add_argument("--occasions", type=int, default=30, help="occasions of a life")
    parser.add_argument("--seed", type=int, default=7, help="the same seed, the same lives")
    parser.add_argument("--out", type=Path, help="file to keep the result in")
    options = parser.parse_args()
    result = run(options.lives, options.occasions, options.seed)
    show(result)
    keep(result, options.out)


if __name__ == "__main__":
    main()
