"""Catalogues and relations from CSV files, into a store: checked as the gateway does it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

from ebbing.v1.catalog_service_pb2 import Item, Relation
from server.catalog import item_record, relation_record
from server.errors import InvalidFields
from server.events_import import Imported
from server.events_rows import BadRow, csv_rows
from server.events_taking import reason, split_paths
from server.limits import Limits
from server.rpc.validation import Checks, check_item, check_relation
from server.state.store import Store

__all__ = ["read_items", "read_relations"]

T = TypeVar("T")


def read_items(path: Path, limits: Limits, store: Store, together: int) -> Imported:
    """Write the items of a CSV file, ``item_id,interests``, so many together.

    Raises:
        FileError: it cannot be read.
        StorageFull, StoreUnavailable: the store refused.
    """

    def of(values: Sequence[str | None]) -> Item:
        item_id, interests = values
        return Item(item_id=item_id or "", interests=split_paths(interests or ""))

    found = _checked(path, ("item_id", "interests"), of, check_item, limits)
    return _write_rows(
        found, lambda some: store.write_items(list(map(item_record, some))), together
    )


def read_relations(path: Path, limits: Limits, store: Store, together: int) -> Imported:
    """Write the relations of a CSV file, ``user_id,other_user_id``; as ``read_items``."""

    def of(values: Sequence[str | None]) -> Relation:
        one, other = values
        return Relation(user_id=one or "", other_user_id=other or "")

    found = _checked(path, ("user_id", "other_user_id"), of, check_relation, limits)
    return _write_rows(
        found, lambda some: store.write_relations(list(map(relation_record, some))), together
    )


def _checked(
    path: Path,
    columns: Sequence[str],
    of: Callable[[Sequence[str | None]], T],
    check: Callable[[Checks, str, T], None],
    limits: Limits,
) -> Iterator[T | BadRow]:
    for line, values, _ in csv_rows(path, columns, columns):
        if isinstance(values, str):
            yield BadRow(0, line, values)
            continue
        try:
            one = of(values)
            with Checks(limits) as checks:
                check(checks, "row", one)
        except InvalidFields as error:
            yield BadRow(0, line, reason(error))
        except UnicodeEncodeError:
            yield BadRow(0, line, "is not UTF-8")
        else:
            yield one


def _write_rows(
    found: Iterator[T | BadRow], store: Callable[[list[T]], None], together: int
) -> Imported:
    done = Imported()
    while some := list(islice(found, together)):
        done.leave_out(row for row in some if isinstance(row, BadRow))
        good = [one for one in some if not isinstance(one, BadRow)]
        store(good)
        done.accepted += len(good)
    return done
