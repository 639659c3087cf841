"""CatalogService."""

from __future__ import annotations

import itertools

from ebbing.v1 import catalog_service_pb2 as pb
from ebbing.v1 import catalog_service_pb2_grpc
from server.catalog import Catalog
from server.limits import Limits
from server.rpc import Context
from server.rpc.paging import page_size, read_token, write_token
from server.rpc.validation import Checks, check_interest, check_item, check_relation

__all__ = ["CatalogServicer"]

PAGE_BYTES = 2 * 2**20
"""A page of items ends when it has so many bytes: clients take 4 MiB unless told otherwise."""


class CatalogServicer(catalog_service_pb2_grpc.CatalogServiceServicer):
    """Keeps items, interests and relations."""

    def __init__(self, catalog: Catalog, limits: Limits) -> None:
        """Set up on a catalogue; ``limits`` are those of writes."""
        self._catalog = catalog
        self._limits = limits

    async def BatchWriteItems(
        self, request: pb.BatchWriteItemsRequest, context: Context
    ) -> pb.BatchWriteItemsResponse:
        """Create or replace items."""
        with Checks(self._limits) as checks:
            checks.count("items", len(request.items), self._limits.rows, required=True)
            checks.distinct("items", (item.item_id for item in request.items))
            for i, item in enumerate(request.items):
                check_item(checks, f"items[{i}]", item)
        await self._catalog.write_items(request.items)
        return pb.BatchWriteItemsResponse(written_count=len(request.items))

    async def GetItem(self, request: pb.GetItemRequest, context: Context) -> pb.GetItemResponse:
        """Read one item."""
        with Checks() as checks:
            checks.identifier("item_id", request.item_id)
        return pb.GetItemResponse(item=self._catalog.get_item(request.item_id))

    async def ListItems(
        self, request: pb.ListItemsRequest, context: Context
    ) -> pb.ListItemsResponse:
        """List items by id."""
        size, after = page_size(request.page_size), read_token("items", request.page_token)
        found = self._catalog.list_items(after, size)
        items = _within_bytes(found)
        full = len(found) == size or len(items) < len(found)
        more = write_token("items", items[-1].item_id) if full else ""
        return pb.ListItemsResponse(items=items, next_page_token=more)

    async def DeleteItem(
        self, request: pb.DeleteItemRequest, context: Context
    ) -> pb.DeleteItemResponse:
        """Delete one item."""
        with Checks() as checks:
            checks.identifier("item_id", request.item_id)
        await self._catalog.delete_item(request.item_id)
        return pb.DeleteItemResponse()

    async def BatchWriteInterests(
        self, request: pb.BatchWriteInterestsRequest, context: Context
    ) -> pb.BatchWriteInterestsResponse:
        """Create or replace descriptions of interests."""
        with Checks(self._limits) as checks:
            checks.count("interests", len(request.interests), self._limits.rows, required=True)
            checks.distinct("interests", (interest.path for interest in request.interests))
            for i, interest in enumerate(request.interests):
                check_interest(checks, f"interests[{i}]", interest)
        await self._catalog.write_interests(request.interests)
        return pb.BatchWriteInterestsResponse(written_count=len(request.interests))

    async def ListInterests(
        self, request: pb.ListInterestsRequest, context: Context
    ) -> pb.ListInterestsResponse:
        """List described interests by path."""
        size, after = page_size(request.page_size), read_token("interests", request.page_token)
        interests = self._catalog.list_interests(after, size)
        more = write_token("interests", interests[-1].path) if len(interests) == size else ""
        return pb.ListInterestsResponse(interests=interests, next_page_token=more)

    async def BatchWriteRelations(
        self, request: pb.BatchWriteRelationsRequest, context: Context
    ) -> pb.BatchWriteRelationsResponse:
        """Create or replace relations."""
        with Checks(self._limits) as checks:
            checks.count("relations", len(request.relations), self._limits.rows, required=True)
            for i, relation in enumerate(request.relations):
                check_relation(checks, f"relations[{i}]", relation)
        await self._catalog.write_relations(request.relations)
        return pb.BatchWriteRelationsResponse(written_count=len(request.relations))

    async def ListRelations(
        self, request: pb.ListRelationsRequest, context: Context
    ) -> pb.ListRelationsResponse:
        """List a user's relations."""
        with Checks() as checks:
            checks.identifier("user_id", request.user_id)
        size, listing = page_size(request.page_size), f"relations of {request.user_id}"
        after = read_token(listing, request.page_token)
        relations = self._catalog.list_relations(request.user_id, after, size)
        more = write_token(listing, relations[-1].other_user_id) if len(relations) == size else ""
        return pb.ListRelationsResponse(relations=relations, next_page_token=more)


def _within_bytes(items: list[pb.Item]) -> list[pb.Item]:
    """The first items that fit into a page, at least one of them."""
    ends = itertools.accumulate(item.ByteSize() for item in items)
    fitting = sum(1 for _ in itertools.takewhile(lambda end: end <= PAGE_BYTES, ends))
    return items[: max(fitting, 1)]
