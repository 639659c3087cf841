"""Candidates no model brings: friends, shelves, and what the cold are offered."""

from __future__ import annotations

import pytest

from ebbing.history import encode_history, item_key
from ebbing.v1 import catalog_service_pb2 as pb
from server.catalog import Catalog
from server.recommend.because import because
from server.recommend.candidates import Source
from server.recommend.shelves import PER_SHELF, Shelves
from server.recommend.slates import ColdStart
from server.recommend.social import DOUBT, Social
from server.recommend.sources import Sources
from server.state.sqlite import SqliteStore
from server.state.store import RelationRecord
from tests.suites.store_suite import START_US, deed
from tests.unit.server.recommend.fakes import made

AT_S = START_US / 1e6 + 10 * 86400


def related(user: str, other: str, strength: float = 0.0) -> RelationRecord:
    relation = pb.Relation(user_id=user, other_user_id=other, strength=strength)
    return RelationRecord(user, other, relation.SerializeToString())


def keys(*names: str) -> list[int]:
    return [item_key(name) for name in names]


@pytest.fixture
def social(store: SqliteStore) -> Social:
    store.write_relations([related("new", "bob"), related("new", "eve", 3.0)])
    store.append(
        [
            *(deed(f"bob-{i}", "bob", i, days=1) for i in ("a", "b", "c")),
            *(deed(f"bob-again-{n}", "bob", "c", days=2) for n in range(5)),
            *(deed(f"eve-{i}", "eve", i, days=1) for i in ("b", "d")),
            deed("later", "eve", "z", days=20),
            deed("stranger", "ann", "x", days=1),
        ]
    )
    return Social(store)


async def test_friends_count_with_the_strength_of_the_relation(social: Social) -> None:
    # b of both; d of the nearer friend; a and c of the other alone, however often; z is later.
    shares = await social.shares("new", AT_S)
    whole, alone = DOUBT + 4.0, 2.0
    assert shares == {item_key("b"): (4.0 - alone) / whole, item_key("d"): (3.0 - alone) / whole}


async def test_the_only_friend_is_believed(social: Social, store: SqliteStore) -> None:
    store.write_relations([related("lone", "bob")])
    shares = await social.shares("lone", AT_S)
    assert shares == {item_key(name): 1.0 / (DOUBT + 1.0) for name in ("a", "b", "c")}


async def test_without_friends_or_with_silent_ones_there_is_nothing(
    social: Social, store: SqliteStore
) -> None:
    assert await social.shares("nobody", AT_S) == {}
    store.write_relations([related("lone", "ghost")])
    assert await social.shares("lone", AT_S) == {}


@pytest.fixture
def sources(store: SqliteStore, writer, social: Social) -> Sources:
    catalog = Catalog(store, writer)
    store.write_items([made(name) for name in ("a", "b", "c", "d", "m1", "m2", "s1")])
    store.append(
        [
            deed(f"pop-{n}-{name}", f"u{n}", name, days=9)
            for name, times in (("m1", 5), ("m2", 3), ("s1", 9))
            for n in range(times)
        ]
    )
    return Sources(store, catalog, Shelves(store, catalog, lambda: 0.0, 10.0), social)


def names(candidates) -> list[str]:
    return [candidate.item.item_id for candidate in candidates]


async def test_the_cold_are_offered_what_friends_engage_first(sources: Sources) -> None:
    begun, brought = await sources.cold("new", AT_S, ["music"])
    assert begun is ColdStart.SOCIAL
    assert names(brought)[:2] == ["b", "d"]
    assert [c.source for c in brought[2:4]] == [Source.CONTEXT] * 2
    assert brought[-1].source is Source.POPULAR


async def test_what_friends_engage_and_what_is_popular_are_weighed(sources: Sources) -> None:
    begun, brought = await sources.cold("new", AT_S, [])
    assert begun is ColdStart.SOCIAL
    assert names(brought)[:2] == ["b", "d"]
    assert {c.item.item_id: c.source for c in brought}["s1"] is Source.POPULAR
    assert {c.item.item_id: c.source for c in brought}["d"] is Source.SOCIAL
    assert len(names(brought)) == len(set(names(brought)))


async def test_then_what_is_looked_at_then_what_is_popular(sources: Sources) -> None:
    begun, brought = await sources.cold("lonely", AT_S, ["music"])
    assert begun is ColdStart.CONTEXT
    assert names(brought)[:3] == ["m1", "m2", "s1"]
    begun, brought = await sources.cold("lonely", AT_S, ["never heard of"])
    assert begun is ColdStart.POPULAR
    assert names(brought)[0] == "s1"


async def test_shelves_hold_the_popular_and_then_the_rest(store: SqliteStore, writer) -> None:
    now = [0.0]
    shelves = Shelves(store, Catalog(store, writer), lambda: now[0], 10.0)
    assert await shelves.of_all(["music"], 9) == []
    store.write_items([made("m1"), made("m2"), made("m3"), made("s1")])
    # A change of the catalogue is seen at once.
    assert await shelves.of_all(["music"], 9) == keys("m1", "m2", "m3")
    store.append([deed("1", "u", "m2"), deed("2", "v", "m2"), deed("3", "u", "m3")])
    # What has become popular, now and then.
    assert await shelves.of_all(["music"], 9) == keys("m1", "m2", "m3")
    now[0] = 10.1
    assert await shelves.of_all(["music"], 9) == keys("m2", "m3", "m1")
    assert await shelves.of_all(["music"], 2) == keys("m2", "m3")


async def test_large_catalogues_are_put_up_page_by_page(store: SqliteStore, writer) -> None:
    store.write_items([made(f"m{n:05d}") for n in range(2500)])
    shelves = Shelves(store, Catalog(store, writer), lambda: 0.0, 10.0)
    assert len(await shelves.of_all(["music"], 100)) == PER_SHELF


async def test_of_several_shelves_one_of_each_in_turn(sources: Sources) -> None:
    found = await sources.of_interests(["music", "sports", "none"], Source.REKINDLE)
    assert names(found)[:3] == ["m1", "s1", "m2"]
    assert {c.source for c in found} == {Source.REKINDLE}


def test_what_of_the_history_speaks_for_an_item(sources: Sources, store: SqliteStore) -> None:
    had, times = keys("m1", "s1", "gone", "m2"), [0.0, 1.0, 2.0, 5 * 86400]
    history = encode_history(had, times, [1] * 4, 6 * 86400)
    items = {item.item_key: item for item in map(made, ("m1", "s1", "m2"))}
    music, sports = made("m9").interests, made("s9").interests
    assert because([music, sports, ()], history, items) == [["m2", "m1"], ["s1"], []]
    assert because([], history, items) == []
    assert because([music], history, {}) == [[]]
