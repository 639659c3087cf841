"""Typed clients of the gateway, for internal services.

``Client`` is for threads, ``AsyncClient`` for asyncio; they have the same methods. Both bring
deadlines, retries within a budget, idempotency keys and one error type by default::

    with Client("gateway:50051") as ebbing:
        ebbing.write_event("ada", "view", item_id="football-01-part-1")
        for item in ebbing.recommend("ada").items:
            print(item.item_id, item.relevance)
"""

from ebbing.client._aio import AsyncClient
from ebbing.client._base import Sources
from ebbing.client._errors import EbbingError, FieldViolation
from ebbing.client._messages import catalog_item, to_duration, to_timestamp, user_event
from ebbing.client._policy import ClientOptions
from ebbing.client._stubs import AsyncStubs, Stubs
from ebbing.client._sync import Client

__all__ = [
    "AsyncClient",
    "AsyncStubs",
    "Client",
    "ClientOptions",
    "EbbingError",
    "FieldViolation",
    "Sources",
    "Stubs",
    "catalog_item",
    "to_duration",
    "to_timestamp",
    "user_event",
]
