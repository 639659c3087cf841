"""Signatures of releases: Ed25519 keys in PEM files, what they sign, and whose is trusted.

For publishers and gateways only: it needs the package cryptography, which clients do without.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from ebbing.manifest import ManifestError

__all__ = ["SECRET_BYTES", "SigningKey", "SigningKeyError", "TrustedKeys", "new_signing_key"]

SECRET_BYTES = 32
CONTEXT = b"ebbing release manifest\n"
"""What is signed begins with this, so that no signature of anything else is one of a release."""

_SIGNATURE = re.compile(r"ed25519 ([0-9a-f]{16}) ([0-9a-f]{128})\n")
_PUBLIC = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)
_TOO_OPEN = stat.S_IRWXO | stat.S_IWGRP
_WRITABLE = stat.S_IWOTH | stat.S_IWGRP


class SigningKeyError(Exception):
    """A file of keys cannot be used; the message says why and what to do, and nothing of a key."""


class SigningKey:
    """The private key a publisher signs with."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        """Set up; `read` makes one from a file."""
        self._key = key
        self.name = _name(key.public_key())

    @classmethod
    def read(cls, path: Path) -> SigningKey:
        """The key in a file.

        Raises:
            SigningKeyError: it is missing, open to others, or no Ed25519 private key.
        """
        content = _content(
            path,
            _TOO_OPEN,
            f"holds a private key and others may read or change it: chmod 600 {path}",
            f"make it with 'ebbing keys signing --out {path}', or restore it",
        )
        try:
            key = load_pem_private_key(content, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise SigningKeyError(
                f"{path} is no private key without a password, in PEM: name the file that "
                "'ebbing keys signing' wrote, without .pub"
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise SigningKeyError(f"{path} is a key of another kind: releases want Ed25519")
        return cls(key)

    def sign(self, manifest: bytes) -> str:
        """The signature of a manifest, as its file has it."""
        return f"ed25519 {self.name} {self._key.sign(CONTEXT + manifest).hex()}\n"

    def trusted(self) -> TrustedKeys:
        """Trust in this key alone."""
        return TrustedKeys({self.name: self._key.public_key()}, "the key it is signed with")


class TrustedKeys:
    """The public keys a gateway believes; what none of them signed is refused."""

    def __init__(self, keys: dict[str, Ed25519PublicKey], place: str) -> None:
        """Set up; `read` makes it from a file, ``place``."""
        self._keys = keys
        self._place = place

    @classmethod
    def read(cls, path: Path) -> TrustedKeys:
        """The public keys in a file, one after another.

        Raises:
            SigningKeyError: it is missing, others may change it, or it holds no such key.
        """
        content = _content(
            path,
            _WRITABLE,
            f"says whose releases are served and others may change it: chmod 644 {path}",
            "name the .pub file that 'ebbing keys signing' wrote, or restore it",
        )
        keys = {}
        for block in _PUBLIC.findall(content):
            try:
                key = load_pem_public_key(block)
            except (ValueError, UnsupportedAlgorithm) as error:
                raise SigningKeyError(f"{path} holds a public key that does not read") from error
            if not isinstance(key, Ed25519PublicKey):
                raise SigningKeyError(f"{path} holds a key of another kind: releases want Ed25519")
            keys[_name(key)] = key
        if not keys:
            raise SigningKeyError(
                f"{path} holds no public key, in PEM: name the .pub file that "
                "'ebbing keys signing' wrote"
            )
        return cls(keys, str(path))

    def require(self, manifest: bytes, path: Path, signature: Path) -> None:
        """Check the signature of the manifest that lies at ``path``.

        Raises:
            ManifestError: names what is missing, or not signed by a key of these.
        """
        try:
            text = signature.read_bytes().decode("ascii")
        except FileNotFoundError:
            raise ManifestError(
                f"{path} is not signed, and {self._place} asks for it: publish the release with "
                "--key FILE"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise _unreadable(signature) from error
        match = _SIGNATURE.fullmatch(text)
        if not match:
            raise _unreadable(signature)
        key = self._keys.get(match[1])
        if key is None:
            raise ManifestError(
                f"{signature} is by the key {match[1]}, and {self._place} has "
                f"{', '.join(sorted(self._keys))}: publish with a trusted key, or add the public "
                "key if you trust it"
            )
        try:
            key.verify(bytes.fromhex(match[2]), CONTEXT + manifest)
        except InvalidSignature as error:
            raise ManifestError(
                f"{path} is not what {signature.name} beside it signs (changed or copied): restore "
                "both or publish the release again"
            ) from error


def new_signing_key(path: Path, secret: bytes) -> str:
    """Write a private key to a new file its owner alone may read, and the public one to .pub.

    Returns:
        The name of the key.

    Raises:
        SigningKeyError: one of the files is there, or cannot be written.
    """
    key = Ed25519PrivateKey.from_private_bytes(secret)
    public = path.with_name(path.name + ".pub")
    if path.exists() or public.exists():
        there = path if path.exists() else public
        raise SigningKeyError(f"{there} is there already and stays as it is: name another file")
    try:
        _write(
            path,
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            0o600,
        )
        _write(
            public,
            key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            0o644,
        )
    except OSError as error:
        raise SigningKeyError(
            f"{path} cannot be written ({error.strerror}): check its folder"
        ) from error
    return _name(key.public_key())


def _write(path: Path, content: bytes, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _content(path: Path, forbidden: int, too_open: str, remedy: str) -> bytes:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & forbidden:
                raise SigningKeyError(f"{path} {too_open}")
            return file.read(2**20)
    except FileNotFoundError as error:
        raise SigningKeyError(f"there is no {path}: {remedy}") from error
    except OSError as error:
        raise SigningKeyError(f"{path} cannot be read ({error.strerror}): check it") from error


def _name(key: Ed25519PublicKey) -> str:
    """What a key is called: 16 hexadecimal digits of its sha256."""
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]


def _unreadable(signature: Path) -> ManifestError:
    return ManifestError(
        f"{signature} does not read as a signature: restore it or publish the release again"
    )
