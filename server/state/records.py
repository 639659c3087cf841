"""How what is stored of users is encoded and sealed: one way for all engines."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from server.errors import EbbingError, StoreUnavailable
from server.state import user_state
from server.state.alarms import Alarm, Transition
from server.state.store import Interaction, RelationRecord, UserState
from server.state.user_state import Bounds, Growth, Logged
from server.state.vault import Vault

__all__ = ["AlarmRow", "Grown", "Records"]

_EVENT = struct.Struct("<dqHHI")
"""Weight, item key, event type, interests, bytes of their names."""
_TRANSITION = struct.Struct("<BBqdHH")
"""From, to, time, retention, bytes of the user id, bytes of the interest."""
_LENGTH = struct.Struct("<H")

STATE, EVENT, TOLD, TRANSITION, RELATION = "state", "event", "alarm", "transition", "relation"
"""What values are sealed for."""


class AlarmRow(NamedTuple):
    """An alarm as it is stored; see ``server.state.alarms.Alarm``."""

    owner: str
    due_us: int | None
    touched: bool
    version: int
    told: bytes
    """Sealed."""
    state: bytes
    """Sealed."""


class Grown(NamedTuple):
    """A user of whom there are new events."""

    user_id: str
    owner: str
    sealed: bytes | None
    """The state before; None for one without events."""
    new: Sequence[Interaction]
    logged: Logged = lambda: ()
    """See ``user_state.Growth``."""


class Records:
    """Encodes and seals; ``owner`` is how a user is named in storage.

    All that reads raises ``StoreUnavailable`` for damaged bytes, and ``UserErased`` for those of a
    user whose key is gone.
    """

    def __init__(self, vault: Vault, bounds: Bounds) -> None:
        """Set up.

        Args:
            vault: names users and seals.
            bounds: how much is kept of a user.
        """
        self.vault = vault
        self._bounds = bounds

    def owner_of(self, user_id: str) -> str:
        """How a user is named in storage."""
        return self.vault.owner_of(user_id)

    def digest(self, owner: str, one: Interaction) -> bytes:
        """Tells the bodies of a user's events apart; 16 bytes."""
        return self.vault.digest(owner, one.body)

    def event(self, owner: str, one: Interaction) -> bytes:
        """A logged event, but for its id and time."""
        names = "\0".join(name for name, _ in one.interests).encode()
        count = len(one.interests)
        data = b"".join(
            (
                _EVENT.pack(one.weight, one.item_key, one.event_type, count, len(names)),
                struct.pack(f"<{count}d", *(share for _, share in one.interests)),
                names,
                _with_id(one.user_id, one.body),
            )
        )
        return self.vault.seal(owner, EVENT, data)

    def interaction(self, owner: str, event_id: str, time_us: int, sealed: bytes) -> Interaction:
        """The event of ``event``."""
        data = self.vault.open(owner, EVENT, sealed)
        try:
            weight, item_key, event_type, count, name_bytes = _EVENT.unpack_from(data)
            at = _EVENT.size + 8 * count
            shares = struct.unpack_from(f"<{count}d", data, _EVENT.size)
            names = data[at : at + name_bytes].decode().split("\0") if count else []
            user_id, body = _without_id(data[at + name_bytes :])
            interests = tuple(zip(names, shares, strict=True))
        except (struct.error, ValueError) as error:
            raise _of_another_version("event") from error
        return Interaction(
            event_id, user_id, item_key, event_type, time_us, weight, interests, body
        )

    def advanced(self, users: Sequence[Grown]) -> list[bytes]:
        """The states of users after more events; see ``user_state.advanced_all``."""
        growths = [
            Growth(
                None if one.sealed is None else self._state_of(one.owner, one.sealed),
                one.new,
                one.logged,
            )
            for one in users
        ]
        try:
            states = user_state.advanced_all(growths, self._bounds)
        except struct.error as error:
            raise _of_another_version("state") from error
        return [
            self.sealed_state(one.user_id, one.owner, state)
            for one, state in zip(users, states, strict=True)
        ]

    def _state_of(self, owner: str, sealed: bytes) -> bytes:
        data = self.vault.open(owner, STATE, sealed)
        return data[_LENGTH.size + _LENGTH.unpack_from(data)[0] :]

    def sealed_state(self, user_id: str, owner: str, state: bytes) -> bytes:
        """A user's state as it is stored."""
        return self.vault.seal(owner, STATE, _with_id(user_id, state))

    def state_bytes(self, owner: str, sealed: bytes) -> tuple[str, bytes]:
        """The user id and the state in what is stored."""
        return _without_id(self.vault.open(owner, STATE, sealed))

    def state(self, owner: str, sealed: bytes) -> tuple[str, UserState]:
        """The user id and what the state tells."""
        return self.states([(owner, sealed)])[0]

    def states(self, rows: Iterable[tuple[str, bytes]]) -> list[tuple[str, UserState]]:
        """The user ids and what the states of owners tell; one that is damaged fails all."""
        opened = [self.state_bytes(owner, sealed) for owner, sealed in rows]
        try:
            told = user_state.decode_all([data for _, data in opened])
        except (struct.error, ValueError) as error:
            raise _of_another_version("state") from error
        return [(user_id, state) for (user_id, _), state in zip(opened, told, strict=True)]

    def alarms(self, rows: Sequence[AlarmRow]) -> list[Alarm]:
        """Alarms as they are solved; what cannot be read of one is empty there."""
        try:
            told = [self.opened_told(row.owner, row.told) for row in rows]
            states = self.states((row.owner, row.state) for row in rows)
        except EbbingError:
            if len(rows) > 1:
                return [alarm for row in rows for alarm in self.alarms([row])]
            # Whoever solves it says so, and puts it off.
            ((owner, due_us, touched, version, _, _),) = rows
            return [Alarm(owner, "", due_us, touched, version, b"", None)]
        return [
            Alarm(row.owner, user_id, row.due_us, row.touched, row.version, data, state.traces)
            for row, data, (user_id, state) in zip(rows, told, states, strict=True)
        ]

    def told(self, owner: str, data: bytes) -> bytes:
        """What was told of a user, as it is stored; nothing stays nothing."""
        return self.vault.seal(owner, TOLD, data) if data else b""

    def opened_told(self, owner: str, sealed: bytes) -> bytes:
        """What was told of a user."""
        return self.vault.open(owner, TOLD, sealed) if sealed else b""

    def transition(self, owner: str, one: Transition) -> bytes:
        """A transition."""
        user, interest = one.user_id.encode(), one.interest.encode()
        header = _TRANSITION.pack(
            one.from_state, one.to_state, one.time_us, one.retention, len(user), len(interest)
        )
        return self.vault.seal(owner, TRANSITION, b"".join((header, user, interest, one.reason)))

    def opened_transition(self, owner: str, sealed: bytes) -> Transition:
        """The transition of ``transition``."""
        data = self.vault.open(owner, TRANSITION, sealed)
        before, after, time_us, retention, user, interest = _TRANSITION.unpack_from(data)
        at = _TRANSITION.size
        user_id = data[at : at + user].decode()
        name = data[at + user : at + user + interest].decode()
        reason = data[at + user + interest :]
        return Transition(user_id, name, before, after, time_us, retention, reason)

    def relation(self, owner: str, one: RelationRecord) -> bytes:
        """A relation, sealed for the user it is from."""
        data = _with_id(one.user_id, _with_id(one.other_user_id, one.body))
        return self.vault.seal(owner, RELATION, data)

    def opened_relation(self, owner: str, sealed: bytes) -> RelationRecord:
        """The relation of ``relation``."""
        user_id, rest = _without_id(self.vault.open(owner, RELATION, sealed))
        return RelationRecord(user_id, *_without_id(rest))


def _with_id(name: str, data: bytes) -> bytes:
    encoded = name.encode()
    return _LENGTH.pack(len(encoded)) + encoded + data


def _without_id(data: bytes) -> tuple[str, bytes]:
    (length,) = _LENGTH.unpack_from(data)
    end = _LENGTH.size + length
    return data[_LENGTH.size : end].decode(), data[end:]


def _of_another_version(what: str) -> StoreUnavailable:
    return StoreUnavailable(f"a stored {what} is of another version: run the gateway that wrote it")
