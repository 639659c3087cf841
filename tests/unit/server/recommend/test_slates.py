"""Whole slates: strategies, filters, rules, diversity and cold start through the pipeline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ebbing.v1 import catalog_service_pb2 as pb
from server.inference.errors import InferenceFailed
from server.recommend.candidates import Source
from server.recommend.filters import Filters
from server.recommend.pipeline import Recommender
from server.recommend.rules import Rules, load_rules
from server.recommend.slates import ColdStart
from server.recommend.strategies import Strategy
from server.state.sqlite import SqliteStore
from server.state.store import RelationRecord
from tests.suites.store_suite import START_US, deed
from tests.unit.server.recommend.fakes import (
    MUSIC,
    NOW_US,
    SPORTS,
    FakeRelease,
    ids,
    made,
    slate,
)

Make = Callable[..., Recommender]
DAY_US = 86_400_000_000


def rules(tmp_path: Path, text: str) -> Rules:
    path = tmp_path / "rules.toml"
    path.write_text(text)
    return load_rules(path)


@pytest.fixture
def described(store: SqliteStore, world: None) -> None:
    """Items with a colour: those with even numbers are red."""
    for name in ("s0", "s1", "m0", "m1", "s2", "s3", "m2", "m3"):
        colour = "red" if int(name[1]) % 2 == 0 else "blue"
        body = pb.Item(item_id=name, attributes={"colour": colour}).SerializeToString()
        store.write_items([replace(made(name), body=body)])


def colours(*values: str) -> tuple[tuple[str, frozenset[str]], ...]:
    return (("colour", frozenset(values)),)


async def test_filters_by_attribute(recommender: Recommender, described: None) -> None:
    assert set(ids(await slate(recommender, filters=Filters(allow=colours("red"))))) == {"s0", "m2"}
    assert set(ids(await slate(recommender, filters=Filters(deny=colours("red"))))) == {"m1", "s1"}


async def test_what_denies_everything_leaves_an_empty_slate(
    recommender: Recommender, described: None
) -> None:
    nothing = Filters(allow=colours("green"))
    made = await slate(recommender, filters=nothing)
    assert ids(made) == []
    assert made.degraded_reason == ""


@pytest.mark.parametrize("strategy", list(Strategy))
@pytest.mark.parametrize("user_id", ["ann", "new"])
async def test_a_rule_that_denies_everything_leaves_an_empty_slate(
    make: Make, described: None, tmp_path: Path, strategy: Strategy, user_id: str
) -> None:
    nothing = make(rules(tmp_path, '[[rule]]\nname = "all"\ndeny = "1 == 1"'))
    made = await slate(nothing, strategy=strategy, user_id=user_id)
    assert ids(made) == []
    assert made.degraded_reason == ""
    assert made.article_score == 0.0


async def test_rules_deny_and_boost(make: Make, described: None, tmp_path: Path, sample) -> None:
    made = rules(
        tmp_path,
        """
        [[rule]]
        name = "no red sports"
        deny = "colour == 'red' and 'sports' in interests"
        [[rule]]
        name = "s1 first"
        boost = 50
        when = "item_id == 's1' and context_page == 'home'"
        """,
    )
    recommender = make(made)
    assert set(ids(await slate(recommender))) == {"m1", "m2", "s1"}
    assert sample("ebbing_denied_candidates_total", rule="no red sports") >= 1
    assert ids(await slate(recommender))[0] != "s1"
    assert ids(await slate(recommender, context={"page": "home"}))[0] == "s1"


async def test_a_slate_can_be_diverse(make: Make, release: FakeRelease, world: None) -> None:
    release.best = ["m1", "m2", "m3", "s0"]
    assert ids(await slate(make(), size=2)) == ["m1", "m2"]
    assert ids(await slate(make(), size=2, diversity=0.9)) == ["m1", "s0"]
    assert ids(await slate(make(diversity=0.9), size=2)) == ["m1", "s0"]
    assert ids(await slate(make(diversity=0.9), size=2, diversity=0.0)) == ["m1", "m2"]
    assert ids(await slate(make(per_interest=1), size=2)) == ["m1", "s0"]
    # A cap empties no slate.
    assert len(ids(await slate(make(per_interest=1)))) == 4


@pytest.fixture
def faded(store: SqliteStore, world: None) -> None:
    """Ann's sports fade: weekly until nine days ago; her music is alive."""
    sports = [
        deed(f"sport-{n}", "ann", f"s{n % 2}", days=1 - 7 * n, interests=SPORTS) for n in range(10)
    ]
    music = [deed(f"music-{n}", "ann", "m0", days=9 - n, interests=MUSIC) for n in range(8)]
    store.append([*sports, *music])


async def test_rekindle_wins_back_what_fades(make: Make, release: FakeRelease, faded: None) -> None:
    release.best = ["m1", "m2", "m3"]
    followed = await slate(make(candidates=8))
    assert set(ids(followed)) == {"m1", "m2", "m3"}
    made = await slate(make(candidates=8), strategy=Strategy.REKINDLE)
    first = made.items[0].candidate
    assert first.source is Source.REKINDLE
    assert first.item.interests == SPORTS
    assert made.priority[0] == "sports"
    assert len([s for s in made.items if s.candidate.source is Source.REKINDLE]) >= 1


