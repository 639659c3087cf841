"""A watch goes on by itself, from where it was, when its gateway went away."""

# ruff: noqa: N802 (the contract names the methods)

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from ebbing.client import AsyncClient, Client, ClientOptions, EbbingError
from ebbing.v1 import interest_service_pb2 as pb
from ebbing.v1.interest_service_pb2_grpc import (
    InterestServiceServicer,
    add_InterestServiceServicer_to_server,
)


@dataclass
class Watched(InterestServiceServicer):
    """A log of transitions; each stream ends after so many of them, with a status."""

    ends: list[tuple[int, grpc.StatusCode]] = field(default_factory=list)
    cursors: list[str] = field(default_factory=list)
    users: list[list[str]] = field(default_factory=list)
    begins_at: str = "5"
    target: str = ""

    def WatchForgetting(self, request: Any, context: Any) -> Iterator[pb.WatchForgettingResponse]:
        self.cursors.append(request.cursor)
        self.users.append(list(request.user_ids))
        start = request.cursor or self.begins_at
        context.send_initial_metadata((("ebbing-cursor", start),))
        count, code = self.ends.pop(0) if self.ends else (1, grpc.StatusCode.OK)
        for number in range(int(start) + 1, int(start) + 1 + count):
            yield pb.WatchForgettingResponse(cursor=str(number))
        if code is not grpc.StatusCode.OK:
            # grpc.aio may miss what a stream began with if its end comes in the same breath.
            time.sleep(0.05)
            context.abort(code, "as the test wishes")


@pytest.fixture
def watched() -> Iterator[Watched]:
    servicer = Watched()
    server = grpc.server(ThreadPoolExecutor(4))
    add_InterestServiceServicer_to_server(servicer, server)
    servicer.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield servicer
    server.stop(0).wait()


Read = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def read(request: pytest.FixtureRequest, watched: Watched, clock: Any, sources: Any) -> Read:
    """Reads the cursors of a whole watch with either client."""

    async def read_it(cursor: str = "", **options: Any) -> list[str]:
        given = ClientOptions(**options)
        if request.param == "sync":
            with Client(
                watched.target, options=given, sources=sources, sleep=clock.sleep
            ) as client:
                return [a.cursor for a in client.watch_forgetting(cursor, user_ids=["ada"])]
        async with AsyncClient(
            watched.target, options=given, sources=sources, sleep=clock.sleep_async
        ) as client:
            return [a.cursor async for a in client.watch_forgetting(cursor, user_ids=["ada"])]

    return read_it


UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


async def test_it_goes_on_after_the_last_answer(watched: Watched, read: Read) -> None:
    watched.ends = [(3, UNAVAILABLE), (2, UNAVAILABLE)]
    assert await read("5") == ["6", "7", "8", "9", "10", "11"]
    assert watched.cursors == ["5", "8", "10"]
    assert watched.users == [["ada"]] * 3


async def test_it_goes_on_from_where_it_began_if_nothing_had_come(
    watched: Watched, read: Read
) -> None:
    watched.ends = [(0, UNAVAILABLE)]
    assert await read() == ["6"]
    assert watched.cursors == ["", "5"]


async def test_streams_that_go_through_do_not_count_as_attempts(
    watched: Watched, read: Read
) -> None:
    watched.ends = [(0, UNAVAILABLE)] * 10
    assert await read(max_attempts=3) == ["6"]


async def test_other_failures_are_told(watched: Watched, read: Read) -> None:
    watched.ends = [(1, UNAVAILABLE), (1, grpc.StatusCode.OUT_OF_RANGE)]
    with pytest.raises(EbbingError) as error:
        await read("5")
    assert error.value.code is grpc.StatusCode.OUT_OF_RANGE
    assert watched.cursors == ["5", "6"]


async def test_whoever_tries_once_is_told(watched: Watched, read: Read) -> None:
    watched.ends = [(1, UNAVAILABLE)]
    with pytest.raises(EbbingError) as error:
        await read("5", max_attempts=1)
    assert error.value.code is UNAVAILABLE


async def test_nobody_there_at_first_is_told(read: Read, watched: Watched) -> None:
    watched.target = "127.0.0.1:1"
    with pytest.raises(EbbingError) as error:
        await read(max_attempts=1)
    assert error.value.code is UNAVAILABLE
