"""Data keys in use: made, wrapped by a master key, and unwrapped for as long as they exist."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from server.errors import StoreUnavailable, UserErased
from server.state.keyring import Keyring, WrappedKey
from server.state.keys import KEY_BYTES, Key

__all__ = ["NONCE_BYTES", "DataKey", "DataKeys", "MasterKeys"]

NONCE_BYTES = 12
"""Random ones of 96 bits are safe for 2³² values a key (NIST SP 800-38D, section 8.3)."""
CACHED_KEYS = 8192
"""Some 2.5 KB each, unwrapped."""
FRESH_S = 1.0


class MasterKeys:
    """Wraps data keys with one master key and unwraps those of any."""

    def __init__(self, keys: Sequence[Key], random: Callable[[int], bytes]) -> None:
        """Set up.

        Args:
            keys: the master keys; the first one wraps.
            random: so many random bytes.
        """
        self.wraps_with = keys[0].version
        self._ciphers = {key.version: AESGCM(key.secret) for key in keys}
        self._random = random

    def wrap(self, owner: str, data_key: bytes) -> WrappedKey:
        """A data key as the keyring keeps it; it opens for its owner alone."""
        nonce = self._random(NONCE_BYTES)
        sealed = self._ciphers[self.wraps_with].encrypt(nonce, data_key, _context(owner))
        return WrappedKey(owner, self.wraps_with, nonce + sealed)

    def unwrap(self, key: WrappedKey) -> bytes:
        """The data key of ``wrap``.

        Raises:
            StoreUnavailable: its master key is not here, or another one of that version, or it is
                damaged.
        """
        cipher = self._ciphers.get(key.master)
        if cipher is None:
            raise StoreUnavailable(
                f"data keys are wrapped by master key v{key.master}, which is not given: add its"
                " line to the master key file"
            )
        nonce, sealed = key.wrapped[:NONCE_BYTES], key.wrapped[NONCE_BYTES:]
        try:
            return cipher.decrypt(nonce, sealed, _context(key.owner))
        except (InvalidTag, ValueError) as error:
            raise StoreUnavailable(
                f"a data key does not open with master key v{key.master}: give the one it was"
                " wrapped by, or restore the keyring from its backup"
            ) from error


class DataKey(NamedTuple):
    """What is done with an unwrapped data key."""

    cipher: AESGCM
    digest_key: bytes
    """For keyed digests; derived from the data key, and gone with it."""

    @classmethod
    def of(cls, secret: bytes) -> DataKey:
        """What is done with a key of 32 bytes."""
        return cls(AESGCM(secret), blake2b(key=secret, person=b"digests").digest())


class DataKeys:
    """The data keys of owners, unwrapped ones cached.

    A key that another process removed is used for ``fresh_s`` more at most. Calls come from any
    thread.
    """

    def __init__(
        self,
        keyring: Keyring,
        masters: MasterKeys,
        random: Callable[[int], bytes],
        monotonic: Callable[[], float],
        cached: int = CACHED_KEYS,
        fresh_s: float = FRESH_S,
    ) -> None:
        """Set up, once it is sure that the master keys are those of the keyring.

        Args:
            keyring: keeps the keys; closed with this.
            masters: wrap and unwrap them.
            random: so many random bytes.
            monotonic: seconds since any moment; never goes back.
            cached: unwrapped keys kept at most.
            fresh_s: for how long the cache is trusted before the keyring is asked for erasures,
                seconds; 0 asks each time.

        Raises:
            StoreUnavailable: a key in use does not open with the master keys given.
        """
        self.identity = keyring.identity
        self._keyring = keyring
        self._masters = masters
        self._random = random
        self._monotonic = monotonic
        self._cached = cached
        self._fresh_s = fresh_s
        self._lock = threading.Lock()
        self._cache: OrderedDict[str, DataKey] = OrderedDict()
        self._erasures = keyring.erasures()
        self._checked_s = monotonic()
        self._clearings = 0
        for key in keyring.masters():
            masters.unwrap(key)

    def of(self, owner: str) -> DataKey:
        """The data key of an owner.

        Raises:
            UserErased: there is no such key.
            StoreUnavailable: it cannot be read or unwrapped.
        """
        if self._monotonic() - self._checked_s >= self._fresh_s:
            self.refresh()
        with self._lock:
            cached = self._cache.get(owner)
            if cached is not None:
                self._cache.move_to_end(owner)
                return cached
            clearings = self._clearings
        found = self._keyring.find([owner])
        if not found:
            raise UserErased("the user was deleted, and what was stored cannot be read any more")
        return self._keep(found, clearings)[owner]

    def prepare(self, owners: Iterable[str]) -> None:
        """Make the data keys that owners have none of; they are durable when it returns."""
        self.refresh()
        with self._lock:
            wanted = [owner for owner in dict.fromkeys(owners) if owner not in self._cache]
            clearings = self._clearings
        if not wanted:
            return
        found = self._keyring.find(wanted)
        missing = set(wanted).difference(key.owner for key in found)
        if missing:
            # Another process may be as fast: what counts is what the keyring has afterwards.
            made = [self._masters.wrap(owner, self._random(KEY_BYTES)) for owner in missing]
            found += self._keyring.add(made)
        self._keep(found, clearings)

    def erase(self, owners: Sequence[str]) -> None:
        """Remove the data keys of owners for ever; many at once cost little more than one."""
        try:
            self._keyring.remove(owners)
        finally:
            self.refresh()

    def refresh(self) -> None:
        """Forget what is cached if a key was removed since the last look, by any process."""
        now, erasures = self._monotonic(), self._keyring.erasures()
        with self._lock:
            self._checked_s = now
            if erasures != self._erasures:
                self._erasures = erasures
                self._cache.clear()
                self._clearings += 1

    def rewrap(self, limit: int) -> int:
        """Wrap keys of other master keys with the one that wraps, so many at most; how many."""
        old = self._keyring.of_other_masters(self._masters.wraps_with, limit)
        self._keyring.replace(
            [(key, self._masters.wrap(key.owner, self._masters.unwrap(key))) for key in old]
        )
        return len(old)

    def close(self) -> None:
        """Give everything back; the keys are not used again."""
        self._cache.clear()
        self._keyring.close()

    def _keep(self, keys: Iterable[WrappedKey], clearings: int) -> Mapping[str, DataKey]:
        """Unwrap keys and cache them, unless one was removed since they were looked up."""
        unwrapped = {key.owner: DataKey.of(self._masters.unwrap(key)) for key in keys}
        with self._lock:
            if clearings == self._clearings:
                self._cache.update(unwrapped)
                while len(self._cache) > self._cached:
                    self._cache.popitem(last=False)
        return unwrapped


def _context(owner: str) -> bytes:
    return f"data key\0{owner}".encode()
