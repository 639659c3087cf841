"""The vault that encrypts: a data key for each owner, so that losing the key erases every copy."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable
from hashlib import blake2b

from cryptography.exceptions import InvalidTag

from server.errors import StoreUnavailable, UserErased
from server.state.data_keys import NONCE_BYTES, DataKeys
from server.state.vault import DIGEST_BYTES

__all__ = ["SealedVault"]

_FORMAT = 1
_HEADER = struct.Struct("<BI")
"""Format, and the CRC-32 of owner, purpose and all that follows."""


class SealedVault:
    """``server.state.vault.Vault`` with AES-256-GCM; users are named by their ids.

    Keys live apart from the state, and a write to one is no step of a write to the other. So that
    nothing is ever sealed with a key that is just being removed, ``prepare`` is called within the
    step that writes values of the owner, and ``erase`` within the one that deletes them.
    """

    def __init__(self, keys: DataKeys, random: Callable[[int], bytes]) -> None:
        """Set up.

        Args:
            keys: the data keys; closed with this.
            random: so many random bytes.
        """
        self._keys = keys
        self._random = random
        self.fingerprint = f"sealed:{keys.identity}"

    def owner_of(self, user_id: str) -> str:
        """The user id."""
        return user_id

    def prepare(self, owners: Iterable[str]) -> None:
        """Make the data keys that owners have none of, also where an earlier one was erased.

        Raises:
            StoreUnavailable, StorageFull: the keys cannot be written.
        """
        self._keys.prepare(owners)

    def seal(self, owner: str, purpose: str, data: bytes) -> bytes:
        """Seal a value of an owner that was prepared.

        Raises:
            UserErased: the owner has no key, as none was made or it was erased.
        """
        context, nonce = _context(owner, purpose), self._random(NONCE_BYTES)
        sealed = nonce + self._keys.of(owner).cipher.encrypt(nonce, data, context)
        return _HEADER.pack(_FORMAT, zlib.crc32(sealed, zlib.crc32(context))) + sealed

    def open(self, owner: str, purpose: str, data: bytes) -> bytes:
        """The value of ``seal``.

        Raises:
            StoreUnavailable: it is damaged, or was sealed for another owner or purpose.
            UserErased: the key that it was sealed with is gone.
        """
        context, sealed = _context(owner, purpose), data[_HEADER.size :]
        if data[: _HEADER.size] != _HEADER.pack(_FORMAT, zlib.crc32(sealed, zlib.crc32(context))):
            raise StoreUnavailable(
                f"the stored {purpose} of a user is damaged: restore the state from a backup, or"
                " rebuild states with 'ebbing state rebuild'"
            )
        nonce, hidden = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
        try:
            return self._keys.of(owner).cipher.decrypt(nonce, hidden, context)
        except InvalidTag:
            # Whole, but sealed with another key than the one at hand: the owner was erased and has
            # come back, and either the value or the cached key is of before.
            self._keys.refresh()
        try:
            return self._keys.of(owner).cipher.decrypt(nonce, hidden, context)
        except InvalidTag as error:
            raise UserErased(
                "the user was deleted, and what was stored before cannot be read any more"
            ) from error

    def digest(self, owner: str, data: bytes) -> bytes:
        """Tells data of an owner that was prepared apart, to nobody without the owner's key.

        Raises:
            UserErased: the owner has no key, as none was made or it was erased.
        """
        key = self._keys.of(owner).digest_key
        return blake2b(data, digest_size=DIGEST_BYTES, key=key).digest()

    def erase(self, *owners: str) -> None:
        """Make all sealed values of owners unreadable for ever, wherever copies are.

        Raises:
            StoreUnavailable: it is not sure that the key is gone; erasing again is safe.
        """
        self._keys.erase(owners)

    def close(self) -> None:
        """Give everything back; the vault is not used again."""
        self._keys.close()


def _context(owner: str, purpose: str) -> bytes:
    return f"{purpose}\0{owner}".encode()
