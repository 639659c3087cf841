"""The vault that encrypts: the suite of every vault, and that a key that is gone is gone."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.errors import EbbingError, StoreUnavailable, UserErased
from server.state.data_keys import DataKeys, MasterKeys
from server.state.keyring import SqliteKeyring, WrappedKey
from server.state.keys import Key
from server.state.pseudonyms import PseudonymousVault
from server.state.sealed_vault import SealedVault
from tests.suites.vault_suite import OpenVault, VaultSuite, sealed

OLD, NEW = Key(1, bytes(range(32))), Key(2, bytes(range(1, 33)))

Open = Callable[..., SealedVault]
"""Opens a vault on the keyring of the test, as another process would."""

LOOK = """
import os, sys, time
from pathlib import Path
from server.errors import UserErased
from server.state.data_keys import DataKeys, MasterKeys
from server.state.keyring import SqliteKeyring
from server.state.keys import Key
from server.state.sealed_vault import SealedVault
keyring = SqliteKeyring(Path(sys.argv[1]), os.urandom)
masters = MasterKeys([Key(1, bytes(range(32)))], os.urandom)
vault = SealedVault(DataKeys(keyring, masters, os.urandom, time.monotonic), os.urandom)
value = bytes.fromhex(sys.argv[2])
print(vault.open("ann", "state", value).decode(), flush=True)
while True:
    try:
        vault.open("ann", "state", value)
    except UserErased:
        break
