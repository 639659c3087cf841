"""The catalogue: what is written is read, at once and by every gateway."""

from __future__ import annotations

from concurrent.futures import Executor
from contextlib import closing
from pathlib import Path

import pytest

from ebbing.history import item_key
from ebbing.v1 import catalog_service_pb2 as pb
from ebbing.v1.user_event_pb2 import InterestShare
from server import catalog as module
from server.catalog import Catalog
from server.errors import ItemKeyCollision, ItemNotFound
from server.state.sqlite import SqliteStore
from tests.harness.state import records


@pytest.fixture
def catalog(store: SqliteStore, writer: Executor) -> Catalog:
    return Catalog(store, writer)


def made(item_id: str, title: str = "", *interests: tuple[str, float]) -> pb.Item:
    shares = [InterestShare(interest=path, share=share) for path, share in interests]
    return pb.Item(item_id=item_id, title=title, interests=shares)


async def test_an_item_is_read_as_it_was_written(catalog: Catalog) -> None:
    item = made("ü", "A title", ("a/b", 0.5), ("c", 0.0))
    item.attributes["brand"] = "x"
    item.content["text"].values.extend([1.0, -2.5])
    item.available_time.FromSeconds(10)
    item.expire_time.FromSeconds(20)
    await catalog.write_items([item])
    assert catalog.get_item("ü") == item
    assert catalog.list_items("", 10) == [item]
    record = catalog.lookup([item_key("ü")])[item_key("ü")]
    # A share that is not set counts as 1.
    assert record.interests == (("a/b", 0.5), ("c", 1.0))
    assert (record.available_us, record.expire_us) == (10_000_000, 20_000_000)


async def test_an_item_without_times_is_always_available(catalog: Catalog) -> None:
    await catalog.write_items([made("i")])
    record = catalog.lookup([item_key("i")])[item_key("i")]
    assert (record.available_us, record.expire_us) == (0, 0)


async def test_an_unknown_item(catalog: Catalog) -> None:
    with pytest.raises(ItemNotFound) as error:
        catalog.get_item("nothing")
    assert error.value.metadata == {"item_id": "nothing"}
    assert catalog.lookup([item_key("nothing")]) == {}
    assert catalog.lookup([]) == {}


async def test_what_was_looked_up_is_remembered(
    catalog: Catalog, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await catalog.write_items([made("i")])
    keys = [item_key("i"), item_key("unknown")]
    first = catalog.lookup(keys)
    asked: list[object] = []
    monkeypatch.setattr(store, "items", lambda keys: asked.append(keys) or [])
    assert catalog.lookup(keys) == first
    assert asked == []


async def test_changes_are_seen_at_once(catalog: Catalog) -> None:
    assert catalog.lookup([item_key("i")]) == {}
    await catalog.write_items([made("i", "old")])
    assert catalog.get_item("i").title == "old"
    await catalog.write_items([made("i", "new")])
    assert catalog.get_item("i").title == "new"
    await catalog.delete_item("i")
    with pytest.raises(ItemNotFound):
        catalog.get_item("i")


async def test_changes_of_another_gateway_are_seen_too(
    catalog: Catalog, tmp_path: Path, writer: Executor
) -> None:
    await catalog.write_items([made("i", "old")])
    assert catalog.get_item("i").title == "old"
    with closing(SqliteStore(tmp_path / "state.db", records())) as theirs:
        await Catalog(theirs, writer).write_items([made("i", "new")])
    assert catalog.get_item("i").title == "new"


async def test_memory_is_bounded(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED_ITEMS", 10)
    await catalog.write_items([made(f"i{n}") for n in range(30)])
    for n in range(30):
        assert catalog.get_item(f"i{n}").item_id == f"i{n}"
        assert len(catalog._items) <= 11


async def test_items_with_one_key_are_refused_whole(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "item_key", lambda item_id: 7)
    with pytest.raises(ItemKeyCollision):
        await catalog.write_items([made("a"), made("b")])
    assert catalog.list_items("", 10) == []


async def test_interests_and_relations_round_trip(catalog: Catalog) -> None:
    interests = [pb.Interest(path="a", title="A"), pb.Interest(path="a/b")]
    await catalog.write_interests(interests)
    assert catalog.list_interests("", 10) == interests
    assert catalog.list_interests("a", 10) == interests[1:]
    relations = [
        pb.Relation(user_id="ann", other_user_id="bob", strength=2.0),
        pb.Relation(user_id="ann", other_user_id="cyd"),
    ]
    await catalog.write_relations(relations)
    assert catalog.list_relations("ann", "", 10) == relations
    assert catalog.list_relations("ann", "bob", 10) == relations[1:]
    assert catalog.list_relations("bob", "", 10) == []
