"""Strategies: what each makes of the same candidates."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from ebbing.history import item_key
from ebbing.interest.forgetting import ForgettingParameters
from ebbing.interest.states import InterestState
from ebbing.interest.trace import TraceTable
from server.recommend.about import main_interest
from server.recommend.candidates import Candidate, Source
from server.recommend.interests import InterestContext
from server.recommend.pacing import Pace
from server.recommend.strategies import Plan, Strategy, StrategyConfig, plan
from server.state.store import ItemRecord

DAY_S = 86400.0
AT_S = 1.7e9
PARAMETERS = ForgettingParameters.builtin()


def weekly(name: str, last_days: float, times: int = 12) -> list:
    """Engaged once a week until so many days ago."""
    return [(AT_S - (last_days + 7 * n) * DAY_S, 1.0, [(name, 1.0)]) for n in range(times)]


TRACES = TraceTable.from_events(
    [*weekly("alive", 1), *weekly("fading", 9), *weekly("lately", 12), *weekly("abandoned", 90)]
)
CONTEXT = InterestContext.of(TRACES, AT_S, PARAMETERS)
CONFIG = StrategyConfig()


def item(name: str, *interests: tuple[str, float], source: Source = Source.RETRIEVAL) -> Candidate:
    return Candidate(ItemRecord(name, item_key(name), interests, 0, 0, b""), source)


def about(*interests: str) -> list[Candidate]:
    return [item(f"{name}-{n}", (name, 1.0)) for n, name in enumerate(interests)]


def planned(
    strategy: Strategy, candidates: list[Candidate], size: int = 10, **given: object
) -> Plan:
    believed = np.linspace(1.0, 0.5, len(candidates))
    return plan(strategy, candidates, believed, CONTEXT, CONFIG, size, **given)  # type: ignore[arg-type]


def best(made: Plan, candidates: list[Candidate]) -> list[str]:
    order = np.argsort(-made.scores, kind="stable")
    return [main_interest(candidates[i].item.interests) for i in order if made.scores[i] >= 0]


def test_the_world_is_as_the_tests_want_it() -> None:
    states = dict(zip(CONTEXT.names, CONTEXT.states.tolist(), strict=True))
    assert states["alive"] == InterestState.ACTIVE
    assert states["fading"] == InterestState.FADING
    assert states["lately"] == states["abandoned"] == InterestState.FORGOTTEN


def test_what_can_be_won_back_is_what_faded_not_long_ago() -> None:
    worth = dict(zip(CONTEXT.names, CONTEXT.recoverable.tolist(), strict=True))
    assert worth["fading"] > worth["lately"] > 0
    assert worth["alive"] == worth["abandoned"] == 0


@pytest.mark.parametrize(
    ("last_days", "wins_back"), [(1, False), (9, True), (14, True), (20, True), (22, False)]
)
def test_two_skipped_occasions_are_forgiven_and_no_more(last_days: float, wins_back: bool) -> None:
    traces = TraceTable.from_events(weekly("a", last_days))
    context = InterestContext.of(traces, AT_S, PARAMETERS)
    assert bool(context.recoverable[0] > 0) is wins_back


def test_what_is_much_less_likely_than_the_liveliest_is_let_go() -> None:
    seldom = [(AT_S - (70 + 30 * n) * DAY_S, 1.0, [("seldom", 1.0)]) for n in range(5)]
    alone = InterestContext.of(TraceTable.from_events(seldom), AT_S, PARAMETERS)
    assert alone.recoverable[0] == alone.retention[0]
    daily = [(AT_S - n * DAY_S, 1.0, [("daily", 1.0)]) for n in range(60)]
    beside = InterestContext.of(TraceTable.from_events([*seldom, *daily]), AT_S, PARAMETERS)
    assert beside.liveliness[beside.index["daily"]] == 1.0
    assert beside.recoverable[beside.index["seldom"]] == 0


def test_follow_goes_where_interest_is_alive() -> None:
    candidates = about("abandoned", "unknown", "alive")
    made = planned(Strategy.FOLLOW, candidates)
    assert best(made, candidates)[0] == "alive"
    assert made.reserved == []
    assert made.priority[0] == "alive"
    assert made.priority[-1] == "abandoned"


def test_rekindle_reserves_places_for_what_can_be_won_back() -> None:
    candidates = about("alive", "abandoned", "lately", "fading", "fading", "alive")
    made = planned(Strategy.REKINDLE, candidates)
    assert made.reserved == [3, 2]
    assert made.priority[:2] == ["fading", "lately"]
    # Fewer places: the most recoverable first.
    assert planned(Strategy.REKINDLE, candidates, size=3).reserved == [3]
    # The rest is as FOLLOW has it.
    np.testing.assert_array_equal(made.scores, planned(Strategy.FOLLOW, candidates).scores)


def test_what_was_brought_to_win_back_has_a_place_kept_or_none() -> None:
    brought = [item(f"brought-{n}", ("fading", 1.0), source=Source.REKINDLE) for n in range(2)]
    candidates = [*brought, *about("alive", "fading")]
    made = planned(Strategy.REKINDLE, candidates)
    assert made.reserved == [0]
    assert made.scores[:2].tolist() == [-1.0, -1.0]
    assert (made.scores[2:] > 0).all()
    # Shown often enough today, it has none at all.
    often = planned(Strategy.REKINDLE, candidates, shown_today=Counter({"fading": 3}))
    assert often.reserved == []
    assert best(often, candidates)[0] == "alive"


@pytest.mark.parametrize(("shown", "reserved"), [(2, [0, 1]), (3, [1]), (99, [1])])
def test_rekindle_shows_an_interest_so_often_a_day(shown: int, reserved: list[int]) -> None:
    candidates = about("fading", "lately")
    made = planned(Strategy.REKINDLE, candidates, shown_today=Counter({"fading": shown}))
    assert made.reserved == reserved


def test_explore_goes_where_the_user_has_not_been() -> None:
    candidates = about("alive", "abandoned", "unknown", "new")
    made = planned(Strategy.EXPLORE, candidates)
    assert best(made, candidates)[:2] == ["unknown", "new"]
    mixed = [item("half", ("alive", 1.0), ("new", 1.0)), *about("alive", "new")]
    assert best(planned(Strategy.EXPLORE, mixed), mixed)[0] == "new"


def test_pace_shows_what_is_due_and_nothing_else() -> None:
    candidates = about("alive", "fading", "unknown", "abandoned")
    paces = [
        Pace("alive", False, AT_S + 10, 5.0, 0),
        Pace("fading", True, AT_S, 5.0, 0),
        Pace("abandoned", False, AT_S + 5, 5.0, 0),
    ]
    made = planned(Strategy.PACE, candidates, paces=paces)
    assert best(made, candidates) == ["fading"]
    assert made.priority == ["fading", "abandoned", "alive"]


@pytest.mark.parametrize("strategy", list(Strategy))
def test_of_no_candidates_and_of_nobody(strategy: Strategy) -> None:
    assert planned(strategy, []).reserved == []
    nobody = InterestContext.of(TraceTable.empty(), AT_S, PARAMETERS)
    made = plan(strategy, about("alive"), np.ones(1), nobody, CONFIG, 10)
    assert made.priority == []
    assert len(made.scores) == 1
