"""How the store in Redis forgets: users that ask for it, and what is too old.

A user lies in several places. What others hold of it goes first, so that as long as anything is
left it can be found; last goes the key that its values are sealed with, and until that is noted
nobody writes for the user anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

import numpy as np

from server.errors import StoreUnavailable, UserErased
from server.state.records import Records
from server.state.redis_alarms import RedisAlarms
from server.state.redis_append import forget_erasing, recall
from server.state.redis_catalogue import RedisCatalogue
from server.state.redis_claims import Claim, claim_of, release
from server.state.redis_keys import Keys
from server.state.redis_link import Command, RedisLink, Word
from server.state.redis_script import Script
from server.state.redis_scripts import ERASE, ERASE_IDLE, PRUNE_DELETIONS, PRUNE_EVENTS
from server.state.store import DAY_US, Deletion, Tombstone, tombstone_digest

__all__ = ["RedisForgetting"]


class RedisForgetting(RedisCatalogue):
    """The part of ``server.state.store.Store`` that is about what goes."""

    def __init__(self, link: RedisLink, keys: Keys, records: Records, alarms: RedisAlarms) -> None:
        """Set up."""
        super().__init__(link, keys, records)
        self._own_alarms = alarms

    def delete_user(self, user_id: str, receipt_id: str, now_us: int) -> Deletion:
        """Delete all that is held on a user, for good; events up to then are refused from now on.

        Deleting again, with nothing come since, tells the first deletion. Where a server is lost
        midway, some is deleted; deleting again deletes the rest.
        """
        owner, tombstone = self._records.owner_of(user_id), self._tombstone(user_id)
        place, there = self._keys.of(owner), self._keys.of(tombstone)
        kinds = ("engagements", "asides")
        lists = [Command(place.slot, ("ZRANGE", place(kind, owner), 0, -1)) for kind in kinds]
        self._release(owner, [event_id for ids in self._link.read(lists) for event_id in ids])
        here, elsewhere = self._link.read(recall(self._keys, owner, tombstone))
        earlier = elsewhere if elsewhere and not here else b""
        first_us, last_us = self._span(owner)
        words = (tombstone, earlier, receipt_id, now_us, first_us, last_us)
        value = self._erase(ERASE, owner, words)
        if elsewhere and there != place and value != elsewhere:
            self._link.write(
                [
                    Command(there.slot, ("HDEL", there("deleted"), tombstone)),
                    Command(there.slot, ("ZREM", there("deletions"), tombstone)),
                ]
            )
        return _tombstone(tombstone, value).deletion

    def _span(self, owner: str) -> tuple[Word, Word]:
        """Times of the first and the last event that a user's state knows of; '' if of none."""
        ((sealed,),) = self._link.read([self._user_fields(owner, "state")])
        if sealed is not None:
            with suppress(StoreUnavailable, UserErased):
                first, last = self._records.state(owner, sealed)[1].traces.span
                if np.isfinite(first):
                    return round(first * 1e6), round(last * 1e6)
        return "", ""

    def deletion(self, user_id: str) -> Deletion | None:
        """What is remembered of the deletion of a user; None of a user that was not deleted."""
        owner, tombstone = self._records.owner_of(user_id), self._tombstone(user_id)
        here, elsewhere = self._link.read(recall(self._keys, owner, tombstone))
        value = here or elsewhere
        return _tombstone(tombstone, value).deletion if value else None

    def deletions(self, after: str, limit: int) -> tuple[list[Tombstone], str]:
        """A page of all deletions remembered, by partition and moment, and where it ended."""
        number, _, last = after.partition(":")
        found: list[Tombstone] = []
        for n in range(int(number or 0), len(self._keys.partitions)):
            place = self._keys.partitions[n]
            (rank,) = self._link.read([Command(place.slot, ("ZRANK", place("deletions"), last))])
            start, left = 0 if rank is None else rank + 1, limit - len(found)
            words = ("ZRANGE", place("deletions"), start, start + left - 1)
            (names,) = self._link.read([Command(place.slot, words)])
            values = self._link.read(
                [Command(place.slot, ("HGET", place("deleted"), name)) for name in names]
            )
            rows = zip(names, values, strict=True)
            found += [_tombstone(name.decode(), value) for name, value in rows if value]
            if names:
                after = f"{n}:{names[-1].decode()}"
            if len(found) == limit:
                break
            last = ""
        return found, after

    def write_deletions(self, tombstones: Sequence[Tombstone]) -> None:
        """Create or replace what is remembered of deletions; nothing of their users is deleted."""
        names = [one.digest.hex() for one in tombstones]
        places = self._keys.partitions
        known = self._link.read(
            [Command(at.slot, ("HEXISTS", at("deleted"), name)) for name in names for at in places]
        )
        commands = []
        for n, (one, name) in enumerate(zip(tombstones, names, strict=True)):
            moment = one.deletion.time_us
            value = " ".join(map(str, (one.until_us, moment, *one.deletion[2:])))
            here = known[n * len(places) : (n + 1) * len(places)]
            # Whose a new one is, is not known, nor so where that user was.
            held = [at for at, there in zip(places, here, strict=True) if there]
            for place in held or [self._keys.of(name)]:
                words = (place("deleted"), name, f"{value} {one.deletion.receipt_id}")
                commands.append(Command(place.slot, ("HSET", *words)))
                commands.append(Command(place.slot, ("ZADD", place("deletions"), moment, name)))
        self._link.write(commands)

    def _erase(self, script: Script, owner: str, words: Sequence[Word]) -> bytes:
        """Delete all of a user with a script; what is remembered of it.

        What lies in others' places goes first: as long as anything is left, it can be found.
        """
        place = self._keys.of(owner)
        held = self._forget_relations(owner)
        held = self._own_alarms.forget(owner) or held
        if script is ERASE:
            words = (int(held), *words)
        own = ("user", "events", "engagements", "asides", "relations", "related", "from")
        shared = ("due", "line", "newest", "oldest", "owners", "relating", "log", "outbox")
        keys = [place(kind, owner) for kind in own]
        keys += [place(kind) for kind in (*shared, "deleted", "deletions", "erasing")]
        ((ids, value, erasing),) = self._link.write(
            [Command.of(script, place.slot, keys, owner, *words)]
        )
        self._release(owner, ids)
        self._own_alarms.forget(owner)  # what was told meanwhile
        if erasing:
            # Until it is noted that they are gone nobody writes with new keys, which would go too.
            self._records.vault.erase(owner)
            self._link.write([forget_erasing(self._keys, owner)])
        return bytes(value)

    def _release(self, owner: str, event_ids: Iterable[bytes]) -> None:
        claims: list[Claim] = [claim_of(event_id.decode(), owner) for event_id in event_ids]
        release(self._link, self._keys, claims)

    def prune_events(self, before_us: int, limit: int) -> int:
        """Forget logged events of before a moment, so many at most; how many went."""
        gone = 0
        for owner in self._below("oldest", before_us, limit):
            if gone >= limit:
                break
            place = self._keys.of(owner)
            own = [place(kind, owner) for kind in ("events", "engagements", "asides")]
            keys = [*own, place("oldest"), place("log"), place("user", owner)]
            words = (owner, before_us, limit - gone)
            (ids,) = self._link.write([Command.of(PRUNE_EVENTS, place.slot, keys, *words)])
            self._release(owner, ids)
            gone += len(ids)
        return gone

    def prune_users(self, before_us: int, limit: int) -> int:
        """Forget users whose newest event is of before a moment's day; how many went."""
        day = before_us // DAY_US
        owners = self._below("newest", day, limit)
        for owner in owners:
            self._erase(ERASE_IDLE, owner, (day,))
        return len(owners)

    def prune_deletions(self, before_us: int, limit: int) -> int:
        """Forget deletions of before a moment, so many at most; how many went."""
        gone = 0
        for place in self._keys.partitions:
            if gone < limit:
                keys = (place("deletions"), place("deleted"))
                words = (before_us, limit - gone)
                command = Command.of(PRUNE_DELETIONS, place.slot, keys, *words)
                gone += self._link.write([command])[0]
        return gone

    def _below(self, kind: str, bound: int, limit: int) -> list[str]:
        """Owners of whom something lies below a bound, in whichever partition; at most so many."""
        found = self._link.read(
            [
                Command(
                    place.slot,
                    ("ZRANGEBYSCORE", place(kind), "-inf", f"({bound}", "LIMIT", 0, limit),
                )
                for place in self._keys.partitions
            ]
        )
        return [owner.decode() for owners in found for owner in owners][:limit]

    def _user_fields(self, owner: str, *names: str) -> Command:
        place = self._keys.of(owner)
        return Command(place.slot, ("HMGET", place("user", owner), *names))

    def _tombstone(self, user_id: str) -> str:
        """What is remembered of a deleted user: enough to know it again, no more."""
        return tombstone_digest(user_id, self._own_alarms.store_id).hex()


def _tombstone(name: str, value: bytes) -> Tombstone:
    """What ``redis_scripts.ERASE`` remembers."""
    *numbers, receipt_id = value.decode().split(" ", 5)
    until_us, time_us, events, first_us, last_us = map(int, numbers)
    deletion = Deletion(receipt_id, time_us, events, first_us, last_us)
    return Tombstone(bytes.fromhex(name), until_us, deletion)
