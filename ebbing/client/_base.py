"""What the sync and the async client have in common."""

from __future__ import annotations

import copy
import json
import math
import random
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from google.protobuf.message import Message

from ebbing.client._calls import Call
from ebbing.client._policy import Attempts, ClientOptions, RetryBudget

__all__ = ["CURSOR_METADATA", "ClientBase", "Sources", "channel_options"]

CURSOR_METADATA = "ebbing-cursor"
"""Initial metadata of a resumable stream: the cursor it begins at."""


@dataclass(frozen=True)
class Sources:
    """Where a client takes what differs from run to run."""

    new_event_id: Callable[[], str] = lambda: str(uuid.uuid4())
    """Makes the idempotency key of an event that brings none."""
    clock: Callable[[], float] = time.time
    """Seconds since the epoch: the time of an event that brings none."""
    monotonic: Callable[[], float] = time.monotonic
    """Seconds that never go back, for deadlines."""
    random: Callable[[], float] = random.random
    """Evenly from [0, 1), for the jitter of retries."""


class ClientBase:
    """Options, sources and the retry budget of a client."""

    def __init__(self, options: ClientOptions, sources: Sources) -> None:
        self.options = options
        self.sources = sources
        self._budget = RetryBudget(options)

    def with_options(self, **changes: Any) -> Self:
        """This client with some ``ClientOptions`` changed; channel and retry budget stay shared.

        ``client.with_options(deadline_s=0.1).recommend("ada")``
        """
        other = copy.copy(self)
        other.options = replace(self.options, **changes)
        return other

    def _attempts(self, call: Call[Any]) -> Attempts:
        options = self.options
        return self._attempts_within(options.batch_deadline_s if call.batch else options.deadline_s)

    def _attempts_within(self, deadline_s: float) -> Attempts:
        sources = self.sources
        return Attempts(self.options, self._budget, deadline_s, sources.monotonic, sources.random)

    def _begin(self, rpc: Any, request: Message, attempts: Attempts, wait_for_ready: bool) -> Any:
        """Start one attempt at a stream."""
        time_left = attempts.time_left
        return rpc(
            request,
            timeout=time_left if math.isfinite(time_left) else None,
            metadata=self.options.metadata,
            wait_for_ready=wait_for_ready,
        )


# A gateway that is about to stop says so through its health before it refuses calls, and only
# round robin watches health: with several gateways behind the target, none of its calls is lost.
_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": ""},
}


def channel_options() -> Sequence[tuple[str, Any]]:
    """Options of the channel."""
    return [
        # gRPC waits a second before it dials again; a gateway that restarts is back sooner.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 5000),
        ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
        # How large an answer may be is the gateway's to say, not a default of 4 MiB here.
        ("grpc.max_receive_message_length", -1),
    ]
