"""Pages of the catalogue stay within what a client can take."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ebbing.v1 import catalog_service_pb2 as pb
from server.errors import InvalidFields
from server.limits import Limits
from server.rpc.catalog import PAGE_BYTES, CatalogServicer


def large(number: int) -> pb.Item:
    vector = pb.ContentVector(values=[0.5] * 4096)
    return pb.Item(item_id=f"i{number:03d}", content={f"m{i}": vector for i in range(8)})


ITEMS = [large(number) for number in range(50)]


def listed(after: str, limit: int) -> list[pb.Item]:
    return [item for item in ITEMS if item.item_id > after][:limit]


async def test_pages_of_large_items_end_early_and_miss_none() -> None:
    servicer = CatalogServicer(SimpleNamespace(list_items=listed), Limits())
    seen, token, pages = [], "", 0
    while pages == 0 or token:
        request = pb.ListItemsRequest(page_size=1000, page_token=token)
        page = await servicer.ListItems(request, None)
        assert page.ByteSize() < PAGE_BYTES + 200_000
        seen += [item.item_id for item in page.items]
        token = page.next_page_token
        pages += 1
    assert seen == [item.item_id for item in ITEMS]
    assert pages == 4


async def test_an_item_larger_than_a_page_is_a_page() -> None:
    huge = pb.Item(item_id="huge", title="x" * (PAGE_BYTES + 1))
    catalog = SimpleNamespace(list_items=lambda after, limit: [huge, *ITEMS])
    servicer = CatalogServicer(catalog, Limits())
    page = await servicer.ListItems(pb.ListItemsRequest(), None)
    assert [item.item_id for item in page.items] == ["huge"]
    assert page.next_page_token


async def test_a_gateway_may_take_less_than_the_contract_allows() -> None:
    nothing = SimpleNamespace()
    servicer = CatalogServicer(nothing, Limits(id_bytes=4, path_bytes=8, interests=1, rows=2))
    items = [
        pb.Item(item_id="five5"),
        pb.Item(item_id="i", interests=[{"interest": "a"}, {"interest": "b"}]),
        pb.Item(item_id="j", interests=[{"interest": "much/too/long"}]),
    ]
    with pytest.raises(InvalidFields) as error:
        await servicer.BatchWriteItems(pb.BatchWriteItemsRequest(items=items), None)
    assert {v.field: v.description for v in error.value.violations} == {
        "items": "has 3 elements, at most 2 are allowed",
        "items[0].item_id": "has 5 bytes, at most 4 are allowed",
        "items[1].interests": "has 2 elements, at most 1 are allowed",
        "items[2].interests[0].interest": "has 13 bytes, at most 8 are allowed",
    }
