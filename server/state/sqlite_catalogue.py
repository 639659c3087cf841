"""What the embedded store knows besides users: items, interests, relations, the rollout."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from typing import Any

import apsw

from server.errors import ItemKeyCollision, StoreUnavailable
from server.state.records import Records
from server.state.sqlite_file import SqliteFile
from server.state.store import InterestRecord, Interests, ItemRecord, RelationRecord, Rollout

__all__ = ["CATALOGUE_SCHEMA", "SqliteCatalogue", "whole"]

# What has neither a checksum nor a seal is in an index too, and a check compares the two.
CATALOGUE_SCHEMA = """
CREATE TABLE item_heat (item_key INTEGER PRIMARY KEY, heat REAL NOT NULL);
CREATE INDEX hottest_items ON item_heat (heat DESC);
CREATE TABLE items (
    item_id TEXT PRIMARY KEY,
    item_key INTEGER NOT NULL UNIQUE,
    interests TEXT NOT NULL,
    available_time INTEGER NOT NULL,
    expire_time INTEGER NOT NULL,
    body BLOB NOT NULL,
    checksum INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE interests (
    path TEXT PRIMARY KEY,
    body BLOB NOT NULL,
    checksum INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE relations (
    owner TEXT NOT NULL,
    other TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (owner, other)
) WITHOUT ROWID;
CREATE INDEX relations_to ON relations (other, owner);
CREATE TABLE rollout (version INTEGER NOT NULL, body BLOB NOT NULL);
CREATE INDEX rollout_again ON rollout (version, body);
INSERT INTO rollout VALUES (0, x'');
"""

_ITEM_COLUMNS = "item_id, item_key, interests, available_time, expire_time, body, checksum"


class SqliteCatalogue:
    """The part of ``server.state.store.Store`` that is about none of its users' interests."""

    def __init__(self, file: SqliteFile, records: Records) -> None:
        """Set up on a file with these tables."""
        self._file = file
        self._records = records

    def popular(self, limit: int) -> list[int]:
        """Keys of the items with most recent engagement, best first."""
        rows = self._file.rows(
            "SELECT item_key FROM item_heat ORDER BY heat DESC LIMIT ?", (limit,)
        )
        return [key for (key,) in rows]

    def catalogue_version(self) -> int:
        """A number that changes whenever an item does."""
        return int(self._fact("catalogue"))

    def write_items(self, items: Sequence[ItemRecord]) -> None:
        """Create or replace items, all or none."""
        rows = [
            (*row, checksum(row))
            for row in (
                (
                    i.item_id,
                    i.item_key,
                    json.dumps(i.interests),
                    i.available_us,
                    i.expire_us,
                    i.body,
                )
                for i in items
            )
        ]
        upsert = (
            f"INSERT INTO items ({_ITEM_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (item_id) DO UPDATE SET interests = excluded.interests,"
            " available_time = excluded.available_time, expire_time = excluded.expire_time,"
            " body = excluded.body, checksum = excluded.checksum"
        )
        with self._file.transaction() as db:
            try:
                db.executemany(upsert, rows)
            except apsw.ConstraintError:
                raise ItemKeyCollision(
                    "the 63-bit key of an item is that of another one: rename the item"
                ) from None
            self._touch_catalogue(db)

    def delete_item(self, item_id: str) -> None:
        """Delete an item; nothing happens where there is none."""
        with self._file.transaction() as db:
            db.execute("DELETE FROM items WHERE item_id = ?", (item_id,))
            self._touch_catalogue(db)

    def items(self, keys: Sequence[int]) -> list[ItemRecord]:
        """The items among keys that the catalogue holds, in any order."""
        rows = self._file.rows(
            f"SELECT {_ITEM_COLUMNS} FROM items WHERE item_key IN (SELECT value FROM json_each(?))",
            (json.dumps(list(keys)),),
        )
        return [_item(row) for row in rows]

    def list_items(self, after: str, limit: int) -> list[ItemRecord]:
        """Items by id, after a given one."""
        rows = self._file.rows(
            f"SELECT {_ITEM_COLUMNS} FROM items WHERE item_id > ? ORDER BY item_id LIMIT ?",
            (after, limit),
        )
        return [_item(row) for row in rows]

    def write_interests(self, interests: Sequence[InterestRecord]) -> None:
        """Create or replace descriptions of interests, all or none."""
        with self._file.transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO interests VALUES (?, ?, ?)",
                ((*row, checksum(row)) for row in interests),
            )

    def list_interests(self, after: str, limit: int) -> list[InterestRecord]:
        """Described interests by path, after a given one."""
        rows = self._file.rows(
            "SELECT path, body, checksum FROM interests WHERE path > ? ORDER BY path LIMIT ?",
            (after, limit),
        )
        return [InterestRecord(*whole(row)) for row in rows]

    def write_relations(self, relations: Sequence[RelationRecord]) -> None:
        """Create or replace relations, all or none."""
        owner_of = self._records.owner_of
        named = [(owner_of(one.user_id), owner_of(one.other_user_id), one) for one in relations]
        with self._file.transaction() as db:
            self._records.vault.prepare({owner for owner, _, _ in named})
            db.executemany(
                "INSERT OR REPLACE INTO relations VALUES (?, ?, ?)",
                ((owner, to, self._records.relation(owner, one)) for owner, to, one in named),
            )

    def list_relations(self, user_id: str, after: str, limit: int) -> list[RelationRecord]:
        """A user's relations, by other user as it is named in storage, after a given one."""
        owner_of = self._records.owner_of
        rows = self._file.rows(
            "SELECT owner, value FROM relations WHERE owner = ? AND other > ?"
            " ORDER BY other LIMIT ?",
            (owner_of(user_id), owner_of(after) if after else "", limit),
        )
        return [self._records.opened_relation(*row) for row in rows]

    def relations_with(self, user_id: str) -> list[RelationRecord]:
        """All relations from and to a user."""
        owner = self._records.owner_of(user_id)
        rows = self._file.rows(
            "SELECT owner, value FROM relations WHERE owner = ?1 OR other = ?1", (owner,)
        )
        return [self._records.opened_relation(*row) for row in rows]

    def rollout(self) -> Rollout:
        """Which releases serve whom."""
        return Rollout(*self._file.rows("SELECT version, body FROM rollout")[0])

    def write_rollout(self, rollout: Rollout) -> bool:
        """Replace it, if its version is the next one; whether it was."""
        with self._file.transaction() as db:
            db.execute(
                "UPDATE rollout SET version = ?1, body = ?2 WHERE version = ?1 - 1",
                (rollout.version, rollout.body),
            )
            return bool(db.changes())

    def _fact(self, name: str) -> Any:
        return self._file.rows("SELECT value FROM facts WHERE name = ?", (name,))[0][0]

    @staticmethod
    def _touch_catalogue(db: apsw.Connection) -> None:
        db.execute("UPDATE facts SET value = value + 1 WHERE name = 'catalogue'")


def _interests(text: str) -> Interests:
    return tuple((name, share) for name, share in json.loads(text))


def _item(row: tuple[Any, ...]) -> ItemRecord:
    item_id, key, interests, available_us, expire_us, body = whole(row)
    return ItemRecord(item_id, key, _interests(interests), available_us, expire_us, body)


def checksum(row: Sequence[Any]) -> int:
    """Of what a row of the catalogue says."""
    return zlib.crc32("\0".join(map(str, row[:-1])).encode(), zlib.crc32(row[-1]))


def whole(row: Sequence[Any]) -> Sequence[Any]:
    """A row without its checksum, which comes last.

    Raises:
        StoreUnavailable: it is another one's.
    """
    if checksum(row[:-1]) != row[-1]:
        raise StoreUnavailable(
            "a stored item or interest is damaged: restore the state from a backup, or write it"
            " again"
        )
    return row[:-1]
