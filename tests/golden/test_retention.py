"""Golden numbers of retention: contributions, horizons, half-lives and states of a few lives.

``retention.json`` beside this file holds parameters, lives and results. The states are told by
hand. The other results come from the definitions, written out below in plain Python one event at
a time, never from the code under test: ``python tests/golden/test_retention.py`` derives them
anew. A test holds both against the file.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ebbing.interest.assessment import assess, half_life
from ebbing.interest.explanation import explain
from ebbing.interest.forgetting import PARTS, ForgettingParameters
from ebbing.interest.states import InterestState
from ebbing.interest.trace import TraceTable

FILE = Path(__file__).parent / "retention.json"
GOLDEN = json.loads(FILE.read_text())
LIVES = GOLDEN["lives"]
DAY_S = 86400.0
HALF_LIVES_DAYS = [(6.5 * 365.25 * 60) ** (r / 9) / 60 for r in range(10)]
TEN_YEARS_S = 3652.5 * DAY_S

Event = tuple[float, float, dict[str, float]]
Parameters = dict[str, Any]


def half_life_nearest(days: float) -> float:
    """Of the bank's, seconds."""
    return DAY_S * min(HALF_LIVES_DAYS, key=lambda h: abs(math.log(h / days)))


LONG, MEDIUM, SHORT = (half_life_nearest(days) for days in (730.0, 180.0, 14.0))


def events_of(life: dict[str, Any]) -> list[Event]:
    """Events as (time, weight, shares); the file counts days back from the moment asked for."""
    return [(life["at"] - days * DAY_S, weight, shares) for days, weight, shares in life["events"]]


def attention(events: list[Event], name: str | None, half_life_s: float, at: float) -> float:
    """Σ w · 2^(−(at−τ)/h) over the events of an interest, or of the user."""
    return math.fsum(
        weight * (1.0 if name is None else shares[name]) * 2.0 ** (-(at - time) / half_life_s)
        for time, weight, shares in events
        if name is None or name in shares
    )


def direct_features(events: list[Event], name: str, at: float, default_gap_s: float) -> list[float]:
    newest = max(time for time, _, _ in events)
    counts = Counter(interest for _, _, shares in events for interest in shares)
    times = sorted(time for time, _, shares in events if name in shares)
    n, names = len(times), len(counts)
    gap = (times[-1] - times[0]) / (n - 1) if n > 1 else default_gap_s
    gap, recency = max(gap, 3600.0), at - times[-1]
    slots = {math.floor(time / (4 * DAY_S)) for time, _, _ in events}
    there = sum(slot > max(slots) - 64 for slot in slots)

    def share(half_life_s: float) -> float:
        own, all_ = (attention(events, x, half_life_s, newest) for x in (name, None))
        return math.log((own + 0.02) / (all_ + 0.1))

    return [
        math.log(1 + n),
        math.log(1 + (n == 1)),
        math.log(1 + recency / DAY_S),
        math.log(1 + gap / DAY_S),
        math.log(1 + recency / gap),
        share(LONG),
        share(MEDIUM),
        share(SHORT),
        math.log(n / len(events)),
        math.log(1 + len(events)),
        math.log(1 + attention(events, None, SHORT, at)),
        math.log(1 + names),
        math.log((sum(counts.values()) - names + 1) / (names + 2)),
        math.log(there),
        math.log(1 + (at - newest) / DAY_S),
    ]


def mean(rows: list[list[float]]) -> list[float]:
    return [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]


def known_of(population: dict[str, Any], name: str) -> tuple[list[float], list[float], list[float]]:
    """Popularity and returns, what is said, and what is heard, of any interest."""
    interests = population["interests"]
    parent = name.partition("/")[0]
    kin = [x for x in interests if x.partition("/")[0] == parent]
    if name in interests:
        rows = [interests[name]]
    elif parent in interests:
        rows = [interests[parent]]
    elif kin:
        rows = [interests[x] for x in kin]
    else:
        width = max((len(x["says"]) for x in interests.values()), default=0)
        return [population["unknown_popularity"], 0.0], [0.0] * width, [0.0] * width
    return (
        mean([[row["popularity"], row["returns"]] for row in rows]),
        mean([row["says"] for row in rows]),
        mean([row["hears"] for row in rows]),
    )


def direct_horizon(parameters: Parameters, horizon_s: float) -> float:
    points = [(math.log(seconds), added) for seconds, added in parameters["horizons"]]
    x = math.log(horizon_s)
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 <= x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    raise AssertionError(horizon_s)


