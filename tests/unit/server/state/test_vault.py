"""The vaults that need no data keys: the plain one, and pseudonyms over it."""

from __future__ import annotations

import base64
import hmac
import itertools
import re

import pytest
from hypothesis import given

from server.state.keys import Key
from server.state.pseudonyms import PseudonymousVault
from server.state.vault import PlainVault
from tests.suites.vault_suite import OpenVault, VaultSuite, ids

KEY = Key(1, bytes(range(32)))


class TestPlainVault(VaultSuite):
    @pytest.fixture
    def open_vault(self) -> OpenVault:
        return PlainVault


class TestPseudonymousVault(VaultSuite):
    @pytest.fixture
    def open_vault(self) -> OpenVault:
        return lambda: PseudonymousVault(PlainVault(), KEY)


def names(key: Key = KEY) -> PseudonymousVault:
    return PseudonymousVault(PlainVault(), key)


@given(ids)
def test_a_pseudonym_is_the_version_and_a_keyed_hash(user_id: str) -> None:
    digest = hmac.new(KEY.secret, user_id.encode(), "sha256").digest()
    owner = names().owner_of(user_id)
    assert owner == "v1." + base64.urlsafe_b64encode(digest).decode()[:22]
    assert re.fullmatch(r"v1\.[\w-]{22}", owner, re.ASCII)


def test_pseudonyms_do_not_meet_and_show_nothing_of_ids() -> None:
    vault = names()
    owners = [vault.owner_of(f"user-{i}") for i in range(100_000)]
    assert len(set(owners)) == 100_000
    # Ids that follow each other have names that do not: half of them are before the last one.
    rises = sum(one < other for one, other in itertools.pairwise(owners))
    assert 49_000 < rises < 51_000
    assert {len(vault.owner_of("x" * length)) for length in range(1, 200)} == {25}


def test_another_key_names_everybody_differently() -> None:
    other = names(Key(1, bytes(32)))
    assert not {names().owner_of(f"{i}") for i in range(1000)} & {
        other.owner_of(f"{i}") for i in range(1000)
    }
    assert names(Key(2, KEY.secret)).owner_of("ann").startswith("v2.")


def test_fingerprints_tell_vaults_apart_and_no_secret() -> None:
    vaults = [
        PlainVault(),
        names(),
        names(Key(2, KEY.secret)),
        names(Key(1, bytes(32))),
    ]
    fingerprints = [vault.fingerprint for vault in vaults]
    assert len(set(fingerprints)) == len(vaults)
    assert names().fingerprint == fingerprints[1]
    for text in fingerprints[1:]:
        shown = text.rpartition(":")[2]
        assert len(shown) == 16
        assert shown not in KEY.secret.hex()


def test_a_key_does_not_show_itself() -> None:
    assert "secret" not in repr(KEY)
    assert str(KEY.secret) not in repr(KEY)
