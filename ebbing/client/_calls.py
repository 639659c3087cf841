"""What a call is before it is made: the RPC, its request, and what to make of the answer.

Each RPC is described once (``_data``, ``_insight``) and made by either client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.message import Message

from ebbing.client._stubs import Stubs

__all__ = ["MOST_BYTES", "Call", "Calls", "Pages", "Watch", "batches"]

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)
M = TypeVar("M", bound=Message)
R = TypeVar("R")

MOST_BYTES = 4 * 2**20
"""Bytes of a batch, at most: well below what a gateway takes as one message."""


class Call(Generic[R]):
    """One request, one answer."""

    def __init__(
        self,
        rpc: Callable[[Stubs], grpc.UnaryUnaryMultiCallable[Q, A]],
        request: Q,
        result: Callable[[A], R],
        *,
        batch: bool = False,
    ) -> None:
        self.rpc: Callable[[Stubs], grpc.UnaryUnaryMultiCallable[Any, Any]] = rpc
        self.request: Message = request
        self.result: Callable[[Any], R] = result
        self.batch = batch


class Calls(Generic[R]):
    """Requests made one after another because one could not hold it all; one result."""

    def __init__(self, calls: Iterable[Call[A]], result: Callable[[list[A]], R]) -> None:
        self.calls: Iterable[Call[Any]] = calls
        self.result: Callable[[list[Any]], R] = result


class Pages(Generic[R]):
    """A list that comes page by page: a request and an answer with page tokens."""

    def __init__(
        self,
        rpc: Callable[[Stubs], grpc.UnaryUnaryMultiCallable[Q, A]],
        request: Q,
        rows: Callable[[A], Sequence[R]],
    ) -> None:
        self._rpc: Callable[[Stubs], grpc.UnaryUnaryMultiCallable[Any, Any]] = rpc
        self._request: Message = request
        self.rows: Callable[[Any], Sequence[R]] = rows

    def page(self, token: str) -> Call[Any]:
        """The call for the page that starts at a token; the empty one is the first."""
        request = type(self._request)()
        request.CopyFrom(self._request)
        # Every List request of the contract has this field, which no type says.
        request.page_token = token  # type: ignore[attr-defined]
        return Call(self._rpc, request, lambda answer: answer)


class Watch(Generic[R]):
    """One request, answers as they come; ``resumable`` where both have a cursor to go on from."""

    def __init__(
        self,
        rpc: Callable[[Stubs], grpc.UnaryStreamMultiCallable[Q, A]],
        request: Q,
        result: Callable[[A], R],
        *,
        resumable: bool = False,
    ) -> None:
        self.rpc: Callable[[Stubs], grpc.UnaryStreamMultiCallable[Any, Any]] = rpc
        self.request: Message = request
        self.result: Callable[[Any], R] = result
        self.resumable = resumable

    def following(self, cursor: str) -> Message:
        """The request for what follows a cursor; the first one, where there is none yet."""
        request = type(self.request)()
        request.CopyFrom(self.request)
        if cursor:
            request.cursor = cursor  # type: ignore[attr-defined]
        return request


def batches(messages: Iterable[M], most: int, most_bytes: int) -> Iterator[list[M]]:
    """Messages in lists of at most so many and so many bytes; one too large comes alone."""
    batch: list[M] = []
    size = 0
    for message in messages:
        # Beside the message a repeated field carries a tag and a length.
        message_size = message.ByteSize() + 6
        if batch and (len(batch) == most or size + message_size > most_bytes):
            yield batch
            batch, size = [], 0
        batch.append(message)
        size += message_size
    if batch:
        yield batch