print(time.monotonic())
"""


class CountingKeyring(SqliteKeyring):
    """Counts how often keys are looked up."""

    looked_up = 0

    def find(self, owners: Sequence[str]) -> list[WrappedKey]:
        self.looked_up += 1
        return super().find(owners)


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.keys"


@pytest.fixture
def keyring(path: Path) -> Iterator[CountingKeyring]:
    with closing(CountingKeyring(path, os.urandom)) as keyring:
        yield keyring


@pytest.fixture
def open_sealed(path: Path, clock: Clock) -> Iterator[Open]:
    with ExitStack() as opened:

        def open_it(*masters: Key, **limits: float) -> SealedVault:
            keyring = SqliteKeyring(path, os.urandom)
            try:
                keys = data_keys(keyring, clock, masters, **limits)
            except BaseException:
                keyring.close()
                raise
            return opened.enter_context(closing(SealedVault(keys, os.urandom)))

        yield open_it


def data_keys(
    keyring: SqliteKeyring, clock: Clock, masters: Sequence[Key] = (), **limits: float
) -> DataKeys:
    wrapping = MasterKeys(masters or [OLD], os.urandom)
    return DataKeys(keyring, wrapping, os.urandom, clock, **limits)  # type: ignore[arg-type]


class TestSealedVault(VaultSuite):
    @pytest.fixture
    def open_vault(self, open_sealed: Open) -> OpenVault:
        return open_sealed


class TestPseudonymousSealedVault(VaultSuite):
    @pytest.fixture
    def open_vault(self, open_sealed: Open) -> OpenVault:
        return lambda: PseudonymousVault(open_sealed(), OLD)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=8, max_size=200))
def test_two_seals_of_one_value_differ_and_show_nothing_of_it(
    open_sealed: Open, data: bytes
) -> None:
    vault = open_sealed()
    _, one = sealed(vault, "ann", "state", data)
    _, other = sealed(vault, "ann", "state", data)
    assert one[5:] != other[5:]
    assert len(one) == len(other) == len(data) + 33
    assert data not in one


def test_equal_values_of_two_users_are_under_two_keys(open_sealed: Open, path: Path) -> None:
    vault = open_sealed()
    for name in ("ann", "ben"):
        sealed(vault, name, "state", b"")
    with closing(SqliteKeyring(path, os.urandom)) as keyring:
        one, other = keyring.find(["ann", "ben"])
        masters = MasterKeys([OLD], os.urandom)
        assert masters.unwrap(one) != masters.unwrap(other)
        assert len(masters.unwrap(one)) == 32
        assert masters.unwrap(one) not in path.with_name("state.keys-wal").read_bytes()
        with pytest.raises(StoreUnavailable, match="does not open"):
            masters.unwrap(one._replace(owner=other.owner))


def test_a_value_of_a_newer_format_is_not_guessed_at(open_sealed: Open) -> None:
    vault = open_sealed()
    owner, value = sealed(vault, "ann", "state", b"what ann likes")
    with pytest.raises(StoreUnavailable, match="damaged"):
        vault.open(owner, "state", b"\2" + value[1:])


def test_after_erasing_nothing_opens_or_seals(open_sealed: Open) -> None:
    vault = open_sealed()
    owner, value = sealed(vault, "ann.smith", "state", b"what ann likes")
    vault.erase(owner)
    for _ in range(2):
        with pytest.raises(UserErased) as error:
            vault.open(owner, "state", value)
        assert owner not in str(error.value)
        with pytest.raises(UserErased):
            vault.seal(owner, "state", b"more")
    with pytest.raises(UserErased):
        open_sealed().open(owner, "state", value)


def test_digests_cannot_be_guessed_at_and_go_with_the_key(open_sealed: Open) -> None:
    vault = open_sealed()
    owner, _ = sealed(vault, "ann", "state", b"")
    before = vault.digest(owner, b"a body")
    vault.erase(owner)
    with pytest.raises(UserErased):
        vault.digest(owner, b"a body")
    vault.prepare([owner])
    assert vault.digest(owner, b"a body") != before


def test_sealing_makes_no_key(open_sealed: Open) -> None:
    with pytest.raises(UserErased):
        open_sealed().seal("ann", "state", b"")


@pytest.mark.parametrize("fresh_s", [0.0, 1.0, 5.0])
def test_another_process_loses_an_erased_key_in_time(
    open_sealed: Open, clock: Clock, fresh_s: float
) -> None:
    here, there = open_sealed(), open_sealed(fresh_s=fresh_s)
    owner, value = sealed(here, "ann", "state", b"what ann likes")
    assert there.open(owner, "state", value) == b"what ann likes"
    here.erase(owner)
    clock.seconds += fresh_s
    with pytest.raises(UserErased):
        there.open(owner, "state", value)
    with pytest.raises(UserErased):
        there.seal(owner, "state", b"more")


def test_a_real_process_loses_an_erased_key_within_its_second(
    open_sealed: Open, path: Path
) -> None:
    vault = open_sealed()
    owner, value = sealed(vault, "ann", "state", b"what ann likes")
    command = [sys.executable, "-c", LOOK, str(path), value.hex()]
    root = Path(__file__).parents[4]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "what ann likes\n"
        vault.erase(owner)
        erased_s = time.monotonic()
        # A second, and what a busy machine adds.
        assert float(process.stdout.readline()) < erased_s + 4.0
    assert process.returncode == 0


def test_preparing_never_trusts_a_key_that_another_process_erased(open_sealed: Open) -> None:
    here, there = open_sealed(), open_sealed()
    owner, _ = sealed(there, "ann", "state", b"before")
    here.erase(owner)
    # At the same moment: a write may be acknowledged only if it can be read.
    _, value = sealed(there, "ann", "state", b"after")
    assert here.open(owner, "state", value) == b"after"
    assert there.open(owner, "state", value) == b"after"


def test_what_was_before_stays_unreadable_when_a_user_comes_back(open_sealed: Open) -> None:
    here, there = open_sealed(), open_sealed()
    owner, before = sealed(here, "ann", "state", b"before")
    there.open(owner, "state", before)
    here.erase(owner)
    _, after = sealed(here, "ann", "state", b"after")
    # The other process still has the old key at hand, and no time has passed.
    assert there.open(owner, "state", after) == b"after"
    for vault in (here, there, open_sealed()):
        with pytest.raises(UserErased):
            vault.open(owner, "state", before)


def test_a_copy_of_the_keyring_of_before_the_erasure_reads_again(
    open_sealed: Open, path: Path, clock: Clock
) -> None:
    """Which is why its backups are to be short-lived."""
    vault = open_sealed()
    owner, value = sealed(vault, "ann", "state", b"what ann likes")
    copy = path.with_name("copy.keys")
    for suffix in ("", "-wal"):
        copy.with_name(copy.name + suffix).write_bytes(
            path.with_name(path.name + suffix).read_bytes()
        )
    vault.erase(owner)
    with closing(SqliteKeyring(copy, os.urandom)) as keyring:
        restored = SealedVault(data_keys(keyring, clock), os.urandom)
        assert restored.open(owner, "state", value) == b"what ann likes"
        assert restored.fingerprint == vault.fingerprint


def test_two_processes_that_prepare_one_user_at_once_share_a_key(open_sealed: Open) -> None:
    vaults = [open_sealed() for _ in range(4)]
    values: list[bytes] = []
    start = threading.Barrier(4)

    def write(vault: SealedVault) -> None:
        start.wait()
        values.extend(sealed(vault, f"user-{i}", "state", b"%d" % i)[1] for i in range(20))

    threads = [threading.Thread(target=write, args=(vault,)) for vault in vaults]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(values) == 80
    for value in values:
        opened = 0
        for i in range(20):
            try:
                opened += vaults[0].open(f"user-{i}", "state", value) == b"%d" % i
            except StoreUnavailable:
                continue
        assert opened == 1


def test_threads_that_read_while_a_user_is_erased_time_and_again(open_sealed: Open) -> None:
    vault, other = open_sealed(fresh_s=0.0), open_sealed(fresh_s=0.0)
    unexpected: list[BaseException] = []
    shown: list[bytes] = [sealed(vault, "ann", "state", b"0")[1]]
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            try:
                vault.open("ann", "state", shown[-1])
            except UserErased:
                continue
            except BaseException as error:
                unexpected.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(30):
            gone = shown[-1]
            other.erase("ann")
            with pytest.raises(UserErased):
                vault.open("ann", "state", gone)
            shown.append(sealed(other, "ann", "state", b"%d" % turn)[1])
            assert vault.open("ann", "state", shown[-1]) == b"%d" % turn
            with pytest.raises(UserErased):
                vault.open("ann", "state", gone)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert unexpected == []


def test_a_key_that_is_erased_while_it_is_looked_up_is_not_kept(
    open_sealed: Open, path: Path, clock: Clock
) -> None:
    here = open_sealed()
    owner, value = sealed(here, "ann", "state", b"what ann likes")

    class Slow(SqliteKeyring):
        """Another process erases, and another thread notices, before the key is at hand."""

        def find(self, owners: Sequence[str]) -> list[WrappedKey]:
            found = super().find(owners)
            if found:
                here.erase(owner)
                keys.refresh()
            return found

    with closing(Slow(path, os.urandom)) as keyring:
        keys = data_keys(keyring, clock)
        there = SealedVault(keys, os.urandom)
        assert there.open(owner, "state", value) == b"what ann likes"
        with pytest.raises(UserErased):
            there.open(owner, "state", value)


def test_unwrapped_keys_in_memory_are_few_and_the_last_used(
    keyring: CountingKeyring, clock: Clock
) -> None:
    vault = SealedVault(data_keys(keyring, clock, cached=3), os.urandom)
    values = {name: sealed(vault, name, "state", b"")[1] for name in "abcd"}

    def lookups(*names: str) -> int:
        before = keyring.looked_up
        for name in names:
            vault.open(name, "state", values[name])
        return keyring.looked_up - before

    assert lookups("b", "c", "d", "b", "c", "d") == 0
    assert lookups("a") == 1
    assert lookups("a", "d", "c") == 0
    assert lookups("b") == 1
    assert lookups("c", "d", "b") == 0
    clock.seconds += 60
    assert lookups("d", "c", "b") == 0
    vault.erase("d")
    assert lookups("b", "c", "b", "c") == 2


def test_a_group_larger_than_the_cache_is_prepared_all_the_same(
    keyring: CountingKeyring, clock: Clock
) -> None:
    vault = SealedVault(data_keys(keyring, clock, cached=3), os.urandom)
    owners = [f"user-{i}" for i in range(50)]
    vault.prepare(iter(owners))
    assert [vault.open(o, "state", vault.seal(o, "state", o.encode())) for o in owners] == [
        owner.encode() for owner in owners
    ]


def test_masters_are_rotated_while_values_stay(open_sealed: Open, path: Path, clock: Clock) -> None:
    vault = open_sealed(OLD)
    values = {f"user-{i}": sealed(vault, f"user-{i}", "state", b"%d" % i)[1] for i in range(10)}
    both = open_sealed(NEW, OLD)
    sealed(both, "new", "state", b"")
    with closing(SqliteKeyring(path, os.urandom)) as keyring:
        keys = data_keys(keyring, clock, [NEW, OLD])
        assert [keys.rewrap(4) for _ in range(4)] == [4, 4, 2, 0]
        assert [key.master for key in keyring.masters()] == [2]
    # Whoever has unwrapped keys goes on with them; the old master key is not needed any more.
    for opened in (vault, both, open_sealed(NEW)):
        assert [opened.open(owner, "state", value) for owner, value in values.items()] == [
            b"%d" % i for i in range(10)
        ]
        assert opened.fingerprint == vault.fingerprint
    with pytest.raises(StoreUnavailable, match="master key v2, which is not given"):
        open_sealed(OLD)


def test_rewrapping_does_not_bring_a_user_back(open_sealed: Open, path: Path, clock: Clock) -> None:
    vault = open_sealed(OLD)
    owner, value = sealed(vault, "ann", "state", b"what ann likes")

    class Slow(SqliteKeyring):
        """Erases between looking keys up and replacing them."""

        def of_other_masters(self, master: int, limit: int) -> list[WrappedKey]:
            found = super().of_other_masters(master, limit)
            vault.erase(owner)
            return found

    with closing(Slow(path, os.urandom)) as keyring:
        assert data_keys(keyring, clock, [NEW, OLD]).rewrap(10) == 1
        assert keyring.find([owner]) == []
    with pytest.raises(UserErased):
        open_sealed(NEW, OLD).open(owner, "state", value)


def test_another_master_key_of_the_same_version_is_refused_at_once(open_sealed: Open) -> None:
    sealed(open_sealed(OLD), "ann", "state", b"")
    with pytest.raises(StoreUnavailable, match="does not open with master key v1"):
        open_sealed(Key(1, bytes(32)))


def test_a_damaged_data_key_is_named(open_sealed: Open, keyring: CountingKeyring) -> None:
    masters = MasterKeys([OLD], os.urandom)
    fine = masters.wrap("ann", bytes(32))
    keyring.add([fine, *(fine._replace(owner=f"{n}", wrapped=fine.wrapped[:n]) for n in (0, 5))])
    keyring.add([fine._replace(owner="ben", wrapped=bytes(60))])
    for owner in ("0", "5", "ben"):
        (key,) = keyring.find([owner])
        with pytest.raises(EbbingError, match="restore the keyring"):
            masters.unwrap(key)
