"""Signatures: by whom, of what, and every way in which one is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from ebbing.manifest import ManifestError
from ebbing.signing import SigningKey, SigningKeyError, TrustedKeys, new_signing_key

MANIFEST = b'{"release": 1}\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A key file, its public one beside it."""
    new_signing_key(tmp_path / "signing.key", bytes(range(32)))
    return tmp_path / "signing.key"


@pytest.fixture
def public(path: Path) -> Path:
    return path.with_name("signing.key.pub")


@pytest.fixture
def signed(path: Path, tmp_path: Path) -> Path:
    """A manifest with its signature, by the key of ``path``."""
    (tmp_path / "manifest.json").write_bytes(MANIFEST)
    (tmp_path / "manifest.sig").write_text(SigningKey.read(path).sign(MANIFEST))
    return tmp_path / "manifest.json"


def require(trusted: TrustedKeys, manifest: Path) -> None:
    trusted.require(manifest.read_bytes(), manifest, manifest.with_name("manifest.sig"))


def test_what_is_signed_is_believed(public: Path, path: Path, signed: Path) -> None:
    require(TrustedKeys.read(public), signed)
    require(SigningKey.read(path).trusted(), signed)


def test_the_signature_is_as_openssl_makes_it(signed: Path) -> None:
    # openssl pkeyutl -sign -rawin, of CONTEXT and the manifest; the name is sha256 of the raw key.
    assert signed.with_name("manifest.sig").read_text() == (
        "ed25519 56475aa75463474c "
        "8f3206ca593d6d0c9f6919a7ddf47af17df82a87716e95a9157fd0f3f3d04730"
        "b5cf4bdeedf096a14bb980e729c8f08d1e412260bdab2155ee065f6f4dd1960b\n"
    )


def test_each_byte_counts(public: Path, signed: Path) -> None:
    trusted = TrustedKeys.read(public)
    for file in (signed, signed.with_name("manifest.sig")):
        whole = file.read_bytes()
        for place in range(len(whole)):
            for bit in (0x01, 0x20, 0x80):
                changed = bytearray(whole)
                changed[place] ^= bit
                file.write_bytes(changed)
                with pytest.raises(ManifestError, match=r"manifest\.(json|sig)"):
                    require(trusted, signed)
        for damaged in (b"", whole[:-1], whole + b"\n", b"\xff" + whole):
            file.write_bytes(damaged)
            with pytest.raises(ManifestError, match=r"manifest\.(json|sig)"):
                require(trusted, signed)
        file.write_bytes(whole)
    require(trusted, signed)


def test_a_missing_signature_is_named_with_the_remedy(public: Path, signed: Path) -> None:
    signed.with_name("manifest.sig").unlink()
    with pytest.raises(ManifestError, match=r"manifest\.json is not signed, .*\.pub asks.*--key"):
        require(TrustedKeys.read(public), signed)


def test_another_key_is_named_beside_the_trusted_ones(
    tmp_path: Path, path: Path, signed: Path
) -> None:
    other = new_signing_key(tmp_path / "other.key", bytes(32))
    trusted = TrustedKeys.read(tmp_path / "other.key.pub")
    with pytest.raises(ManifestError, match=f"by the key {SigningKey.read(path).name}.* {other}"):
        require(trusted, signed)


def test_files_of_public_keys_can_be_joined(tmp_path: Path, public: Path, signed: Path) -> None:
    new_signing_key(tmp_path / "other.key", bytes(32))
    both = tmp_path / "both.pub"
    both.write_bytes((tmp_path / "other.key.pub").read_bytes() + public.read_bytes())
    require(TrustedKeys.read(both), signed)


def test_key_files_are_for_their_owner(path: Path, public: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600
    for mode in (0o602, 0o604, 0o660):
        path.chmod(mode)
        with pytest.raises(
            SigningKeyError, match=f"others may read or change it: chmod 600 {path}"
        ):
            SigningKey.read(path)
    public.chmod(0o666)
    with pytest.raises(SigningKeyError, match=f"others may change it: chmod 644 {public}"):
        TrustedKeys.read(public)


@pytest.mark.parametrize("there", ["signing.key", "signing.key.pub"])
def test_no_key_file_is_replaced(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("kept")
    with pytest.raises(SigningKeyError, match=f"{there} is there already and stays as it is"):
        new_signing_key(tmp_path / "signing.key", bytes(32))
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "kept"


def test_where_no_file_can_be(tmp_path: Path) -> None:
    with pytest.raises(SigningKeyError, match=r"missing/signing\.key cannot be written"):
        new_signing_key(tmp_path / "missing" / "signing.key", bytes(32))


def test_what_is_no_key(tmp_path: Path, path: Path, public: Path) -> None:
    with pytest.raises(SigningKeyError, match=r"there is no .*gone: make it with 'ebbing keys sig"):
        SigningKey.read(tmp_path / "gone")
    with pytest.raises(SigningKeyError, match=r"there is no .*gone: name the \.pub file"):
        TrustedKeys.read(tmp_path / "gone")
    with pytest.raises(SigningKeyError, match=r"holds no public key.*name the \.pub file"):
        TrustedKeys.read(path)
    public.chmod(0o600)
    with pytest.raises(SigningKeyError, match=r"is no private key.*without \.pub"):
        SigningKey.read(public)
    with pytest.raises(SigningKeyError, match="cannot be read"):
        SigningKey.read(tmp_path)


def test_keys_of_another_kind(path: Path, public: Path) -> None:
    other = X25519PrivateKey.from_private_bytes(bytes(32))
    path.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(
        other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    with pytest.raises(SigningKeyError, match="another kind: releases want Ed25519"):
        SigningKey.read(path)
    with pytest.raises(SigningKeyError, match="another kind: releases want Ed25519"):
        TrustedKeys.read(public)
    public.write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    with pytest.raises(SigningKeyError, match="does not read"):
        TrustedKeys.read(public)
