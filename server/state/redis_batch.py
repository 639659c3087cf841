"""Commands for Redis in groups: how they are sent, and what becomes of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import redis.exceptions as refusals
from redis.connection import ConnectionPool

from server.state.redis_script import Script
from server.state.redis_scripts import SCRIPTS

__all__ = ["Batch", "Command", "Parcel", "Server", "Word"]

Word = str | bytes | int | float

READ_TIMEOUT_S = 1.0
"""How long a server may think about reads."""
REPLICATION_MS = 200
"""How long a group of writes waits for a replica."""


class Command(NamedTuple):
    """A command, and where it goes."""

    slot: int
    """The hash slot of its keys."""
    words: tuple[Word, ...]
    events: int = 0
    """Events it writes: counted where they are not replicated in time."""

    @classmethod
    def of(
        cls, script: Script, slot: int, keys: Sequence[str], *words: Word, events: int = 0
    ) -> Command:
        """Running a script."""
        return cls(slot, ("EVALSHA", script.sha, len(keys), *keys, *words), events)


@dataclass
class Server:
    """A server, by host:port, and the connections to it."""

    name: str
    pool: ConnectionPool
    knows_scripts: bool = False


@dataclass
class Batch:
    """Commands, and what has become of them so far."""

    commands: Sequence[Command]
    timeout_s: float = READ_TIMEOUT_S
    replicate: bool = False
    together: bool = False
    answers: list[Any] = field(init=False)
    failed: dict[int, Exception] = field(default_factory=dict)
    """Why they failed last, by number."""
    asking: dict[int, str] = field(default_factory=dict)
    """Which server to ask for keys that it is just being handed, by number."""

    def __post_init__(self) -> None:
        """None is answered yet."""
        self.answers = [None] * len(self.commands)

    def take_together(self, numbers: Sequence[int], answer: Callable[[], Any]) -> None:
        """Take the answers of a transaction: of each of its commands, and then of all."""
        refused: Exception | None = None
        answer()
        for _ in numbers:
            try:
                answer()
            except refusals.ResponseError as error:
                refused = refused or error
        try:
            found = answer()
        except refusals.ExecAbortError as error:
            found = [refused or error] * len(numbers)
        for i, one in zip(numbers, found, strict=True):
            if isinstance(one, Exception):
                self.failed[i] = one
            else:
                self.answers[i] = one


@dataclass
class Parcel:
    """Commands on their way to one server."""

    server: Server
    connection: Any
    numbers: Sequence[int]
    teach: bool
    """Whether the scripts go first."""
    wait: bool
    """Whether replication is waited for at the end."""

    def words(self, batch: Batch) -> Iterator[tuple[Word, ...]]:
        if self.teach:
            yield from (("SCRIPT", "LOAD", script.text) for script in SCRIPTS)
        if batch.together:
            yield ("MULTI",)
        for i in self.numbers:
            if i in batch.asking:
                yield ("ASKING",)
            yield batch.commands[i].words
        if batch.together:
            yield ("EXEC",)
        if self.wait:
            yield ("WAIT", 1, REPLICATION_MS)

    def send(self, batch: Batch) -> None:
        self.connection.send_packed_command([_packed(self.words(batch))])


_LENGTHS = tuple(b"\r\n$%d\r\n" % n for n in range(4096))


def _packed(commands: Iterable[tuple[Word, ...]]) -> bytes:
    """Commands as they are sent: redis-py's own packing takes three times the time."""
    parts = []
    for words in commands:
        parts.append(b"*%d" % len(words))
        for word in words:
            data = word if isinstance(word, bytes) else str(word).encode()
            n = len(data)
            parts += (_LENGTHS[n] if n < 4096 else b"\r\n$%d\r\n" % n, data)
        parts.append(b"\r\n")
    return b"".join(parts)
