"""Users in Redis that a killed server left torn, made whole; see ``redis_torn_scripts``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from server.state.redis_keys import Keys
from server.state.redis_link import Command, RedisLink
from server.state.redis_torn_scripts import LOGGED, MEND

__all__ = ["logged", "mend"]


def mend(link: RedisLink, keys: Keys, owners: Iterable[str]) -> None:
    """Forget what is of steps that were undone, of each user as one step."""
    commands = []
    for owner in owners:
        place = keys.of(owner)
        own = [place(kind, owner) for kind in ("user", "events", "engagements", "asides")]
        commands.append(Command.of(MEND, place.slot, [*own, place("log")]))
    link.write(commands)


def logged(
    link: RedisLink, keys: Keys, event_ids: Mapping[str, Sequence[bytes]]
) -> dict[tuple[str, bytes], bytes | None]:
    """What is stored of events, given by owner, once these are whole; None of what is not there."""
    commands = []
    for owner, ids in event_ids.items():
        place = keys.of(owner)
        own = (place("user", owner), place("events", owner))
        commands.append(Command.of(LOGGED, place.slot, own, *ids))
    while True:
        found = dict(zip(event_ids, link.read(commands), strict=True))
        if not (torn := [owner for owner, (is_torn, _) in found.items() if is_torn]):
            break
        mend(link, keys, torn)
    return {
        (owner, event_id): value
        for owner, (_, values) in found.items()
        for event_id, value in zip(event_ids[owner], values, strict=True)
    }
