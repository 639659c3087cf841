"""Pseudonyms: users are stored under a keyed hash of their ids."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterable
from hashlib import blake2b

from server.state.keys import Key
from server.state.vault import Vault

__all__ = ["PseudonymousVault"]

_CHARACTERS = 22
"""Of base64, six bits each: 132 bits, so that two of a billion users meet with 1 in 10²²."""


class PseudonymousVault:
    """Names users by ``v<version>.`` and a part of HMAC-SHA256 of their ids; seals as another does.

    Without the key, nothing tells whose name it is, and nobody can try ids out.
    """

    def __init__(self, sealing: Vault, key: Key) -> None:
        """Set up.

        Args:
            sealing: the vault that seals.
            key: the key of the pseudonyms; another one makes other names, hence another store.
        """
        self._sealing = sealing
        self._key = key.secret
        self._prefix = f"v{key.version}."
        # A hash of another kind than that of the names, so that it is the name of nobody.
        check = blake2b(key=key.secret, digest_size=8).hexdigest()
        self.fingerprint = f"{sealing.fingerprint} names:v{key.version}:{check}"

    def owner_of(self, user_id: str) -> str:
        """The pseudonym."""
        digest = hmac.digest(self._key, user_id.encode(), "sha256")
        return self._prefix + base64.urlsafe_b64encode(digest)[:_CHARACTERS].decode()

    def prepare(self, owners: Iterable[str]) -> None:
        """As the vault that seals does."""
        self._sealing.prepare(owners)

    def seal(self, owner: str, purpose: str, data: bytes) -> bytes:
        """As the vault that seals does."""
        return self._sealing.seal(owner, purpose, data)

    def open(self, owner: str, purpose: str, data: bytes) -> bytes:
        """As the vault that seals does."""
        return self._sealing.open(owner, purpose, data)

    def digest(self, owner: str, data: bytes) -> bytes:
        """As the vault that seals does."""
        return self._sealing.digest(owner, data)

    def erase(self, *owners: str) -> None:
        """As the vault that seals does."""
        self._sealing.erase(*owners)

    def close(self) -> None:
        """Give everything back; the vault is not used again."""
        self._sealing.close()
