"""How long a call may take, and when it is tried again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import grpc

from ebbing.client._errors import EbbingError

__all__ = ["Attempts", "ClientOptions", "RetryBudget"]


@dataclass(frozen=True)
class ClientOptions:
    """Deadlines and retries of a client."""

    deadline_s: float = 5.0
    """Longest time a call may take with all its attempts, seconds."""
    batch_deadline_s: float = 30.0
    """The same for calls that write, score or recommend many at once."""
    stream_deadline_s: float | None = None
    """Longest time a stream may last, seconds; None: until it ends or is closed."""
    max_attempts: int = 5
    """Attempts of a call, the first included; 1 never tries again."""
    initial_backoff_s: float = 0.1
    """Longest wait before the second attempt, seconds; it doubles with each further one. The wait
    itself is drawn evenly from zero to this, after the delay the gateway asked for, if it did."""
    max_backoff_s: float = 2.0
    """Where doubling stops, seconds."""
    retry_budget: float = 20.0
    """Retries a client has in hand. Each costs 1, so a gateway that is down is not flooded."""
    retry_refund: float = 0.1
    """What each success gives back to the budget: at length, one retry in ten calls."""
    wait_for_ready: bool = False
    """Whether a call waits for a connection until its deadline instead of failing at once: for a
    service that may start before the gateway does."""
    metadata: tuple[tuple[str, str], ...] = ()
    """Sent with every call, such as ``("authorization", "Bearer ...")``."""

    def __post_init__(self) -> None:
        if self.deadline_s <= 0 or self.batch_deadline_s <= 0:
            raise ValueError("deadlines must be above 0 seconds")
        if self.stream_deadline_s is not None and self.stream_deadline_s <= 0:
            raise ValueError("stream_deadline_s must be above 0 seconds, or None for no deadline")
        if self.max_attempts < 1 or self.initial_backoff_s < 0 or self.retry_refund < 0:
            raise ValueError("max_attempts starts at 1; backoff and refund may not be negative")
        if self.max_backoff_s < self.initial_backoff_s:
            raise ValueError("max_backoff_s may not be below initial_backoff_s")


class RetryBudget:
    """A bucket of retries that successes refill; shared by the calls and threads of a client."""

    def __init__(self, options: ClientOptions) -> None:
        self._capacity = options.retry_budget
        self._refund = options.retry_refund
        self._tokens = options.retry_budget
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Pay for one retry; False where nothing is left."""
        with self._lock:
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True

    def refund(self) -> None:
        """Note a success."""
        with self._lock:
            self._tokens = min(self._tokens + self._refund, self._capacity)


class Attempts:
    """The attempts of one call, or of a stream since it last went through."""

    def __init__(
        self,
        options: ClientOptions,
        budget: RetryBudget,
        deadline_s: float,
        monotonic: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._options = options
        self._budget = budget
        self._monotonic = monotonic
        self._random = random
        self._end = monotonic() + deadline_s
        self._failures = 0

    @property
    def time_left(self) -> float:
        """Seconds until the call's deadline: the timeout of the next attempt."""
        return max(self._end - self._monotonic(), 0.0)

    def succeeded(self) -> None:
        """Note that the call went through."""
        self._failures = 0
        self._budget.refund()

    def pause(self, error: EbbingError) -> float | None:
        """Seconds to wait before the next attempt, or None if there is to be none.

        Only UNAVAILABLE is tried again: it says that another attempt may find things better. That
        holds for writes too, as events carry idempotency keys and all else is replaced whole.
        """
        options = self._options
        self._failures += 1
        if error.code is not grpc.StatusCode.UNAVAILABLE or self._failures >= options.max_attempts:
            return None
        longest = min(
            options.initial_backoff_s * 2.0 ** (self._failures - 1), options.max_backoff_s
        )
        wait = (error.retry_delay_s or 0.0) + self._random() * longest
        if wait >= self.time_left or not self._budget.take():
            return None
        return wait
