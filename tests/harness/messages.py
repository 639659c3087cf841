"""Messages compared but for the last digits of their numbers."""

from __future__ import annotations

from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

__all__ = ["rounded"]


def rounded(message: Message, digits: int = 9) -> Any:
    """A message as plain data, its numbers to so many significant digits.

    Sums over the same events differ in their last bits by the order in which they were added.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, float):
            return float(f"{value:.{digits}g}")
        if isinstance(value, dict):
            return {name: plain(one) for name, one in value.items()}
        if isinstance(value, list):
            return [plain(one) for one in value]
        return value

    return plain(MessageToDict(message))
