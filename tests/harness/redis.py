"""Real Redis servers on loopback, one or a Cluster of them, that can be killed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import pytest
import redis as client

from server.state.redis_link import RedisLink
from tests.harness.triton import free_ports

__all__ = ["RedisCluster", "RedisServer", "lose_answers", "server_program"]

DEADLINE_S = 30.0
"""How long a server may take for anything; a test that waits so long fails."""
DURABLE = {"appendonly": "yes", "appendfsync": "always", "save": "", "rdbcompression": "no"}
CLUSTER = {
    "cluster-enabled": "yes",
    "cluster-node-timeout": "1000",
    "cluster-replica-validity-factor": "0",
    "repl-diskless-sync": "yes",
    "repl-diskless-sync-delay": "0",
    "repl-ping-replica-period": "1",
}


def server_program() -> str:
    """A server from PATH, or the one that the development dependencies bring along."""
    beside = str(Path(sys.executable).parent)
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name) or shutil.which(name, path=beside):
            return found
    raise FileNotFoundError("no redis-server: install the development dependencies")


def wait_until(true: Callable[[], bool], what: str) -> None:
    """Return when something is so; what does not answer yet is not."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            if true():
                return
        except (client.ConnectionError, client.TimeoutError):
            pass
        time.sleep(0.02)
    raise TimeoutError(f"not in {DEADLINE_S:.0f} s: {what}")


