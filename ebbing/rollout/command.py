"""``ebbing rollout``: status, canary, shadow, promote, rollback."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ebbing.client import Client
    from ebbing.v1.release_service_pb2 import Release


class Action(StrEnum):
    """What to do."""

    STATUS = "status"
    CANARY = "canary"
    SHADOW = "shadow"
    PROMOTE = "promote"
    ROLLBACK = "rollback"


def share_of(text: str) -> float:
    """10%, or 0.1.

    Raises:
        typer.BadParameter: it is neither, or not from 0 to 100 %.
    """
    try:
        share = float(text.removesuffix("%")) / (100.0 if text.endswith("%") else 1.0)
    except ValueError:
        share = math.nan
    if not 0.0 <= share <= 1.0:
        raise typer.BadParameter(f"{text!r} is no share of the users: write 10% or 0.1, up to 100%")
    return share


def rollout(
    action: Annotated[
        Action,
        typer.Argument(
            help="status: how the releases stand. canary: have a release answer a share of the"
            " users. shadow: ask it beside the live one, for comparison only. promote: give it all"
            " the traffic. rollback: end what is tried, or go back to the release before."
        ),
    ],
    share: Annotated[
        float | None,
        typer.Argument(
            parser=share_of,
            metavar="[SHARE]",
            help="Share of the users, such as 10%; canary needs it.",
            show_default="100% for shadow",
        ),
    ] = None,
    release: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of the release.",
            show_default="the one that is tried, else the newest",
        ),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why it is rolled back, for those who ask.")] = "",
    watch: Annotated[bool, typer.Option(help="Status: go on telling, until Ctrl-C.")] = False,
    address: Annotated[str, typer.Option(help="gRPC address of a gateway.")] = "127.0.0.1:50051",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Roll a release out, or back.

    The rollout is the same for all gateways of one state and survives their restarts. A release is
    verified and loaded before it gets traffic. Guardrails roll a release back that fails more, is
    slower or recommends other things than it should; status says why.

    [bold]Examples[/bold]

        ebbing rollout status --watch

        ebbing rollout canary 10%

        ebbing rollout shadow --release 7

        ebbing rollout promote

        ebbing rollout rollback --reason "complaints about the start page"
    """
    from ebbing.cli import CommandError
    from ebbing.client import Client, ClientOptions, EbbingError

    if action is Action.CANARY and share is None:
        raise CommandError("a canary needs a share of the users: ebbing rollout canary 10%")
    if share is not None and action not in (Action.CANARY, Action.SHADOW):
        raise CommandError(f"{action} takes no share: leave it out")
    # A release loads before it is put to use, which takes longer than a lookup.
    options = ClientOptions(batch_deadline_s=300.0)
    try:
        with Client(address, options=options) as client:
            if watch and action is Action.STATUS:
                for seen in client.watch_releases():
                    _show(seen.releases, as_json)
            else:
                _show(_done(client, action, share, release, reason), as_json)
    except EbbingError as error:
        raise CommandError(_told(error, address)) from error
    except KeyboardInterrupt:
        return


def _done(
    client: Client, action: Action, share: float | None, release: int | None, reason: str
) -> Sequence[Release]:
    from ebbing.v1 import release_service_pb2 as pb

    standing = list(client.list_releases())
    if action is Action.STATUS:
        return standing
    if action is Action.ROLLBACK:
        # What this person saw is what is rolled back, whatever others do meanwhile.
        roles = (pb.RELEASE_ROLE_CANARY, pb.RELEASE_ROLE_SHADOW, pb.RELEASE_ROLE_LIVE)
        return list(client.roll_back_release(reason, release=release or _meant(standing, *roles)))
    if action is Action.PROMOTE:
        number = release or _meant(standing, pb.RELEASE_ROLE_CANARY, pb.RELEASE_ROLE_SHADOW)
        return list(client.promote_release(number))
    role = pb.RELEASE_ROLE_SHADOW if action is Action.SHADOW else pb.RELEASE_ROLE_CANARY
    number = release or _meant(standing, role)
    return list(client.set_release_traffic(number, role, 1.0 if share is None else share))


def _meant(standing: Sequence[Release], *roles: int) -> int:
    """The release meant where none is named: the first in one of the roles, else the newest."""
    from ebbing.cli import CommandError

    for role in roles:
        for one in standing:
            if one.role == role:
                return one.release
    if not standing:
        raise CommandError("no release is published: publish one with 'ebbing publish RUN'")
    return max(one.release for one in standing)


def _show(releases: Iterable[Release], as_json: bool) -> None:
    if as_json:
        import json

        from google.protobuf.json_format import MessageToDict

        print(
            json.dumps([MessageToDict(one, preserving_proto_field_name=True) for one in releases])
        )
    else:
        from ebbing.rollout.table import show

        show(releases)


def _told(error: Exception, address: str) -> str:
    import grpc

    from ebbing.cli import nobody_answers
    from ebbing.client import EbbingError

    assert isinstance(error, EbbingError)
    if not error.reason and error.code is grpc.StatusCode.UNAVAILABLE:
        return nobody_answers(address)
    return error.message