async def test_rekindle_keeps_to_its_daily_cap(
    make: Make, release: FakeRelease, faded: None, store: SqliteStore
) -> None:
    release.best = ["m1", "m2", "m3"]
    recommender = make(candidates=8)
    shown = [
        deed(f"shown-{n}", "ann", "s2", days=9.5, interests=SPORTS, weight=0.0, event_type=12)
        for n in range(3)
    ]
    store.append(shown[:2])
    made = await slate(recommender, strategy=Strategy.REKINDLE)
    assert made.items[0].candidate.item.interests == SPORTS
    store.append(shown[2:])
    made = await slate(recommender, strategy=Strategy.REKINDLE)
    assert made.items[0].candidate.item.interests == MUSIC
    # A day later it may be shown again.
    later = await slate(recommender, strategy=Strategy.REKINDLE, at_us=NOW_US + DAY_US)
    assert SPORTS in [s.candidate.item.interests for s in later.items[:2]]


async def test_explore_leaves_what_is_known(make: Make, release: FakeRelease, world: None) -> None:
    release.best = ["m1", "m2", "s0"]
    made = await slate(make(candidates=8), strategy=Strategy.EXPLORE)
    assert ids(made)[0] == "s0"
    assert {s.candidate.source for s in made.items} >= {Source.RETRIEVAL, Source.POPULAR}


async def test_pace_shows_what_is_due_and_says_when_the_rest_is(
    make: Make, release: FakeRelease, faded: None, store: SqliteStore
) -> None:
    release.best = ["m1", "s2", "m2"]
    recommender = make(candidates=8)
    made = await slate(recommender, strategy=Strategy.PACE)
    paces = {pace.interest: pace for pace in made.paces}
    assert paces["sports"].due
    assert {s.candidate.item.interests for s in made.items} >= {SPORTS}
    store.append(
        [deed("shown", "ann", "s2", days=9.9, interests=SPORTS, weight=0.0, event_type=12)]
    )
    after = await slate(recommender, strategy=Strategy.PACE)
    paces = {pace.interest: pace for pace in after.paces}
    assert not paces["sports"].due
    assert paces["sports"].in_vain == 1
    assert SPORTS not in {s.candidate.item.interests for s in after.items}
    assert (await slate(recommender)).paces == []


async def test_nothing_is_due_is_an_empty_slate(
    make: Make, release: FakeRelease, store: SqliteStore, world: None
) -> None:
    at_us = START_US + 86_400_000_000 + 1
    made = await slate(make(), strategy=Strategy.PACE, at_us=at_us)
    assert ids(made) == []
    assert [pace.due for pace in made.paces] == [False]


async def test_a_new_user_gets_what_friends_engage(
    recommender: Recommender, release: FakeRelease, world: None, store: SqliteStore
) -> None:
    relation = pb.Relation(user_id="new", other_user_id="ann").SerializeToString()
    store.write_relations([RelationRecord("new", "ann", relation)])
    made = await slate(recommender, user_id="new")
    assert made.cold_start is ColdStart.SOCIAL
    assert ids(made)[0] == "m0"
    assert made.items[0].candidate.source is Source.SOCIAL
    assert release.histories == []


async def test_a_new_user_gets_what_is_looked_at(recommender: Recommender, world: None) -> None:
    made = await slate(recommender, user_id="new", context_interests=("music",))
    assert made.cold_start is ColdStart.CONTEXT
    assert ids(made)[0] == "m0"
    plain = await slate(recommender, user_id="new")
    assert plain.cold_start is ColdStart.POPULAR
    assert ids(plain)[0] == "s0"


async def test_the_second_event_changes_the_slate(
    recommender: Recommender, release: FakeRelease, world: None, store: SqliteStore
) -> None:
    store.append([deed("first", "new", "m0", days=8, interests=MUSIC)])
    release.best = ["m1", "s0", "m2", "s1"]
    one = await slate(recommender, user_id="new")
    assert one.cold_start is ColdStart.NONE
    store.append([deed("second", "new", "s2", days=9, interests=SPORTS)])
    two = await slate(recommender, user_id="new")
    assert ids(one) != ids(two)
    assert [s.score for s in one.items] != [s.score for s in two.items]


async def test_items_name_what_of_the_history_speaks_for_them(
    recommender: Recommender, release: FakeRelease, world: None
) -> None:
    made = await slate(recommender)
    told = dict(zip(ids(made), made.because, strict=True))
    assert told["m1"] == ["m0"]
    assert told["s0"] == []


@pytest.mark.parametrize("strategy", list(Strategy))
async def test_every_strategy_serves_whoever_comes(
    recommender: Recommender, release: FakeRelease, world: None, strategy: Strategy
) -> None:
    for user_id in ("ann", "new"):
        made = await slate(recommender, user_id=user_id, strategy=strategy)
        assert len(set(ids(made))) == len(ids(made))
        assert made.degraded_reason == ""


async def test_models_that_fail_leave_the_strategy_in_force(
    make: Make, release: FakeRelease, faded: None
) -> None:
    release.retrieval_failure = InferenceFailed("NaN")
    made = await slate(make(candidates=8), strategy=Strategy.REKINDLE)
    assert made.degraded_reason == "TRITON_FAILED"
    assert made.items[0].candidate.source is Source.REKINDLE
