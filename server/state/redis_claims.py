"""Claims on the ids of events in Redis.

An id is one among all users, but users lie in many places. So ids are claimed, each where it
belongs. A claim without its event, left by a crash, waits for the event to be sent again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any

from server.state.redis_keys import Keys
from server.state.redis_link import Command, RedisLink
from server.state.redis_script import Script
from server.state.redis_scripts import RELEASE

__all__ = ["Claim", "by_place", "claim_of", "holders_of", "mark_of", "release"]

Claim = tuple[str, bytes]
"""The id of an event, and who its owner is."""
Placed = list[tuple[list[Claim], Command]]
"""Claims that belong together, and the command about them."""


def claim_of(event_id: str, owner: str) -> Claim:
    """What is claimed for an event."""
    return event_id, mark_of(owner)


def mark_of(owner: str) -> bytes:
    """Tells whose an event is; 8 bytes."""
    return blake2b(owner.encode(), digest_size=8).digest()


def release(link: RedisLink, keys: Keys, claims: Iterable[Claim]) -> None:
    """Give claims back."""
    commands = [command for _, command in by_place(RELEASE, keys, claims)]
    link.write(commands, replicate=False)


def by_place(script: Script, keys: Keys, claims: Iterable[Claim]) -> Placed:
    """Claims by where they lie, and what runs a script on those of each place."""
    by_number: dict[int, list[Claim]] = defaultdict(list)
    for claim in claims:
        by_number[keys.number(claim[0])].append(claim)
    placed = []
    for n, some in by_number.items():
        place = keys.partitions[n]
        words = (word for claim in some for word in claim)
        placed.append((some, Command.of(script, place.slot, [place("ids")], *words)))
    return placed


def holders_of(placed: Placed, answers: Sequence[Any]) -> dict[Claim, bytes]:
    """Who had claimed ids, by the answers to ``redis_scripts.CLAIM``; empty: nobody."""
    return {
        claim: holder
        for (some, _), found in zip(placed, answers, strict=False)
        for claim, holder in zip(some, found, strict=True)
    }
