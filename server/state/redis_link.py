"""The way to Redis or Valkey: who holds which keys, pipelines, and errors translated in one place.

Commands go in groups, to all servers that hold some of the keys at once; then the answers are read.
What a server that restarts, fails over or hands keys on did not answer is sent again for a while.
So every command must bear being carried out twice, or say that it does not.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlencode

import redis.exceptions as refusals
from redis.backoff import NoBackoff
from redis.connection import ConnectionPool
from redis.retry import Retry

from server.errors import EbbingError, StorageFull, StoreUnavailable
from server.state.redis_batch import Batch, Command, Parcel, Server, Word
from server.state.redis_scripts import SCRIPTS

__all__ = ["Address", "Command", "RedisLink", "Word"]

SLOTS = 16384
PATIENCE_S = 8.0
"""How long writes go on trying: a Cluster replaces a lost master within that time."""
READ_PATIENCE_S = 0.2
"""How long reads do: whoever reads may be in others' way."""
CONNECT_TIMEOUT_S = 1.0
ANSWER_TIMEOUT_S = 3.0
"""How long a server may think about what it is sent."""
LOOK_S = 1.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.01, 0.2

_NOT_DONE = (
    refusals.AskError,  # and MovedError, which is one
    refusals.TryAgainError,
    refusals.ClusterDownError,
    refusals.NoScriptError,
    refusals.ReadOnlyError,
)
"""Refusals that pass, or that another server does not make."""
_UNKNOWN = (refusals.ConnectionError, refusals.TimeoutError)
"""Failures that leave open whether it was carried out."""
_LOCKED_OUT = (refusals.AuthenticationError, refusals.NoPermissionError)


