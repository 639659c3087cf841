"""What the store in Redis knows besides users: items, interests, relations, the rollout."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress

from server.errors import ItemKeyCollision, UserErased
from server.state.records import Records
from server.state.redis_keys import Keys, Place
from server.state.redis_link import Command, RedisLink, Word
from server.state.redis_scripts import (
    DELETE_ITEM,
    DELETE_ROW,
    FIND_ITEMS,
    READ_ROWS,
    ROLL_OUT,
    WRITE_ITEMS,
    WRITE_ROWS,
)
from server.state.store import InterestRecord, ItemRecord, RelationRecord, Rollout

__all__ = ["RedisCatalogue"]


class RedisCatalogue:
    """The part of ``server.state.store.Store`` that is about none of its users' interests."""

    def __init__(self, link: RedisLink, keys: Keys, records: Records) -> None:
        """Set up."""
        self._link = link
        self._keys = keys
        self._records = records
        place = keys.catalogue
        self._interests = (place("interests"), place("paths"))
        self._item_tables = (place("items"), place("names"), place("ids"), place("version"))

    def popular(self, limit: int) -> list[int]:
        """Keys of the items with most recent engagement, best first."""
        place = self._keys.heat
        words = ("ZREVRANGEBYSCORE", place("items"), "+inf", "-inf", "LIMIT", 0, limit)
        (found,) = self._link.read([Command(place.slot, words)])
        return [int(key) for key in found]

    def catalogue_version(self) -> int:
        """A number that changes whenever an item does."""
        place = self._keys.catalogue
        (version,) = self._link.read([Command(place.slot, ("GET", place("version")))])
        return int(version or 0)

    def write_items(self, items: Sequence[ItemRecord]) -> None:
        """Create or replace items, all or none."""
        words: list[Word] = []
        for one in items:
            about = json.dumps([one.interests, one.available_us, one.expire_us])
            value = f"{one.item_key}\n{about}\n".encode() + one.body
            words += [one.item_id, one.item_key, value]
        slot = self._keys.catalogue.slot
        (written,) = self._link.write([Command.of(WRITE_ITEMS, slot, self._item_tables, *words)])
        if not written:
            raise ItemKeyCollision(
                "the 63-bit key of an item is that of another one: rename the item"
            )

    def delete_item(self, item_id: str) -> None:
        """Delete an item; nothing happens where there is none."""
        slot = self._keys.catalogue.slot
        self._link.write([Command.of(DELETE_ITEM, slot, self._item_tables, item_id)])

    def items(self, keys: Sequence[int]) -> list[ItemRecord]:
        """The items among keys that the catalogue holds, in any order."""
        items, _, ids, _ = self._item_tables
        slot = self._keys.catalogue.slot
        ((names, values),) = self._link.read([Command.of(FIND_ITEMS, slot, (items, ids), *keys)])
        return [_item(*row) for row in zip(names, values, strict=True)]

    def list_items(self, after: str, limit: int) -> list[ItemRecord]:
        """Items by id, after a given one."""
        rows = self._rows(self._keys.catalogue, self._item_tables[:2], after, limit)
        return [_item(*row) for row in rows]

    def write_interests(self, interests: Sequence[InterestRecord]) -> None:
        """Create or replace descriptions of interests, all or none."""
        words = [word for one in interests for word in one]
        slot = self._keys.catalogue.slot
        self._link.write([Command.of(WRITE_ROWS, slot, self._interests, *words)])

    def list_interests(self, after: str, limit: int) -> list[InterestRecord]:
        """Described interests by path, after a given one."""
        rows = self._rows(self._keys.catalogue, self._interests, after, limit)
        return [InterestRecord(path.decode(), body) for path, body in rows]

    def write_relations(self, relations: Sequence[RelationRecord]) -> None:
        """Create or replace relations; all, or those of some users where a server is lost midway.

        Those that a user has with others are written as one step.
        """
        owner_of = self._records.owner_of
        named = [(owner_of(one.user_id), owner_of(one.other_user_id), one) for one in relations]
        self._records.vault.prepare({owner for owner, _, _ in named})
        rows: dict[str, list[Word]] = defaultdict(list)
        backwards = []
        for owner, other, one in named:
            rows[owner] += [other, self._records.relation(owner, one)]
            place = self._keys.of(other)
            backwards.append(Command(place.slot, ("SADD", place("from", other), owner)))
        for owner in rows:
            place = self._keys.of(owner)
            backwards.append(Command(place.slot, ("ZADD", place("relating"), 0, owner)))
        # First where they lead to: nothing is written that a deletion would not find.
        self._link.write(backwards)
        self._link.write(
            [
                Command.of(WRITE_ROWS, self._keys.of(owner).slot, self._relations(owner), *words)
                for owner, words in rows.items()
            ]
        )

    def list_relations(self, user_id: str, after: str, limit: int) -> list[RelationRecord]:
        """A user's relations, by other user as it is named in storage, after a given one."""
        owner = self._records.owner_of(user_id)
        last = self._records.owner_of(after) if after else ""
        found: list[RelationRecord] = []
        while len(found) < limit:
            page, last = self._relations_after(owner, last, limit - len(found))
            if not last:
                break
            found += page
        return found

    def _relations_after(
        self, owner: str, after: str, limit: int
    ) -> tuple[list[RelationRecord], str]:
        """A page of a user's relations, and where it ended; '' where there are no more."""
        found = []
        rows = self._rows(self._keys.of(owner), self._relations(owner), after, limit)
        for _, value in rows:
            with suppress(UserErased):  # written while its user was deleted
                found.append(self._records.opened_relation(owner, value))
        return found, rows[-1][0].decode() if rows else ""

    def relations_with(self, user_id: str) -> list[RelationRecord]:
        """All relations from and to a user."""
        owner = self._records.owner_of(user_id)
        place = self._keys.of(owner)
        others, mine = self._link.read(
            [
                Command(place.slot, ("SMEMBERS", place("from", owner))),
                Command(place.slot, ("HVALS", place("relations", owner))),
            ]
        )
        to_it = [(other.decode(), owner) for other in sorted(others) if other.decode() != owner]
        theirs = self._link.read(
            [
                Command(self._keys.of(one).slot, ("HGET", self._relations(one)[0], to))
                for one, to in to_it
            ]
        )
        rows = [(owner, value) for value in mine]
        rows += [(one, value) for (one, _), value in zip(to_it, theirs, strict=True) if value]
        found = []
        for one, value in rows:
            with suppress(UserErased):  # written while its user was deleted
                found.append(self._records.opened_relation(one, value))
        return found

    def rollout(self) -> Rollout:
        """Which releases serve whom."""
        place = self._keys.catalogue
        words = ("HMGET", place("rollout"), "version", "body")
        ((version, body),) = self._link.read([Command(place.slot, words)])
        return Rollout(int(version or 0), body or b"")

    def write_rollout(self, rollout: Rollout) -> bool:
        """Replace it, if its version is the next one; whether it was."""
        place = self._keys.catalogue
        resent: set[int] = set()
        command = Command.of(ROLL_OUT, place.slot, [place("rollout")], *rollout)
        (outcome,) = self._link.write([command], resent=resent)
        return outcome == 1 or (outcome == 2 and bool(resent))

    def _forget_relations(self, owner: str) -> bool:
        """Delete what others' keys hold of relations with a user; whether there were any."""
        place = self._keys.of(owner)
        froms, tos = self._link.read(
            [
                Command(place.slot, ("SMEMBERS", place("from", owner))),
                Command(place.slot, ("HKEYS", place("relations", owner))),
            ]
        )
        commands = []
        for other in (one.decode() for one in froms):
            slot = self._keys.of(other).slot
            commands.append(Command.of(DELETE_ROW, slot, self._relations(other), owner))
        for other in (one.decode() for one in tos):
            there = self._keys.of(other)
            commands.append(Command(there.slot, ("SREM", there("from", other), owner)))
        return any(self._link.write(commands))

    def _relations(self, owner: str) -> tuple[str, str]:
        place = self._keys.of(owner)
        return place("relations", owner), place("related", owner)

    def _rows(
        self, place: Place, table: Sequence[str], after: str, limit: int
    ) -> list[tuple[bytes, bytes]]:
        """A page of a table."""
        command = Command.of(READ_ROWS, place.slot, table, after, limit)
        ((names, values),) = self._link.read([command])
        return list(zip(names, values, strict=True))


def _item(item_id: bytes, value: bytes) -> ItemRecord:
    key, about, body = value.split(b"\n", 2)
    interests, available_us, expire_us = json.loads(about)
    pairs = tuple((name, share) for name, share in interests)
    return ItemRecord(item_id.decode(), int(key), pairs, available_us, expire_us, body)
