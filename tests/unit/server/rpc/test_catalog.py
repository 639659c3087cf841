"""Pages of the catalogue stay within what a client can take."""

from __future__ import annotations

from types import SimpleNamespace

from ebbing.v1 import catalog_service_pb2 as pb
from server.rpc.catalog import PAGE_BYTES, CatalogServicer


def large(number: int) -> pb.Item:
    vector = pb.ContentVector(values=[0.5] * 4096)
    return pb.Item(item_id=f"i{number:03d}", content={f"m{i}": vector for i in range(8)})


ITEMS = [large(number) for number in range(50)]


def listed(after: str, limit: int) -> list[pb.Item]:
    return [item for item in ITEMS if item.item_id > after][:limit]


async def test_pages_of_large_items_end_early_and_miss_none() -> None:
    servicer = CatalogServicer(SimpleNamespace(list_items=listed))
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
    servicer = CatalogServicer(SimpleNamespace(list_items=lambda after, limit: [huge, *ITEMS]))
    page = await servicer.ListItems(pb.ListItemsRequest(), None)
    assert [item.item_id for item in page.items] == ["huge"]
    assert page.next_page_token
