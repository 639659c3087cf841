"""Page sizes and tokens. A token says where to go on and for which request it was made."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json

from server.errors import FieldViolation, InvalidFields

__all__ = ["page_size", "read_token", "write_token"]

DEFAULT_PAGE = 100
MAX_PAGE = 1000


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
    text = json.dumps([_fingerprint(request), position], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode()


def read_token(request: str, token: str) -> str:
    """The position a token holds; empty for the first page.

    Raises:
        InvalidFields: no token of this service, or one of another request.
    """
    if not token:
        return ""
    try:
        fingerprint, position = json.loads(base64.urlsafe_b64decode(token.encode()))
        if fingerprint == _fingerprint(request) and isinstance(position, str):
            return position
    except (binascii.Error, ValueError, TypeError, RecursionError):
        pass
    raise InvalidFields(
        [FieldViolation("page_token", "is not of this request: begin again without it")]
    )


def _fingerprint(request: str) -> str:
    return hashlib.blake2b(request.encode(), digest_size=6).hexdigest()
