"""The port of the vault: under which names users are stored, and how values are sealed."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from hashlib import blake2b
from typing import Protocol

from server.errors import StoreUnavailable

__all__ = ["DIGEST_BYTES", "PlainVault", "Vault"]

DIGEST_BYTES = 16
_CRC_BYTES = 4


class Vault(Protocol):
    """Names users in storage and seals what is stored of them.

    A sealed value opens only for the owner and the purpose it was sealed for. Whatever was changed
    of it, it does not open.
    """

    fingerprint: str
    """Tells vaults apart whose stores cannot be read by one another; holds no secret."""

    def owner_of(self, user_id: str) -> str:
        """How a user is named in storage; at most 128 bytes."""
        ...

    def prepare(self, owners: Iterable[str]) -> None:
        """Make sure that values of these owners can be sealed; durable when it returns.

        Raises:
            StoreUnavailable: the keys cannot be written.
        """
        ...

    def seal(self, owner: str, purpose: str, data: bytes) -> bytes:
        """Seal a value of an owner that was prepared."""
        ...

    def open(self, owner: str, purpose: str, data: bytes) -> bytes:
        """The value of ``seal``.

        Raises:
            StoreUnavailable: it is damaged, or was sealed for another owner or purpose.
            UserErased: the owner was erased.
        """
        ...

    def digest(self, owner: str, data: bytes) -> bytes:
        """Tells data of an owner that was prepared apart, in ``DIGEST_BYTES``; shows no more of it.

        Equal for equal data, as long as the owner is not erased in between.

        Raises:
            UserErased: the owner was erased.
        """
        ...

    def erase(self, *owners: str) -> None:
        """Make all sealed values of owners unreadable for ever, wherever copies are."""
        ...

    def close(self) -> None:
        """Give everything back; the vault is not used again."""
        ...


class PlainVault:
    """Names users by their ids and seals values with a checksum alone: detects, hides nothing."""

    fingerprint = "plain"

    def owner_of(self, user_id: str) -> str:
        """The user id."""
        return user_id

    def prepare(self, owners: Iterable[str]) -> None:
        """Nothing is needed."""

    def seal(self, owner: str, purpose: str, data: bytes) -> bytes:
        """The value and a CRC-32 over owner, purpose and value."""
        return data + _checksum(owner, purpose, data)

    def open(self, owner: str, purpose: str, data: bytes) -> bytes:
        """The value of ``seal``.

        Raises:
            StoreUnavailable: it is damaged, or was sealed for another owner or purpose.
        """
        value = data[:-_CRC_BYTES]
        if _checksum(owner, purpose, value) != data[-_CRC_BYTES:]:
            raise StoreUnavailable(
                f"the stored {purpose} of a user is damaged: restore the state from a backup, or"
                " rebuild states with 'ebbing state rebuild'"
            )
        return value

    def digest(self, owner: str, data: bytes) -> bytes:
        """A hash of owner and data, which anybody can compute."""
        return blake2b(data, digest_size=DIGEST_BYTES, key=owner.encode()[:64]).digest()

    def erase(self, *owners: str) -> None:
        """Nothing is to be done: there is no key whose loss would make copies unreadable."""

    def close(self) -> None:
        """Nothing is held."""


def _checksum(owner: str, purpose: str, data: bytes) -> bytes:
    start = zlib.crc32(f"{purpose}\0{owner}\0".encode())
    return zlib.crc32(data, start).to_bytes(_CRC_BYTES, "little")
