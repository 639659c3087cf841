"""Playing the internal service that brings a catalogue and a log to the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from ebbing.client import AsyncClient, Client, catalog_item, user_event
from ebbing.demo.log import Log
from ebbing.v1.user_event_pb2 import UserEvent
from ebbing.v1.user_event_service_pb2 import BatchWriteUserEventsResponse

__all__ = ["write_catalogue", "write_log"]

BATCH = 1000
IN_FLIGHT = 4


def write_catalogue(client: Client, log: Log) -> int:
    """Write every item; the number written."""
    return client.write_items(catalog_item(item, paths) for item, paths in log.interests.items())


def write_log(
    target: str, log: Log, advance: Callable[[int], None]
) -> list[BatchWriteUserEventsResponse]:
    """Write every event, several batches in flight; what became of each batch, in no order.

    Args:
        target: address of the gateway.
        log: what to write.
        advance: told the number of events of each batch that is durable.
    """
    return asyncio.run(_write_log(target, _batches(log), advance))


async def _write_log(
    target: str, batches: Iterator[list[UserEvent]], advance: Callable[[int], None]
) -> list[BatchWriteUserEventsResponse]:
    answers = []

    async def write(client: AsyncClient) -> None:
        # All writers draw from one iterator, so a slow batch holds up no other.
        for batch in batches:
            answers.append(await client.write_events(batch))
            advance(len(batch))

    async with AsyncClient(target) as client:
        await asyncio.gather(*(write(client) for _ in range(IN_FLIGHT)))
    return answers


def _batches(log: Log) -> Iterator[list[UserEvent]]:
    for start in range(0, len(log.events), BATCH):
        yield [
            user_event(
                event.user_id,
                event.event_type,
                event.time,
                item_id=event.item_id,
                # The byte order of ids is the order among equal times: that of the file.
                event_id=f"log-{start + place:012d}",
            )
            for place, event in enumerate(log.events[start : start + BATCH])
        ]
