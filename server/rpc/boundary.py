"""The one place where failures become statuses; also measures every RPC.

grpc.aio sends the text of an uncaught exception to the client. Here every handler is wrapped, so
that a client sees the statuses of ``server.errors`` and nothing else; what was unforeseen stands
in the log, under an id that the client is given.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError

from server.errors import EbbingError, InternalError, MalformedMessage, to_status
from server.metrics import Metrics

__all__ = ["Boundary"]

log = structlog.get_logger()


class Boundary(grpc.aio.ServerInterceptor):
    """Wraps every handler of Ebbing's services."""

    def __init__(
        self, metrics: Metrics, clock: Callable[[], float], new_id: Callable[[], str]
    ) -> None:
        """Set up; ``clock`` gives monotonic seconds, ``new_id`` an id for the log."""
        self._metrics = metrics
        self._clock = clock
        self._new_id = new_id

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap the handler of one method."""
        handler = await continuation(handler_call_details)
        _, service, method = str(handler_call_details.method).split("/")
        # Health and reflection come from grpc's own packages and report in their own way.
        if handler is None or not service.startswith("ebbing."):
            return handler

        # grpc types these as the handlers of its threaded server.
        unary_unary: Any = handler.unary_unary
        unary_stream: Any = handler.unary_stream
        stream_stream: Any = handler.stream_stream
        parse: Any = handler.request_deserializer

        def decode(request: bytes) -> Any:
            try:
                return parse(request)
            except DecodeError:
                raise MalformedMessage(
                    "the request is no message of this method: make the stubs from this contract"
                ) from None

        async def decoded(requests: AsyncIterator[bytes]) -> AsyncIterator[Any]:
            async for request in requests:
                yield decode(request)

        async def one(request: bytes, context: Any) -> Any:
            async with self._measured(service, method, context):
                return await unary_unary(decode(request), context)

        async def many(request: bytes, context: Any) -> AsyncIterator[Any]:
            async with self._measured(service, method, context):
                async for response in unary_stream(decode(request), context):
                    yield response

        async def stream(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[Any]:
            async with self._measured(service, method, context):
                async for response in stream_stream(decoded(requests), context):
                    yield response

        # grpc would decode before the handler, out of reach of what makes statuses here.
        serializers = (None, handler.response_serializer)
        if unary_unary:
            return grpc.unary_unary_rpc_method_handler(one, *serializers)
        if unary_stream:
            return grpc.unary_stream_rpc_method_handler(many, *serializers)
        return grpc.stream_stream_rpc_method_handler(stream, *serializers)

    @asynccontextmanager
    async def _measured(self, service: str, method: str, context: Any) -> AsyncIterator[None]:
        started = self._clock()
        self._metrics.rpc_started.labels(service, method).inc()
        code = grpc.StatusCode.OK
        try:
            yield
        except EbbingError as error:
            code = error.code
            await self._abort(context, error)
        except (asyncio.CancelledError, GeneratorExit):
            code = grpc.StatusCode.CANCELLED
            raise
        except Exception:
            code = grpc.StatusCode.INTERNAL
            error_id = self._new_id()
            log.exception("unforeseen failure", method=method, error_id=error_id)
            await self._abort(
                context,
                InternalError(
                    f"internal error; tell the operators its id, {error_id}",
                    {"error_id": error_id},
                ),
            )
        finally:
            self._metrics.rpc_handled.labels(service, method, code.name).inc()
            self._metrics.rpc_seconds.labels(service, method).observe(self._clock() - started)

    @staticmethod
    async def _abort(context: Any, error: EbbingError) -> None:
        details = ("grpc-status-details-bin", to_status(error).SerializeToString())
        await context.abort(error.code, error.message, trailing_metadata=(details,))
