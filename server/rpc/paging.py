"""Page sizes and tokens. A token says where to go on and for which request it was made."""

from __future__ import annotations

import base64
import binascii
import hashlib

from server.errors import FieldViolation, InvalidFields

__all__ = ["page_size", "read_number", "read_numbers", "read_token", "write_token"]

DEFAULT_PAGE = 100
MAX_PAGE = 1000
MAX_TOKEN = 1024
MAX_NUMBER = 10**17
"""More than any position: as a time in microseconds it lies in the year 5138."""


def page_size(asked: int, default: int = DEFAULT_PAGE, limit: int = MAX_PAGE) -> int:
    """The size of a page; 0 asks for the default.

    Raises:
        InvalidFields: it is negative or above the limit.
    """
    if not 0 <= asked <= limit:
        raise InvalidFields([FieldViolation("page_size", f"must be from 1 to {limit}, or 0")])
    return asked or default


def write_token(request: str, position: str) -> str:
    """The token of the page that starts after ``position`` in the answers to ``request``."""
    return base64.urlsafe_b64encode(f"{_fingerprint(request)}{position}".encode()).decode()


def read_token(request: str, token: str) -> str:
    """The position a token holds; empty for the first page.

    Raises:
        InvalidFields: no token of this service, or one of another request.
    """
    if not token:
        return ""
    position = _position(request, token) if len(token) <= MAX_TOKEN else None
    if position is None:
        raise _foreign()
    return position


def read_number(request: str, token: str, first: int) -> int:
    """The position a token holds as a number; ``first`` for the first page.

    Raises:
        InvalidFields: as for ``read_token``.
    """
    numbers = read_numbers(request, token, 1)
    return numbers[0] if numbers else first


def read_numbers(request: str, token: str, count: int) -> tuple[int, ...]:
    """The position a token holds as so many numbers from 0 to 10^17; none for the first page.

    Raises:
        InvalidFields: as for ``read_token``.
    """
    position = read_token(request, token)
    if not position:
        return ()
    words = position.split(" ")
    if len(words) != count or not all(w.isascii() and w.isdecimal() for w in words):
        raise _foreign()
    numbers = tuple(map(int, words))
    if max(numbers) > MAX_NUMBER:
        raise _foreign()
    return numbers


def _position(request: str, token: str) -> str | None:
    try:
        text = base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    fingerprint = _fingerprint(request)
    return text.removeprefix(fingerprint) if text.startswith(fingerprint) else None


def _foreign() -> InvalidFields:
    return InvalidFields(
        [FieldViolation("page_token", "is not of this request: begin again without it")]
    )


def _fingerprint(request: str) -> str:
    return hashlib.blake2b(request.encode(), digest_size=6).hexdigest()
