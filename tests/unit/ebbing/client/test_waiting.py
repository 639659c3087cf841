"""A client may come before its gateway."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from ebbing.client import AsyncClient, Client, ClientOptions, EbbingError
from ebbing.v1.recommendation_service_pb2_grpc import add_RecommendationServiceServicer_to_server
from tests.unit.ebbing.client.conftest import FakeGateway

EARLY = ClientOptions(deadline_s=60.0, max_attempts=1, wait_for_ready=True)
HASTY = ClientOptions(deadline_s=60.0, max_attempts=1)


class LateGateway:
    """A gateway that is not there until it is started."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.target = f"127.0.0.1:{probe.getsockname()[1]}"
        self.server = grpc.server(ThreadPoolExecutor(2))
        add_RecommendationServiceServicer_to_server(FakeGateway(), self.server)

    def start(self) -> None:
        self.server.add_insecure_port(self.target)
        self.server.start()


@pytest.fixture
def late() -> Iterator[LateGateway]:
    gateway = LateGateway()
    yield gateway
    gateway.server.stop(0).wait()


def test_a_call_waits_for_the_gateway_if_told_to(late):
    with Client(late.target, options=EARLY) as client, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.recommend, "ada")
        late.start()
        assert answer.result().user_id == "ada"


async def test_an_async_call_waits_as_well(late):
    async with AsyncClient(late.target, options=EARLY) as client:
        answer = asyncio.create_task(client.recommend("ada"))
        await asyncio.sleep(0)
        late.start()
        assert (await answer).user_id == "ada"


def test_a_call_fails_at_once_otherwise(late):
    with Client(late.target, options=HASTY) as client, pytest.raises(EbbingError) as error:
        client.recommend("ada")
    assert error.value.code is grpc.StatusCode.UNAVAILABLE
