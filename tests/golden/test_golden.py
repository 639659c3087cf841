"""Golden numbers of F, p, R, the traces, item keys and the input layout.

The JSON files beside this one hold inputs and results. The results come from the definitions,
written out below in plain Python one event at a time, never from the code under test:
``python tests/golden/test_golden.py`` derives them anew. A test holds both against the files.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ebbing.history import LAYOUT_DIGEST, item_key
from ebbing.interest.article import drift, recommendation_score, softmax_probabilities
from ebbing.interest.profile import interest_vectors, previous_interest_vector
from ebbing.interest.trace import TraceTable

HERE = Path(__file__).parent
HOUR_S, DAY_S = 3600.0, 86400.0
HALF_LIVES = [0.4 * HOUR_S * (6.5 * 365.25 * 24 / 0.4) ** (r / 9) for r in range(10)]
SHORT = [h for h in HALF_LIVES if 0.5 * DAY_S <= h <= 14 * DAY_S]
LONG = [h for h in HALF_LIVES if 60 * DAY_S <= h <= 3 * 365.25 * DAY_S]


def golden(name: str) -> Any:
    return json.loads((HERE / name).read_text())


def norm(vector: list[float]) -> float:
    return math.sqrt(math.fsum(x * x for x in vector))


def direct_drift(now: list[float], before: list[float]) -> float | None:
    size = norm(now)
    return norm([a - b for a, b in zip(now, before, strict=True)]) / size if size else None


def direct_softmax(forgetting: list[float], alpha: float) -> list[float]:
    powers = [math.exp(-alpha * f) for f in forgetting]
    return [power / math.fsum(powers) for power in powers]


def direct_r(weights: list[float], probabilities: list[float]) -> float:
    return math.fsum(w * p for w, p in zip(weights, probabilities, strict=True))


def direct_sum(events: list[list[Any]], interest: str, half_life: float, at: float) -> float:
    """Σ w · 2^(−(at−τ)/h) over the events of an interest that are not after ``at``."""
    return math.fsum(
        weight * share * 2.0 ** (-(at - time) / half_life)
        for time, weight, shares in events
        for name, share in shares
        if name == interest and time <= at
    )


def direct_interest(events: list[list[Any]], interest: str, at: float) -> float:
    """Blended I(u,t) of an interest: the mean of its short-term and its long-term mean."""
    means = [
        math.fsum(direct_sum(events, interest, h, at) for h in rates) / len(rates)
        for rates in (SHORT, LONG)
    ]
    return sum(means) / 2


def direct_key(item_id: str) -> int:
    """The first 63 bits of the 8-byte blake2b digest of the id's UTF-8."""
    bits = "".join(
        f"{byte:08b}" for byte in hashlib.blake2b(item_id.encode(), digest_size=8).digest()
    )
    return int(bits[:63], 2)


def same(actual: object, expected: object, tolerance: float = 1e-12) -> None:
    assert actual == pytest.approx(expected, rel=tolerance, abs=1e-300)


@pytest.mark.parametrize("case", golden("drift.json"), ids=lambda case: case["name"])
def test_drift(case: dict[str, Any]) -> None:
    now, before, expected = case["current"], case["previous"], case["drift"]
    if expected is None:
        assert direct_drift(now, before) is None
        assert drift(now, before) is None
    else:
        same(direct_drift(now, before), expected)
        same(drift(now, before), expected)


def test_the_worked_example_corrected() -> None:
    """Interests A, B, C: I(t−1) = (1,0,1), I(t) = (1,1,0). F is 1, and C is the one that faded."""
    now, before = np.array([1.0, 1.0, 0.0]), np.array([1.0, 0.0, 1.0])
    assert drift(now, before) == pytest.approx(math.sqrt(2) / math.sqrt(2))
    assert drift(now, before) != pytest.approx(math.sqrt(2))
    change = dict(zip("ABC", now - before, strict=True))
    assert change == {"A": 0.0, "B": 1.0, "C": -1.0}


@pytest.mark.parametrize("case", golden("recommendation.json"), ids=lambda case: case["name"])
def test_p_and_r(case: dict[str, Any]) -> None:
    direct = direct_softmax(case["forgetting"], case["alpha"])
    same(direct, case["p"])
    same(direct_r(case["weights"], direct), case["r"])
    probabilities = softmax_probabilities(case["forgetting"], case["alpha"])
    same(probabilities.tolist(), case["p"])
    same(recommendation_score(case["weights"], probabilities), case["r"])


def test_traces_and_interest_vectors() -> None:
    data = golden("traces.json")
    events, at, start = data["events"], data["at"], data["period_start"]
    table = TraceTable.from_events([(t, w, [(n, s) for n, s in shares]) for t, w, shares in events])
    now = interest_vectors(table, at).blended
    previous = previous_interest_vector(table, at)
    bank = table.bank(at)
    earlier = [event for event in events if event[0] < start]
    for i, name in enumerate(table.names):
        expected = data["interests"][name]
        same([direct_sum(events, name, h, at) for h in HALF_LIVES], expected["bank"])
        same(direct_interest(events, name, at), expected["now"])
        same(direct_interest(earlier, name, start), expected["previous"])
        same(bank[i].tolist(), expected["bank"], 1e-9)
        same(now[i], expected["now"], 1e-9)
        same(previous[i], expected["previous"], 1e-9)
    assert set(table.names) == set(data["interests"])
    same(drift(now, previous), data["drift"], 1e-9)


def test_item_keys() -> None:
    for item_id, key in golden("item_keys.json").items():
        assert direct_key(item_id) == key
        assert item_key(item_id) == key


def test_the_layout_digest() -> None:
    """A changed layout is a new layout: models published before cannot be served by this code."""
    data = golden("layout.json")
    text = json.dumps(data["layout"], sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest() == data["digest"]
    assert data["digest"] == LAYOUT_DIGEST


def derive() -> None:
    """Write the results of all files anew; the inputs are kept."""

    def write(name: str, data: Any) -> None:
        (HERE / name).write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")

    write(
        "drift.json",
        [{**c, "drift": direct_drift(c["current"], c["previous"])} for c in golden("drift.json")],
    )
    cases = golden("recommendation.json")
    for case in cases:
        case["p"] = direct_softmax(case["forgetting"], case["alpha"])
        case["r"] = direct_r(case["weights"], case["p"])
    write("recommendation.json", cases)

    data = golden("traces.json")
    events, at = data["events"], data["at"]
    start = data["period_start"] = at // (7 * DAY_S) * 7 * DAY_S
    names = sorted({name for _, _, shares in events for name, _ in shares})
    earlier = [event for event in events if event[0] < start]
    data["interests"] = {
        name: {
            "bank": [direct_sum(events, name, h, at) for h in HALF_LIVES],
            "now": direct_interest(events, name, at),
            "previous": direct_interest(earlier, name, start),
        }
        for name in names
    }
    values = data["interests"].values()
    data["drift"] = direct_drift([v["now"] for v in values], [v["previous"] for v in values])
    write("traces.json", data)

    write("item_keys.json", {item_id: direct_key(item_id) for item_id in golden("item_keys.json")})
    layout = golden("layout.json")["layout"]
    digest = hashlib.sha256(json.dumps(layout, sort_keys=True).encode()).hexdigest()
    write("layout.json", {"layout": layout, "digest": digest})


if __name__ == "__main__":
    derive()