class Address(NamedTuple):
    """What a URL says: ``redis://``, ``rediss://`` (TLS), either with ``+cluster`` before ``://``.

    ``redis+cluster://user:password@host:port,host:port?name=shop``: of a Cluster some servers are
    enough. The query may hold options of redis-py, such as ``ssl_ca_certs``.
    """

    template: str
    """URL of a server, but for its host and port."""
    servers: tuple[str, ...]
    """Each host:port."""
    cluster: bool
    name: str
    """What all keys begin with, so that stores can share servers."""

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read a URL.

        Raises:
            StoreUnavailable: it is none.
        """
        scheme, _, rest = url.partition("://")
        kind, _, cluster = scheme.partition("+")
        rest, _, query = rest.partition("?")
        where, slash, path = rest.partition("/")
        login, at, hosts = where.rpartition("@")
        options = parse_qs(query)
        (name,) = options.pop("name", ["ebbing"])[:1]
        servers = tuple(filter(None, hosts.split(",")))
        most = 1 if cluster != "cluster" else len(servers)
        good = kind in {"redis", "rediss"} and cluster in {"", "cluster"} and not {*"{}"} & {*url}
        if not good or not 1 <= len(servers) <= most:
            raise StoreUnavailable(
                "the address of the state server is none: write redis://HOST:PORT/DATABASE,"
                " rediss://… for TLS, or redis+cluster://HOST:PORT,HOST:PORT for a Cluster"
            )
        template = f"{kind}://{login}{at}{{}}{slash}{path}?{urlencode(options, doseq=True)}"
        return cls(template, servers, bool(cluster), name)


class RedisLink:
    """Sends commands to one server, or to the servers of a Cluster; for any number of threads."""

    def __init__(
        self, address: Address, unreplicated: Callable[[int], None], patience_s: float = PATIENCE_S
    ) -> None:
        """Find the servers.

        Args:
            address: where they are.
            unreplicated: is told of events that no replica of a Cluster confirmed in time.
            patience_s: how long writes go on trying, seconds.

        Raises:
            StoreUnavailable: none answers.
        """
        self._address = address
        self._patience_s = patience_s
        self._unreplicated = unreplicated
        self._lock = threading.Lock()
        self._servers: dict[str, Server] = {}
        self._masters: Sequence[str] = address.servers[:1] * SLOTS
        self._replicated: Mapping[str, bool] = {}
        self._look_at = 0.0
        if address.cluster:
            self._look_around()
            if not self._replicated:
                raise _translated(refusals.ClusterDownError("no server tells who holds what"))

    @property
    def one_server(self) -> bool:
        """Whether one server holds all keys, so that a script may use any."""
        return not self._address.cluster

    @property
    def masters(self) -> list[str]:
        """The servers that take writes."""
        return sorted(set(self._masters))

    def close(self) -> None:
        """Give all connections back."""
        for server in self._servers.values():
            server.pool.disconnect()

    def ask(self, server: str, *words: str) -> Any:
        """What one server says of itself.

        Raises:
            StoreUnavailable: it does not answer.
        """
        batch = Batch([Command(0, words)])
        self._attempt(batch, {server: [0]})
        for error in batch.failed.values():
            raise _translated(error) from error
        return batch.answers[0]

    def read(self, commands: Sequence[Command], patient: bool = False) -> list[Any]:
        """Answers of commands that write nothing; if not patient, tried again for a moment only.

        Raises:
            StoreUnavailable: a server refuses, or does not answer.
        """
        batch = Batch(commands)
        self._run(batch, self._patience_s if patient else READ_PATIENCE_S)
        return batch.answers

    def write(
        self,
        commands: Sequence[Command],
        patient: bool = True,
        repeat: bool = True,
        replicate: bool = True,
        together: bool = False,
        resent: set[int] | None = None,
    ) -> list[Any]:
        """Answers of commands that write: durable when they are given.

        Args:
            commands: each may be carried out twice, with the answer of the second time.
            patient: False tries again for a moment only.
            repeat: False sends nothing again that may have been carried out.
            replicate: wait a moment for a replica in a Cluster.
            together: where one server holds all keys it syncs once for all, and not as often as it
                has read 16 KB of them; and refuses all of them where there is no room.
            resent: takes the numbers of commands that may have been carried out more than once.

        Raises:
            StoreUnavailable: a server refuses, or does not answer; the others have written.
            StorageFull: a server has no room; the others have written.
        """
        replicate, together = replicate and not self.one_server, together and self.one_server
        batch = Batch(commands, ANSWER_TIMEOUT_S, replicate, together)
        self._run(batch, self._patience_s if patient else READ_PATIENCE_S, repeat, resent)
        return batch.answers

    def _run(
        self,
        batch: Batch,
        patience_s: float,
        repeat: bool = True,
        resent: set[int] | None = None,
    ) -> None:
        left: Sequence[int] = range(len(batch.commands))
        deadline = time.monotonic() + patience_s
        pause = 0.0
        while left:
            masters = self._masters
            by_server: dict[str, list[int]] = defaultdict(list)
            for i in left:
                by_server[batch.asking.get(i) or masters[batch.commands[i].slot]].append(i)
            batch.failed.clear()
            self._attempt(batch, by_server)
            batch.asking.clear()
            for i, error in batch.failed.items():
                unknown = isinstance(error, _UNKNOWN)
                lasting = not unknown and not isinstance(error, _NOT_DONE)
                late = time.monotonic() > deadline
                if lasting or late or isinstance(error, _LOCKED_OUT) or (unknown and not repeat):
                    raise _translated(error) from error
                if unknown and resent is not None:
                    resent.add(i)
                if type(error) is refusals.AskError:
                    batch.asking[i] = f"{error.host}:{error.port}"
            left = sorted(batch.failed)
            if left:
                time.sleep(pause)
                pause = min(LONGEST_PAUSE_S, 2 * pause or FIRST_PAUSE_S)
                if self._address.cluster:
                    self._look_around()

    def _attempt(self, batch: Batch, by_server: Mapping[str, Sequence[int]]) -> None:
        """Send commands to all servers, then read all answers; ``batch`` tells what failed."""
        parcels: list[Parcel] = []
        try:
            for name, numbers in by_server.items():
                server = self._server(name)
                try:
                    connection = server.pool.get_connection()
                except refusals.RedisError as error:
                    passes = isinstance(error, _UNKNOWN) and not isinstance(error, _LOCKED_OUT)
                    # Nothing was sent, so there is nothing unknown about it.
                    why = refusals.ClusterDownError(str(error)) if passes else error
                    batch.failed.update(dict.fromkeys(numbers, why))
                    continue
                wait = batch.replicate and self._replicated.get(name, False)
                parcel = Parcel(server, connection, numbers, not server.knows_scripts, wait)
                parcels.append(parcel)
                try:
                    parcel.send(batch)
                except refusals.RedisError as error:
                    batch.failed.update(dict.fromkeys(numbers, error))
            for parcel in parcels:
                if parcel.numbers[0] not in batch.failed:
                    self._receive(parcel, batch)
        except BaseException:
            for parcel in parcels:
                parcel.connection.disconnect()  # there may be answers in it that nobody reads
            raise
        finally:
            for parcel in parcels:
                parcel.server.pool.release(parcel.connection)

    def _receive(self, parcel: Parcel, batch: Batch) -> None:
        answer = partial(parcel.connection.read_response, timeout=batch.timeout_s)
        server = parcel.server
        left = list(reversed(parcel.numbers))
        try:
            if parcel.teach:
                for _ in SCRIPTS:
                    answer()
                server.knows_scripts = True
            if batch.together:
                batch.take_together(parcel.numbers, answer)
                left = []
            while left:
                i = left[-1]
                try:
                    if i in batch.asking:
                        answer()
                    batch.answers[i] = answer()
                except refusals.ResponseError as error:
                    batch.failed[i] = error
                left.pop()
            failed = [batch.failed[i] for i in parcel.numbers if i in batch.failed]
            server.knows_scripts &= not any(isinstance(e, refusals.NoScriptError) for e in failed)
            replicated = parcel.wait and answer() > 0
            if parcel.wait and not replicated:
                self._look_soon()  # there may be none any more
            done = (batch.commands[i] for i in parcel.numbers if i not in batch.failed)
            events = sum(command.events for command in done)
            if batch.replicate and not replicated and events:
                self._unreplicated(events)
        except refusals.RedisError as error:
            parcel.connection.disconnect()
            server.knows_scripts = False
            batch.failed.update(dict.fromkeys(left, error))

    def _server(self, name: str) -> Server:
        with self._lock:
            if name not in self._servers:
                pool = ConnectionPool.from_url(
                    self._address.template.format(name),
                    protocol=2,
                    retry=Retry(NoBackoff(), 0),
                    socket_connect_timeout=CONNECT_TIMEOUT_S,
                    socket_timeout=ANSWER_TIMEOUT_S,
                )
                self._servers[name] = Server(name, pool)
            return self._servers[name]

    def _look_soon(self) -> None:
        """Look around, but not over and over."""
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_S
            self._look_around()

    def _look_around(self) -> None:
        """Ask who holds which slots; where nobody can tell, all stays as it was."""
        for name in dict.fromkeys([*self.masters, *self._servers, *self._address.servers]):
            batch = Batch([Command(0, ("CLUSTER", "SLOTS"))])
            self._attempt(batch, {name: [0]})
            if batch.failed:
                continue
            masters = [""] * SLOTS
            replicated = {}
            for first, last, (host, port, *_), *replicas in batch.answers[0]:
                # A server that was never told its own address gives none: it is the one asked.
                master = f"{host.decode() or name.rpartition(':')[0]}:{port}"
                masters[first : last + 1] = [master] * (last + 1 - first)
                replicated[master] = bool(replicas)
            if all(masters):
                self._masters, self._replicated = masters, replicated
                return


def _translated(error: Exception) -> EbbingError:
    """The error of the store that a client's error is."""
    text = str(error)
    if isinstance(error, refusals.OutOfMemoryError) or "OOM command" in text or "MISCONF" in text:
        return StorageFull(
            "the state server has no room left, in memory or on its disk: give it more, or keep"
            " things for a shorter time"
        )
    if isinstance(error, _LOCKED_OUT):
        return StoreUnavailable(
            "the state server refuses this gateway: check user, password and what the user may do"
        )
    if isinstance(error, (*_NOT_DONE, *_UNKNOWN)):
        return StoreUnavailable("the state server does not answer, or is being replaced")
    return StoreUnavailable(
        "the state server refused a command: check that it is Redis 6.2, Valkey or later, and that"
        " its keys are those of Ebbing"
    )
