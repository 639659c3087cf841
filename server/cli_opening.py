"""What the commands share that look at a state: its settings, its keys, the store itself."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ebbing.cli import CommandError

if TYPE_CHECKING:
    from server.settings import Settings
    from server.state.records import Records
    from server.state.store import Store
    from server.state.user_state import Bounds

__all__ = ["State", "bounds_of", "existing", "opened", "records_of", "settings_of"]

State = Annotated[
    str | None,
    typer.Option(
        "--state",
        metavar="FILE",
        help="State of the gateway, or its URL.",
        show_default="ebbing.db",
    ),
]
"""Which state a command looks at."""


def settings_of(**given: object) -> Settings:
    """The settings of the gateway, with those that were given; no state given is its own.

    Raises:
        CommandError: one of them cannot be.
    """
    from pydantic import ValidationError

    from server.settings import Settings

    wanted: dict[str, Any] = {k: v for k, v in given.items() if (k, v) != ("state", None)}
    try:
        return Settings(**wanted)
    except ValidationError as error:
        first = error.errors()[0]
        raise CommandError(f"setting {first['loc'][0]}: {first['msg']}") from error


def existing(settings: Settings) -> Settings:
    """Settings of a state that is there.

    Raises:
        CommandError: they name a file that is not.
    """
    if isinstance(settings.state, Path) and not settings.state.is_file():
        raise CommandError(f"there is no {settings.state}: name the state with --state")
    return settings


def bounds_of(settings: Settings) -> Bounds:
    """How much is kept of a user."""
    from server.state.user_state import Bounds

    return Bounds(settings.max_interests_per_user, settings.max_user_bytes)


@contextmanager
def records_of(settings: Settings, pseudonyms: int | None = None) -> Iterator[Records]:
    """How the state is read, while the block lasts; ``pseudonyms`` is the version of their key.

    Raises:
        CommandError: the keys cannot be used.
    """
    from server.state.keys import KeyFileError
    from server.state.records import Records
    from server.state.vaults import vault_of

    try:
        with closing(vault_of(settings, os.urandom, time.monotonic, pseudonyms)) as vault:
            yield Records(vault, bounds_of(settings))
    except KeyFileError as error:
        raise CommandError(str(error)) from error


@contextmanager
def opened(settings: Settings, pseudonyms: int | None = None) -> Iterator[tuple[Store, Records]]:
    """The store and how it is read, while the block lasts; as ``records_of``.

    Raises:
        CommandError: it cannot be used.
    """
    from server.errors import EbbingError
    from server.state.open import open_store

    try:
        with (
            records_of(settings, pseudonyms) as records,
            closing(open_store(settings.state, records, settings.max_state_bytes)) as store,
        ):
            yield store, records
    except EbbingError as error:
        raise CommandError(f"{settings.state}: {error.message}") from error
