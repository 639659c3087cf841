"""``ebbing keys``: keys that hide names and values of users, and keys that sign releases."""

from __future__ import annotations

import os
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ebbing.cli import CommandError
from server.cli_opening import existing, settings_of
from server.state.keys import KEY_BYTES, KeyFileError, add_key, new_key_file

__all__ = ["keys"]

REWRAPPED_TOGETHER = 500


class Action(StrEnum):
    """What to do."""

    NEW = "new"
    ADD = "add"
    REWRAP = "rewrap"
    SIGNING = "signing"


def keys(
    action: Annotated[
        Action,
        typer.Argument(
            help="new: make a key file. add: put a newer key on top of one. rewrap: wrap all data"
            " keys with the first master key of the file, after which the others can go. signing:"
            " make a pair of keys that sign releases and verify them."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Key file, for all but 'rewrap'.")
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(help="State whose data keys to rewrap.", show_default="ebbing.db"),
    ] = None,
) -> None:
    """Make and change the keys that hide users' names and values, and those that sign releases.

    A key file is readable by its owner alone, and has no copy unless you make one: without it, the
    state cannot be read. Settings (master_key_file, keyring) come from the environment, as those
    of the gateway do; 'rewrap' may run while gateways do, if they all have the first key.

    'signing' writes a private key to FILE, for 'ebbing publish --key FILE', and its public key to
    FILE.pub, for 'ebbing serve --release-key-file FILE.pub'. Files of public keys may be joined.

    [bold]Examples[/bold]

        ebbing keys new --out /etc/ebbing/master.key

        ebbing keys add --out /etc/ebbing/master.key

        ebbing keys signing --out signing.key

        EBBING_MASTER_KEY_FILE=/etc/ebbing/master.key ebbing keys rewrap --state ebbing.db
    """
    try:
        if action is Action.REWRAP:
            _rewrap(state)
        elif out is None:
            raise CommandError(f"which file? ebbing keys {action} --out FILE")
        elif action is Action.SIGNING:
            _signing(out)
        elif action is Action.ADD:
            key = add_key(out, os.urandom(KEY_BYTES))
            typer.echo(f"{out}: has v{key.version} now, which is used once it is read again")
        else:
            new_key_file(out, os.urandom(KEY_BYTES))
            typer.echo(f"{out}: keep a copy apart from the state and its backups")
    except KeyFileError as error:
        raise CommandError(str(error)) from error


def _signing(out: Path) -> None:
    from ebbing.signing import SECRET_BYTES, SigningKeyError, new_signing_key

    try:
        name = new_signing_key(out, os.urandom(SECRET_BYTES))
    except SigningKeyError as error:
        raise CommandError(str(error)) from error
    typer.echo(f"{out}: signs releases as {name}; {out.name}.pub beside it is for the gateways")


def _rewrap(state: Path | None) -> None:
    from contextlib import closing

    from server.errors import EbbingError
    from server.state.vaults import data_keys_of

    settings = settings_of(state=state)
    if not settings.keyring:
        existing(settings)
    try:
        with closing(data_keys_of(settings, os.urandom, time.monotonic)) as data_keys:
            done = 0
            while some := data_keys.rewrap(REWRAPPED_TOGETHER):
                done += some
    except EbbingError as error:
        raise CommandError(error.message) from error
    typer.echo(f"{done:,} data keys rewrapped; all are wrapped with the first master key")
