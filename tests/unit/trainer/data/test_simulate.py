from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ebbing.interest.assessment import assess
from ebbing.interest.forgetting import ForgettingParameters
from ebbing.interest.states import InterestState
from ebbing.interest.trace import TraceTable
from trainer.data.log import read_log
from trainer.data.replay import traced_events
from trainer.data.simulate import (
    DAY_S,
    PATTERNS,
    PROTAGONIST,
    Episode,
    Simulation,
    SimulationConfig,
    simulate,
)

CONFIG = SimulationConfig(users=40, items=480, days=150)


def test_the_same_seed_writes_the_same_bytes(simulation: Simulation, tmp_path: Path) -> None:
    simulation.write(tmp_path / "one")
    simulate(CONFIG).write(tmp_path / "two")
    for name in ("events.csv.gz", "items.csv.gz", "truth.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_another_seed_gives_another_log(simulation: Simulation) -> None:
    other = simulate(SimulationConfig(users=40, items=480, days=150, seed=8))
    assert len(other.log) != len(simulation.log) or (other.log.items != simulation.log.items).any()


def test_what_is_written_reads_back(simulation: Simulation, data: Path) -> None:
    log = read_log(data)
    made = simulation.log
    assert len(log) == len(made)
    assert set(log.user_ids) == set(made.user_ids)
    assert log.item_ids == made.item_ids
    assert log.interests == made.interests
    truth = json.loads((data / "truth.json").read_text())
    assert truth["protagonist"] == PROTAGONIST
    assert {one["pattern"] for ones in truth["users"].values() for one in ones} == set(PATTERNS)


def test_the_protagonist_forgets_football_for_baking() -> None:
    made = simulate(SimulationConfig())
    log = made.log
    user = log.user_ids.index(PROTAGONIST)
    stop = int(log.offsets[user + 1])
    events = range(int(log.offsets[user]), stop)
    last = {log.interests[log.items[event]][0][0]: log.times[event] for event in events}
    end = made.config.end
    assert end - last["sports/football"] > 38 * DAY_S
    assert end - last["cooking/baking"] < 7 * DAY_S
    table = TraceTable.from_events(traced_events(log, events.start, stop))
    state = dict(
        zip(
            table.names,
            assess(table, end, ForgettingParameters.builtin()).states.tolist(),
            strict=True,
        )
    )
    assert state["sports/football"] in (InterestState.FADING, InterestState.FORGOTTEN)
    # She bakes every eight days or so: half a week without is a rest.
    assert state["cooking/baking"] in (InterestState.ACTIVE, InterestState.RESTING)
    had = {log.items[event] for event in events}
    left = [
        item
        for item, interests in enumerate(log.interests)
        if interests[0][0] == "cooking/baking" and item not in had
    ]
    assert len(left) >= 10


@pytest.mark.parametrize(
    ("episode", "busy", "quiet"),
    [
        (Episode("a", "rising", 100 * DAY_S, None, None, 1.0), 120, 50),
        (Episode("a", "faded", 0.0, 60 * DAY_S, None, 1.0), 30, 61),
        (Episode("a", "resting", 0.0, None, 7 * DAY_S, 1.0), 14.5, 17),
    ],
)
def test_rates_follow_the_pattern(episode: Episode, busy: float, quiet: float) -> None:
    rate = episode.rate(np.array([busy, quiet]) * DAY_S)
    assert rate.tolist() == [1.0, 0.0]


def test_too_small_a_log_is_refused() -> None:
    with pytest.raises(ValueError, match="120 days at least"):
        SimulationConfig(days=10)