class RedisServer:
    """One server process; a context manager that leaves none behind."""

    def __init__(self, folder: Path, port: int, **options: str) -> None:
        """Set up; ``options`` as in its configuration file, with underscores."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = port
        self._options = {
            **DURABLE,
            **{name.replace("_", "-"): value for name, value in options.items()},
        }
        self._process: subprocess.Popen[bytes] | None = None
        password = options.get("requirepass")
        self.client = client.Redis(
            "127.0.0.1", port, password=password, socket_timeout=5, decode_responses=True
        )

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        self.client.close()

    def launch(self) -> None:
        """Start the process, without waiting for it."""
        options = [word for name, value in self._options.items() for word in (f"--{name}", value)]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [server_program(), "--port", str(self.port), "--bind", "127.0.0.1", *options],
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )

    def start(self) -> None:
        """Start the process; return when it takes commands."""
        self.launch()
        self.wait()

    def wait(self) -> None:
        """Return when it takes commands, with all it had read back."""
        wait_until(self._serves, f"a server on port {self.port}")

    def _serves(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            said = (self.folder / "server.log").read_text(encoding="utf-8", errors="replace")
            raise RuntimeError(f"the server on port {self.port} ended:\n{said[-2000:]}")
        return bool(self.info("persistence")["loading"] == 0)

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def info(self, section: str) -> dict[str, Any]:
        """What it says of itself."""
        return self.client.info(section)  # type: ignore[return-value]


class RedisCluster:
    """Three masters with a replica each; a context manager that leaves no process behind."""

    MASTERS = 3

    def __init__(self, folder: Path, **options: str) -> None:
        """Set up; ``options`` of all servers."""
        settings = {name.replace("-", "_"): value for name, value in CLUSTER.items()} | options
        self.servers = [
            RedisServer(folder / f"server-{n}", port, **settings)
            for n, port in enumerate(_cluster_ports(2 * self.MASTERS))
        ]

    @property
    def url(self) -> str:
        """Where it is, by two of its servers."""
        return f"redis+cluster://127.0.0.1:{self.servers[0].port},127.0.0.1:{self.servers[4].port}"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for one in self.servers:
                stack.callback(one.__exit__)
                one.launch()
            for one in self.servers:
                one.wait()
            self._join()
            self.wait()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _join(self) -> None:
        first, *others = self.servers
        for one in others:
            one.client.execute_command("CLUSTER MEET", "127.0.0.1", first.port)
        bounds = [n * 16384 // self.MASTERS for n in range(self.MASTERS + 1)]
        for n, one in enumerate(self.servers[: self.MASTERS]):
            one.client.execute_command("CLUSTER ADDSLOTS", *range(bounds[n], bounds[n + 1]))
        for n, one in enumerate(self.servers[self.MASTERS :]):
            master = self.servers[n].client.execute_command("CLUSTER MYID")
            wait_until(lambda one=one, to=master: _follows(one, to), "a replica")

    @contextmanager
    def moving(self, slot: int) -> Iterator[None]:
        """A hash slot is being handed to another master while a block runs, and is so after it."""
        source = next(one for one in self.masters() if _holds(one, slot))
        target = next(one for one in self.masters() if one is not source)
        ids = [one.client.execute_command("CLUSTER MYID") for one in (source, target)]
        setting = ("CLUSTER SETSLOT", slot)
        target.client.execute_command(*setting, "IMPORTING", ids[0])
        source.client.execute_command(*setting, "MIGRATING", ids[1])
        keys = source.client.execute_command("CLUSTER GETKEYSINSLOT", slot, 10_000)
        migrate = ("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS")
        if keys:
            source.client.execute_command(*migrate, *keys)
        yield
        for one in self.masters():
            one.client.execute_command(*setting, "NODE", ids[1])

    def masters(self) -> list[RedisServer]:
        """Those of the servers that are masters now."""
        return [one for one in self.servers if one.info("replication")["role"] == "master"]

    def replica_of(self, master: RedisServer) -> RedisServer:
        """The one that follows a master."""
        (found,) = (
            one for one in self.servers if one.info("replication").get("master_port") == master.port
        )
        return found

    def wait_without(self, lost: RedisServer) -> None:
        """Return when the others serve all slots."""
        wait_until(lambda: self._serves_without(lost), "a new master")

    def _serves_without(self, lost: RedisServer) -> bool:
        left = [one for one in self.servers if one is not lost]
        states = [one.client.execute_command("CLUSTER INFO")["cluster_state"] for one in left]
        masters = [one for one in left if one.info("replication")["role"] == "master"]
        return len(masters) == self.MASTERS and set(states) == {"ok"}

    def wait(self) -> None:
        """Return when all slots are served and every replica follows its master."""
        wait_until(self._whole, "a whole cluster")

    def _whole(self) -> bool:
        for one in self.servers:
            about = one.client.execute_command("CLUSTER INFO")
            if about["cluster_state"] != "ok" or about["cluster_known_nodes"] != "6":
                return False
            state = one.info("replication")
            if state["role"] == "slave" and state["master_link_status"] != "up":
                return False
            if state["role"] == "master" and state["connected_slaves"] != 1:
                return False
        return len(self.masters()) == self.MASTERS


def _holds(master: RedisServer, slot: int) -> bool:
    """Whether a master holds a hash slot."""
    return any(
        first <= slot <= last and owner[1] == master.port
        for first, last, owner, *_ in master.client.execute_command("CLUSTER SLOTS")
    )


def _follows(replica: RedisServer, master: str) -> bool:
    """Make a server follow another one, once it has heard of it."""
    try:
        replica.client.execute_command("CLUSTER REPLICATE", master)
    except client.ResponseError:
        return False
    return True


def _cluster_ports(count: int) -> list[int]:
    """Free ports with free ones 10000 above, which servers of a Cluster talk to each other on.

    They lie below those that systems hand out to connections: nobody takes them meanwhile.
    """
    chance = random.Random(os.getpid() + time.monotonic_ns())
    found: list[int] = []
    for port in chance.sample(range(11_000, 21_000), 10_000):
        with suppress(OSError), socket.socket() as own, socket.socket() as bus:
            own.bind(("127.0.0.1", port))
            bus.bind(("127.0.0.1", port + 10_000))
            found.append(port)
        if len(found) == count:
            break
    return found


def lose_answers(monkeypatch: pytest.MonkeyPatch, of: str) -> list[str]:
    """Have the next group with a script carried out, and its answers lost; then go on as usual.

    What is returned is empty until that has happened.
    """
    lost: list[str] = []
    receive = RedisLink._receive

    def losing(self: RedisLink, parcel: Any, batch: Any) -> None:
        receive(self, parcel, batch)
        sent = {word for i in parcel.numbers for word in batch.commands[i].words[:2]}
        if not lost and of in sent:
            lost.append(of)
            parcel.connection.disconnect()
            batch.failed.update(dict.fromkeys(parcel.numbers, client.ConnectionError("gone")))

    monkeypatch.setattr(RedisLink, "_receive", losing)
    return lost


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for the whole test run."""
    with RedisServer(tmp_path_factory.mktemp("redis"), *free_ports(1)) as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """One Cluster for the whole test run."""
    with RedisCluster(tmp_path_factory.mktemp("redis-cluster")) as cluster:
        yield cluster
