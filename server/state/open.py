"""Stores by where they are: a file, or the URL of a server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

import structlog

from server.errors import StoreUnavailable
from server.state.records import Records
from server.state.store import Store

__all__ = ["QUICK_CHECK_S", "StateCheck", "location", "open_checked", "open_store"]

StateCheck = Literal["full", "quick", "off"]
REDIS = ("redis://", "rediss://", "redis+cluster://", "rediss+cluster://")
QUICK_CHECK_S = 0.5
"""How long a quick check may take; some 20 MB of state are checked wholly in it."""
TELLING_S = 1.0
"""A check that takes longer is told of."""

log = structlog.get_logger()


def location(where: Path | str) -> Path | str:
    """The file that is meant, or the URL of a server.

    Raises:
        ValueError: it is a URL of another kind.
    """
    text = str(where)
    if isinstance(where, Path) or "://" not in text:
        return Path(where)
    if text.startswith(REDIS):
        return text
    url = urlsplit(text)
    if url.scheme == "sqlite" and not url.netloc and url.path.strip("/"):
        return Path(unquote(url.path))
    raise ValueError(
        "no state is meant by this: name a file, sqlite:///FOLDER/FILE or redis://HOST:PORT"
    )


def open_store(
    where: Path | str,
    records: Records,
    max_bytes: int = 0,
    unreplicated: Callable[[int], None] = lambda events: None,
) -> Store:
    """Open or make a store.

    Args:
        where: as ``location`` gives it.
        records: encodes what is stored of users.
        max_bytes: largest size of a file; 0 is no limit.
        unreplicated: is told of events that no replica of a Cluster confirmed in time.

    Raises:
        StoreUnavailable, StorageFull: it cannot be used; the message says why.
    """
    if isinstance(where, Path):
        from server.state.sqlite import SqliteStore  # noqa: PLC0415  (only what is used)

        return SqliteStore(where, records, max_bytes)
    from server.state.redis import RedisStore  # noqa: PLC0415

    return RedisStore(where, records, unreplicated=unreplicated)


def open_checked(
    where: Path | str,
    records: Records,
    how: StateCheck,
    monotonic: Callable[[], float],
    max_bytes: int = 0,
    unreplicated: Callable[[int], None] = lambda events: None,
) -> Store:
    """Open a store to serve from it: a file that turns out to be damaged is not.

    Args:
        where: as ``location`` gives it.
        records: encode what is stored of users.
        how: all of a file is checked, or what there is time for in ``QUICK_CHECK_S``, or only that
            nothing is missing.
        monotonic: seconds since any moment.
        max_bytes: largest size of a file; 0 is no limit.
        unreplicated: is told of events that no replica of a Cluster confirmed in time.

    Raises:
        StoreUnavailable, StorageFull: it cannot be used; the message says why.
    """
    store = open_store(where, records, max_bytes, unreplicated)
    try:
        if how != "off":
            _require_whole(store, QUICK_CHECK_S if how == "quick" else None, monotonic)
    except BaseException:
        store.close()
        raise
    return store


def _require_whole(store: Store, budget_s: float | None, monotonic: Callable[[], float]) -> None:
    from server.state.sqlite_upkeep import SqliteUpkeep  # noqa: PLC0415

    if not isinstance(store, SqliteUpkeep):
        return  # a server checks its own files
    began = monotonic()
    found = store.check(budget_s=budget_s, monotonic=monotonic)
    if not found.whole:
        raise StoreUnavailable(
            f"the state file is damaged ({found}): restore a backup with 'ebbing state restore';"
            " 'ebbing state check' tells more"
        )
    took_s = round(monotonic() - began, 3)
    if took_s > TELLING_S:
        log.info("state checked", whole=found.complete, values=found.values, took_s=took_s)
