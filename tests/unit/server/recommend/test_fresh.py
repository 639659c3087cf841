"""Items that no model has seen: found, placed, offered, and kept up with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ebbing.history import item_key
from ebbing.items import EncodedItems
from ebbing.v1 import catalog_service_pb2 as pb
from server.inference.errors import TritonUnavailable
from server.inference.loaded import Placed
from server.metrics import Metrics
from server.recommend.candidates import Source
from server.recommend.fresh import FreshItems
from server.recommend.pipeline import Recommender
from server.state.sqlite import SqliteStore
from tests.unit.server.recommend.fakes import FakeFresh, FakeRelease, ids, made, slate

MUSIC_KEY = item_key("music")


class FakeEncoder:
    """A release that knows items called m0 … and places the musical at (1, 0), others at (0, 1)."""

    release = 3
    encodes_items = True

    def __init__(self) -> None:
        self.known: set[int] = {item_key("m0"), item_key("s0")}
        self.asked: list[int] = []
        self.placed: list[EncodedItems] = []
        self.failure: Exception | None = None

    async def unknown(self, keys: list[int], timeout_s: float) -> list[int]:
        if self.failure:
            raise self.failure
        self.asked += keys
        return [key for key in keys if key not in self.known]

    async def place(self, items: EncodedItems, timeout_s: float) -> Placed:
        self.placed.append(items)
        music = items.interest_keys[:, 0, 0] == MUSIC_KEY
        vectors = np.column_stack([music, ~music]).astype(np.float32)
        return Placed(vectors, np.full(len(music), 0.5, np.float32))


@pytest.fixture
def encoder() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture
def in_service(encoder: FakeEncoder) -> list[Any]:
    return [encoder]


@pytest.fixture
def items(store: SqliteStore, in_service: list[Any], metrics: Metrics) -> FreshItems:
    store.write_items([made(name) for name in ("m0", "s0", "m1", "s1")])
    return FreshItems(store, lambda: in_service, metrics, 0.01)


def offered(items: FreshItems, *user: float) -> list[tuple[str, float]]:
    found = items.best(3, np.array(user, np.float32))
    assert {candidate.source for candidate in found} <= {Source.FRESH}
    return [(c.item.item_id, c.retrieval_score or 0.0) for c in found]


async def test_what_the_release_does_not_know_is_offered_by_score(
    items: FreshItems, encoder: FakeEncoder, sample
) -> None:
    assert offered(items, 1.0, 0.0) == []
    await items.look()
    assert offered(items, 1.0, 0.0) == [("m1", 1.5), ("s1", 0.5)]
    assert offered(items, 0.0, 2.0) == [("s1", 2.5), ("m1", 0.5)]
    assert sample("ebbing_placed_items", release="3") == 2


async def test_a_new_item_is_placed_and_nothing_is_asked_twice(
    items: FreshItems, encoder: FakeEncoder, store: SqliteStore
) -> None:
    await items.look()
    await items.look()
    assert len(encoder.asked) == 4
    store.write_items([made("m2")])
    await items.look()
    assert len(encoder.asked) == 5
    assert len(encoder.placed[-1].interest_keys) == 1
    assert {name for name, _ in offered(items, 1.0, 0.0)} == {"m1", "m2", "s1"}


async def test_an_item_that_changes_is_placed_anew_and_one_that_goes_is_gone(
    items: FreshItems, encoder: FakeEncoder, store: SqliteStore
) -> None:
    await items.look()
    store.write_items([replace(made("m1"), interests=(("sports", 1.0),))])
    store.delete_item("s1")
    await items.look()
    assert offered(items, 0.0, 1.0) == [("m1", 1.5)]
    store.delete_item("m1")
    await items.look()
    assert offered(items, 0.0, 1.0) == []


async def test_content_vectors_are_what_items_look_like(
    items: FreshItems, encoder: FakeEncoder, store: SqliteStore
) -> None:
    body = pb.Item(item_id="m1")
    body.content["image"].values.extend([1.0, 2.0])
    store.write_items([replace(made("m1"), body=body.SerializeToString())])
    await items.look()
    encoded = encoder.placed[0]
    assert encoded.contents[0, 0].tolist() == [1.0, 2.0]
    assert encoded.content_keys[0].tolist() == [item_key("image")]


async def test_many_items_are_placed_in_parts_and_few_are_offered(
    items: FreshItems, encoder: FakeEncoder, store: SqliteStore
) -> None:
    store.write_items([made(f"m{n:04d}") for n in range(1500)])
    await items.look()
    assert len(encoder.placed) == -(-1502 // 32)
    assert len(offered(items, 1.0, 0.0)) == 32


async def test_a_triton_that_is_away_is_asked_again(
    items: FreshItems, encoder: FakeEncoder
) -> None:
    encoder.failure = TritonUnavailable("gone")
    with pytest.raises(TritonUnavailable):
        await items.look()
    encoder.failure = None
    await items.look()
    assert len(offered(items, 1.0, 0.0)) == 2


async def test_releases_come_and_go(items: FreshItems, in_service: list[Any]) -> None:
    await items.look()
    in_service.clear()
    await items.look()
    assert offered(items, 1.0, 0.0) == []


async def test_a_release_without_an_encoder_has_none(
    items: FreshItems, encoder: FakeEncoder
) -> None:
    encoder.encodes_items = False
    await items.look()
    assert encoder.asked == []
    assert offered(items, 1.0, 0.0) == []


async def test_a_user_of_another_width_is_offered_nothing(items: FreshItems) -> None:
    await items.look()
    assert offered(items, 1.0, 0.0, 0.0) == []


async def test_fresh_items_compete_with_the_retrieved_by_score(
    recommender: Recommender, release: FakeRelease, fresh: FakeFresh, world: None
) -> None:
    release.best = ["m1", "s0", "m2"]
    fresh.offers = {"m9": 0.9, "s9": -5.0}
    made = await slate(recommender)
    by_id = {s.candidate.item.item_id: s.candidate for s in made.items}
    assert set(ids(made)) == {"m1", "m9", "s0", "m2"}
    assert by_id["m9"].source is Source.FRESH
    assert by_id["m9"].retrieval_score == 0.9
