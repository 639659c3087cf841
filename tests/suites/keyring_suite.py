"""What every keyring does: an engine inherits ``KeyringSuite`` and says how it is opened."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from server.state.keyring import Keyring, WrappedKey

__all__ = ["KeyringSuite", "OpenKeyring", "key"]

OpenKeyring = Callable[..., Keyring]
"""Opens the keyring under test, the same one each time, as another process would; ``name`` may
tell several apart."""


def key(owner: str = "ann", wrapped: bytes = b"wrapped", master: int = 1) -> WrappedKey:
    """A wrapped key."""
    return WrappedKey(owner, master, wrapped)


class KeyringSuite:
    """The contract of ``Keyring``."""

    @pytest.fixture
    def open_keyring(self) -> OpenKeyring:
        raise NotImplementedError

    @pytest.fixture
    def keyring(self, open_keyring: OpenKeyring) -> Keyring:
        return open_keyring()

    @pytest.fixture
    def other(self, open_keyring: OpenKeyring) -> Keyring:
        """The same keyring as another process has it."""
        return open_keyring()

    def test_a_new_one_is_empty(self, keyring: Keyring) -> None:
        assert keyring.find(["ann"]) == keyring.find([]) == keyring.masters() == []
        assert keyring.of_other_masters(1, 10) == []

    def test_every_process_finds_what_was_added(self, keyring: Keyring, other: Keyring) -> None:
        added = [key(owner, owner.encode()) for owner in ("ann", "bén", 'it\'s "c"\n', "v1.-_")]
        assert sorted(keyring.add(added)) == sorted(added)
        assert sorted(other.find([*(one.owner for one in added), "dan"])) == sorted(added)
        for one in added:
            assert other.find([one.owner]) == [one]

    def test_many_at_once(self, keyring: Keyring, other: Keyring) -> None:
        added = [key(f"user-{i}", bytes([i % 256]) * 60) for i in range(3000)]
        assert len(keyring.add(added)) == 3000
        assert sorted(other.find([one.owner for one in added])) == sorted(added)

    def test_the_first_key_of_an_owner_stays(self, keyring: Keyring, other: Keyring) -> None:
        keyring.add([key("ann", b"first")])
        assert sorted(other.add([key("ann", b"second"), key("ben", b"his")])) == [
            key("ann", b"first"),
            key("ben", b"his"),
        ]
        assert keyring.find(["ann"]) == [key("ann", b"first")]

    def test_of_many_who_add_at_once_one_wins(self, keyring: Keyring, other: Keyring) -> None:
        def add(number: int) -> list[WrappedKey]:
            mine = [key(f"user-{i}", b"%d" % number) for i in range(20)]
            return sorted((keyring, other)[number % 2].add(mine))

        with ThreadPoolExecutor(8) as threads:
            told = list(threads.map(add, range(16)))
        assert all(one == told[0] for one in told)

    def test_a_removed_key_is_gone_for_everybody(self, keyring: Keyring, other: Keyring) -> None:
        keyring.add([key("ann"), key("ben")])
        other.remove(["ann"])
        assert keyring.find(["ann", "ben"]) == other.find(["ann", "ben"]) == [key("ben")]

    def test_everybody_can_tell_that_a_key_was_removed(
        self, keyring: Keyring, other: Keyring
    ) -> None:
        keyring.add([key("ann"), key("ben")])
        before = other.erasures()
        keyring.remove(["ann"])
        between = other.erasures()
        other.remove(["ben"])
        assert before < between < keyring.erasures() == other.erasures()

    def test_adding_and_removing_nothing_is_no_erasure(self, keyring: Keyring) -> None:
        before = keyring.erasures()
        keyring.add([])
        keyring.add([key("ann")])
        keyring.remove(["ben"])
        keyring.remove([])
        assert keyring.erasures() == before

    def test_an_owner_may_come_back(self, keyring: Keyring) -> None:
        keyring.add([key("ann", b"before")])
        keyring.remove(["ann"])
        assert keyring.add([key("ann", b"after")]) == [key("ann", b"after")]

    def test_a_keyring_stays_the_same_one(self, open_keyring: OpenKeyring) -> None:
        assert open_keyring().identity == open_keyring().identity != ""
        assert open_keyring().identity != open_keyring(name="elsewhere").identity

    def test_the_masters_in_use(self, keyring: Keyring) -> None:
        keyring.add([key("ann", master=3), key("ben", master=1), key("cay", master=3)])
        keyring.add([key("dan", master=70)])
        found = keyring.masters()
        assert sorted(one.master for one in found) == [1, 3, 70]
        assert all(keyring.find([one.owner]) == [one] for one in found)

    def test_keys_of_other_masters_come_in_portions(self, keyring: Keyring) -> None:
        mine = [key(f"old-{i}", master=1 + i % 3) for i in range(7)]
        keyring.add([*mine, key("new", master=9)])
        seen = set()
        while some := keyring.of_other_masters(9, 3):
            assert len(some) <= 3
            seen.update(some)
            keyring.replace([(one, one._replace(master=9, wrapped=b"again")) for one in some])
        assert seen == set(mine)
        assert [one.master for one in keyring.masters()] == [9]
        assert keyring.find(["old-3"]) == [key("old-3", b"again", 9)]

    def test_a_newer_master_is_another_one_too(self, keyring: Keyring) -> None:
        keyring.add([key("ann", master=5)])
        assert keyring.of_other_masters(4, 10) == keyring.of_other_masters(6, 10) != []

    def test_replacing_brings_nobody_back(self, keyring: Keyring, other: Keyring) -> None:
        keyring.add([key("ann"), key("ben")])
        old = keyring.of_other_masters(2, 10)
        other.remove(["ann", "ben", "cay"])
        other.add([key("ben", b"newer")])
        keyring.replace([(one, one._replace(master=2, wrapped=b"again")) for one in old])
        assert keyring.find(["ann", "ben"]) == [key("ben", b"newer")]
        assert [one.master for one in keyring.masters()] == [1]