def direct_parts(
    events: list[Event], name: str, at: float, parameters: Parameters, horizon_s: float
) -> list[float]:
    measured = direct_features(events, name, at, parameters["default_gap_s"])
    fitted = parameters["features"].values()
    own = [(x - f["typical"]) * f["coefficient"] for x, f in zip(measured, fitted, strict=True)]

    newest = max(time for time, _, _ in events)
    names = {interest for _, _, shares in events for interest in shares}
    given = {x: attention(events, x, LONG, newest) for x in names}
    size = math.sqrt(math.fsum(g * g for g in given.values()))
    (popularity, returns), _, hears = known_of(parameters["population"], name)
    company = math.fsum(
        given[x] / size * said * heard
        for x in names
        for said, heard in zip(known_of(parameters["population"], x)[1], hears, strict=True)
    )
    horizon = direct_horizon(parameters, horizon_s)
    return [parameters["base"], *own, popularity, returns, company, horizon]


def direct_retention(parts: list[float]) -> float:
    return 1 / (1 + math.exp(-math.fsum(parts)))


def direct_half_life(
    events: list[Event], name: str, at: float, parameters: Parameters, horizon_s: float
) -> float | None:
    """Seconds by bisection; None beyond ten years."""

    def after(wait: float) -> float:
        return direct_retention(direct_parts(events, name, at + wait, parameters, horizon_s))

    half = after(0.0) / 2
    low, high = 0.0, TEN_YEARS_S
    if after(high) > half:
        return None
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if after(middle) > half else (low, middle)
    return high


def direct_results(life: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What ``retention.json`` keeps of each interest of a life beside its state."""
    events, at = events_of(life), life["at"]
    parameters = GOLDEN["parameters"][life["parameters"]]
    horizon_s = life["horizon_days"] * DAY_S
    results = {}
    for name in life["states"]:
        parts = direct_parts(events, name, at, parameters, horizon_s)
        results[name] = {
            "log_odds": parts,
            "retention": direct_retention(parts),
            "half_life_s": direct_half_life(events, name, at, parameters, horizon_s),
        }
    return results


def each_life(test: Any) -> Any:
    return pytest.mark.parametrize("life", LIVES, ids=lambda life: life["name"])(test)


def loaded(life: dict[str, Any]) -> tuple[TraceTable, ForgettingParameters]:
    table = TraceTable.from_events(
        (time, weight, list(shares.items())) for time, weight, shares in events_of(life)
    )
    parameters = json.dumps(GOLDEN["parameters"][life["parameters"]])
    return table, ForgettingParameters.from_json(parameters)


@each_life
def test_the_definitions_give_the_file(life: dict[str, Any]) -> None:
    results = direct_results(life)
    assert results.keys() == life["results"].keys()
    for name, expected in life["results"].items():
        for key, value in expected.items():
            known = value if value is None else pytest.approx(value, rel=1e-12, abs=1e-12)
            assert results[name][key] == known


@each_life
def test_retention_and_its_contributions(life: dict[str, Any]) -> None:
    table, parameters = loaded(life)
    at, horizon_s = life["at"], life["horizon_days"] * DAY_S
    assert set(table.names) == set(life["results"])
    chances = assess(table, at, parameters, horizon_s=horizon_s).retention
    for name, chance in zip(table.names, chances.tolist(), strict=True):
        expected = life["results"][name]
        told = explain(table, at, name, parameters, horizon_s)
        assert [part.name for part in told] == list(PARTS)
        assert [part.log_odds for part in told] == pytest.approx(
            expected["log_odds"], rel=1e-9, abs=1e-12
        )
        assert chance == pytest.approx(expected["retention"], rel=1e-9)


@each_life
def test_half_lives(life: dict[str, Any]) -> None:
    table, parameters = loaded(life)
    found = half_life(table, life["at"], parameters, life["horizon_days"] * DAY_S).tolist()
    for name, seconds in zip(table.names, found, strict=True):
        expected = life["results"][name]["half_life_s"]
        assert seconds == pytest.approx(np.inf if expected is None else expected, rel=2e-6)


@each_life
def test_states(life: dict[str, Any]) -> None:
    table, parameters = loaded(life)
    states = assess(table, life["at"], parameters).states.tolist()
    told = {name: InterestState(s).name for name, s in zip(table.names, states, strict=True)}
    assert told == life["states"]


def test_the_builtin_parameters() -> None:
    assert json.loads(ForgettingParameters.builtin().to_json()) == GOLDEN["parameters"]["builtin"]


def derive() -> None:
    """Write the results anew; parameters, lives and states are kept."""
    lives = ",\n".join(json.dumps({**life, "results": direct_results(life)}) for life in LIVES)
    parameters = json.dumps(GOLDEN["parameters"], indent=1)
    FILE.write_text(f'{{"parameters": {parameters},\n"lives": [\n{lives}\n]}}\n')


if __name__ == "__main__":
    derive()
