"""What every vault does: a kind inherits ``VaultSuite`` and says how it is opened."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.errors import StoreUnavailable
from server.state.vault import DIGEST_BYTES, Vault

__all__ = ["OpenVault", "VaultSuite", "ids", "sealed"]

OpenVault = Callable[[], Vault]
"""Opens the vault under test, the same one each time, as another process would."""

ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=32)
"""User ids: whatever text can be sent."""

many = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors]
)
"""A vault keeps nothing between examples but keys, so all of them can have the same one."""


def sealed(vault: Vault, user_id: str, purpose: str, data: bytes) -> tuple[str, bytes]:
    """A user's name in storage, and a sealed value of theirs."""
    owner = vault.owner_of(user_id)
    vault.prepare([owner])
    return owner, vault.seal(owner, purpose, data)


class VaultSuite:
    """The contract of ``Vault``."""

    @pytest.fixture
    def open_vault(self) -> OpenVault:
        raise NotImplementedError

    @pytest.fixture
    def vault(self, open_vault: OpenVault) -> Vault:
        return open_vault()

    @many
    @given(user_id=ids, purpose=st.sampled_from(["state", "event"]), data=st.binary(max_size=300))
    def test_what_was_sealed_opens(
        self, vault: Vault, user_id: str, purpose: str, data: bytes
    ) -> None:
        owner, value = sealed(vault, user_id, purpose, data)
        assert vault.open(owner, purpose, value) == data

    def test_a_large_value(self, vault: Vault) -> None:
        data = bytes(range(256)) * 4096
        owner, value = sealed(vault, "ann", "state", data)
        assert vault.open(owner, "state", value) == data

    def test_another_process_opens_it(self, open_vault: OpenVault) -> None:
        owner, value = sealed(open_vault(), "ann", "state", b"what ann likes")
        assert open_vault().owner_of("ann") == owner
        assert open_vault().open(owner, "state", value) == b"what ann likes"
        assert open_vault().fingerprint == open_vault().fingerprint

    @many
    @given(one=ids, other=ids)
    def test_names_are_stable_and_tell_users_apart(
        self, vault: Vault, one: str, other: str
    ) -> None:
        assert vault.owner_of(one) == vault.owner_of(one)
        assert (vault.owner_of(one) == vault.owner_of(other)) == (one == other)
        assert len(vault.owner_of(one).encode()) <= 128

    @pytest.mark.parametrize("data", [b"", b"what ann likes"])
    def test_one_flipped_bit_is_found_wherever_it_is(self, vault: Vault, data: bytes) -> None:
        owner, value = sealed(vault, "ann", "state", data)
        for bit in range(len(value) * 8):
            flipped = bytearray(value)
            flipped[bit // 8] ^= 1 << bit % 8
            with pytest.raises(StoreUnavailable, match="stored state of a user is damaged"):
                vault.open(owner, "state", bytes(flipped))

    def test_a_torn_value_is_found_wherever_it_is_torn(self, vault: Vault) -> None:
        owner, value = sealed(vault, "ann", "state", b"what ann likes")
        for end in range(len(value)):
            with pytest.raises(StoreUnavailable, match="damaged"):
                vault.open(owner, "state", value[:end])
        for wrong in (value + b"\0", b"\0" * len(value), value[1:]):
            with pytest.raises(StoreUnavailable, match="damaged"):
                vault.open(owner, "state", wrong)

    @many
    @given(other=ids.filter(lambda user_id: user_id != "ann"), data=st.binary(max_size=50))
    def test_it_opens_for_its_owner_alone(self, vault: Vault, other: str, data: bytes) -> None:
        _, value = sealed(vault, "ann", "state", data)
        owner, _ = sealed(vault, other, "state", data)
        with pytest.raises(StoreUnavailable, match="damaged"):
            vault.open(owner, "state", value)

    def test_it_opens_for_its_purpose_alone(self, vault: Vault) -> None:
        owner, value = sealed(vault, "ann", "event", b"what ann did")
        for purpose in ("state", "events", "even", ""):
            with pytest.raises(StoreUnavailable, match="damaged"):
                vault.open(owner, purpose, value)

    def test_errors_do_not_tell_whose_value_it_is(self, vault: Vault) -> None:
        owner, _ = sealed(vault, "ann.smith", "state", b"")
        with pytest.raises(StoreUnavailable) as error:
            vault.open(owner, "state", b"nonsense" * 8)
        assert "ann" not in str(error.value)
        assert owner not in str(error.value)

    @many
    @given(one=st.binary(max_size=40), other=st.binary(max_size=40))
    def test_digests_tell_data_of_an_owner_apart(
        self, vault: Vault, one: bytes, other: bytes
    ) -> None:
        ann, ben = vault.owner_of("ann"), vault.owner_of("ben")
        vault.prepare([ann, ben])
        assert len(vault.digest(ann, one)) == DIGEST_BYTES
        assert (vault.digest(ann, one) == vault.digest(ann, other)) == (one == other)
        assert vault.digest(ann, one) != vault.digest(ben, one)

    def test_another_process_has_the_same_digests(self, open_vault: OpenVault) -> None:
        vault = open_vault()
        owner, _ = sealed(vault, "ann", "state", b"")
        assert open_vault().digest(owner, b"a body") == vault.digest(owner, b"a body")

    def test_preparing_again_changes_nothing(self, vault: Vault) -> None:
        owner, value = sealed(vault, "ann", "state", b"what ann likes")
        vault.prepare([])
        vault.prepare([owner, owner])
        assert vault.open(owner, "state", value) == b"what ann likes"

    def test_erasing_leaves_others_alone(self, vault: Vault) -> None:
        owner, value = sealed(vault, "ben", "state", b"what ben likes")
        ann, _ = sealed(vault, "ann", "state", b"what ann likes")
        for _ in range(2):
            vault.erase(ann)
        vault.erase(vault.owner_of("nobody"))
        assert vault.open(owner, "state", value) == b"what ben likes"

    def test_an_erased_user_may_come_back(self, vault: Vault) -> None:
        owner, _ = sealed(vault, "ann", "state", b"before")
        vault.erase(owner)
        owner, value = sealed(vault, "ann", "state", b"after")
        assert vault.open(owner, "state", value) == b"after"
