"""Items, interests and relations: written through one thread, items remembered when looked up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor

from ebbing.history import item_key
from ebbing.v1 import catalog_service_pb2 as pb
from server.errors import ItemNotFound
from server.state.store import InterestRecord, ItemRecord, RelationRecord, Store

__all__ = ["Catalog", "item_record", "relation_record"]

REMEMBERED_ITEMS = 200_000


class Catalog:
    """The catalogue, as the serving path and the catalogue service see it."""

    def __init__(self, store: Store, writer: Executor) -> None:
        """Set up on a store and the one thread that writes to it."""
        self._store = store
        self._writer = writer
        self._version = -1
        self._items: dict[int, ItemRecord | None] = {}

    def lookup(self, keys: Collection[int]) -> dict[int, ItemRecord]:
        """The items among keys that the catalogue holds, by key.

        Items looked up before are remembered until any gateway changes the catalogue.
        """
        version = self._store.catalogue_version()
        if version != self._version or len(self._items) > REMEMBERED_ITEMS:
            self._items.clear()
            self._version = version
        missing = [key for key in keys if key not in self._items]
        if missing:
            self._items.update(dict.fromkeys(missing))
            self._items.update({item.item_key: item for item in self._store.items(missing)})
        return {key: item for key in keys if (item := self._items[key]) is not None}

    def get_item(self, item_id: str) -> pb.Item:
        """One item, as it was written.

        Raises:
            ItemNotFound: the catalogue does not hold it.
        """
        found = self.lookup([item_key(item_id)])
        if not found:
            raise ItemNotFound(f"the catalogue holds no item {item_id!r}", {"item_id": item_id})
        (item,) = found.values()
        return pb.Item.FromString(item.body)

    def list_items(self, after: str, limit: int) -> list[pb.Item]:
        """Items by id, after a given one."""
        return [pb.Item.FromString(i.body) for i in self._store.list_items(after, limit)]

    def list_interests(self, after: str, limit: int) -> list[pb.Interest]:
        """Described interests by path, after a given one."""
        records = self._store.list_interests(after, limit)
        return [pb.Interest.FromString(record.body) for record in records]

    def list_relations(self, user_id: str, after: str, limit: int) -> list[pb.Relation]:
        """A user's relations by other user, after a given one."""
        records = self._store.list_relations(user_id, after, limit)
        return [pb.Relation.FromString(record.body) for record in records]

    async def write_items(self, items: Sequence[pb.Item]) -> None:
        """Create or replace items, durably; all or none."""
        records = [item_record(item) for item in items]
        await self._run(lambda: self._store.write_items(records))

    async def delete_item(self, item_id: str) -> None:
        """Delete an item, durably."""
        await self._run(lambda: self._store.delete_item(item_id))

    async def write_interests(self, interests: Sequence[pb.Interest]) -> None:
        """Create or replace descriptions of interests, durably; all or none."""
        records = [InterestRecord(i.path, i.SerializeToString()) for i in interests]
        await self._run(lambda: self._store.write_interests(records))

    async def write_relations(self, relations: Sequence[pb.Relation]) -> None:
        """Create or replace relations, durably; all or none."""
        records = [relation_record(relation) for relation in relations]
        await self._run(lambda: self._store.write_relations(records))

    async def _run(self, write: Callable[[], None]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._writer, write)


def item_record(item: pb.Item) -> ItemRecord:
    """An item as a store holds it."""
    return ItemRecord(
        item_id=item.item_id,
        item_key=item_key(item.item_id),
        interests=tuple((i.interest, i.share or 1.0) for i in item.interests),
        available_us=item.available_time.ToMicroseconds(),
        expire_us=item.expire_time.ToMicroseconds(),
        body=item.SerializeToString(deterministic=True),
    )


def relation_record(relation: pb.Relation) -> RelationRecord:
    """A relation as a store holds it."""
    return RelationRecord(relation.user_id, relation.other_user_id, relation.SerializeToString())
