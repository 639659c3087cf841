"""What can go wrong between the gateway and Triton.

The message of each error is written by Ebbing and may be shown to people; what Triton or the
operating system said is kept apart in `detail`, which belongs in logs only.
"""

from __future__ import annotations

from typing import ClassVar


class InferenceError(Exception):
    """Any failure of the inference side.

    Attributes:
        detail: the words of Triton, gRPC or the operating system; empty where there are none.
        outcome: the value of the `outcome` label under which metrics count this error.
    """

    outcome: ClassVar[str] = "failed"

    def __init__(self, message: str, *, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


class TritonUnavailable(InferenceError):
    """Triton cannot be reached, is shutting down, or does not hold the model ready."""

    outcome = "unavailable"


class TritonStartError(InferenceError):
    """The embedded Triton cannot be started; the message names the remedy."""


class ModelLoadError(InferenceError):
    """A model cannot be loaded, or its `config.pbtxt` is not what it has to be."""


class InferenceDeadline(InferenceError):
    """The answer did not come before the deadline."""

    outcome = "deadline"


class InferenceFailed(InferenceError):
    """Triton was reached and refused the request or failed on it."""


class BreakerOpen(InferenceError):
    """The model failed many times in a row and is left alone for a moment; nobody was asked."""

    outcome = "breaker_open"


class QueueFull(InferenceError):
    """Too much is waiting already; retrying after a pause helps."""

    outcome = "queue_full"
