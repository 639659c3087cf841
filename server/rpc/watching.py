"""WatchForgetting: the log of transitions as a stream that goes on from a cursor.

Each stream reads the log at its own pace, so a slow one holds up nobody. Its cursors stay good
for as long as the transitions behind them are kept, whichever gateway on the store is asked.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator

from ebbing.interest.assessment import Assessment
from ebbing.v1 import interest_pb2
from ebbing.v1 import interest_service_pb2 as pb
from server.errors import CursorExpired, FieldViolation, GatewayStopping, InvalidFields
from server.rpc import Context
from server.rpc.mapping import forgetting_transition, state_reason
from server.rpc.validation import Checks
from server.state.alarms import Alarms, Transition
from server.watch import News

__all__ = ["CURSOR_METADATA", "Watching", "read_cursor", "reason_bytes", "write_cursor"]

CURSOR_METADATA = "ebbing-cursor"
"""Initial metadata of a stream: the cursor it begins at, before there is any transition."""
MAX_CURSOR = 1024
MAX_USERS = 1000
MAX_STATES = 6
PAGE = 256
"""Transitions read from the log at once."""


def reason_bytes(assessed: Assessment, i: int) -> bytes:
    """Why interest ``i`` is in its state, as the log of transitions keeps it."""
    return state_reason(assessed, i).SerializeToString()


def write_cursor(store_id: str, number: int) -> str:
    """The cursor after the transition of a number."""
    return base64.urlsafe_b64encode(f"{store_id}.{number}".encode()).decode()


def read_cursor(store_id: str, cursor: str) -> int:
    """The number in a cursor.

    Raises:
        InvalidFields: it is none, or one of another store.
    """
    try:
        text = base64.b64decode(cursor, altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        raise _foreign() from None
    store, _, number = text.rpartition(".")
    if store != store_id or not (number.isdecimal() and len(number) < 20):
        raise _foreign()
    return int(number)


class Watching:
    """Streams transitions."""

    def __init__(self, alarms: Alarms, news: News, poll_s: float) -> None:
        """Set up; ``poll_s`` is how often to look for what other gateways wrote, seconds."""
        self._alarms = alarms
        self._news = news
        self._poll_s = poll_s

    async def responses(
        self, request: pb.WatchForgettingRequest, context: Context
    ) -> AsyncIterator[pb.WatchForgettingResponse]:
        """The transitions asked for, from the cursor on, as they happen.

        Raises:
            InvalidFields: the filter cannot be taken, or the cursor is none of this store's.
            CursorExpired: what follows the cursor is not kept any more.
            GatewayStopping: this gateway is about to stop.
        """
        _check(request)
        users, states = frozenset(request.user_ids), frozenset(request.states)
        after = self._start(request.cursor)
        store_id = self._alarms.store_id
        await context.send_initial_metadata(((CURSOR_METADATA, write_cursor(store_id, after)),))
        while not self._news.closed:
            page = self._alarms.transitions(after, PAGE)
            if not page:
                await self._news.wait(self._poll_s)
                continue
            if page[0][0] != after + 1:
                raise _expired()
            for number, transition in page:
                after = number
                if (not users or transition.user_id in users) and (
                    not states or transition.to_state in states
                ):
                    yield _response(transition, write_cursor(store_id, number))
            # Whoever is asked for nothing on many pages must let others have their turn.
            await asyncio.sleep(0)
        raise GatewayStopping("this gateway stops: go on from the cursor, on another one if any")

    def _start(self, cursor: str) -> int:
        span = self._alarms.span()
        if not cursor:
            return span.newest
        number = read_cursor(self._alarms.store_id, cursor)
        if number > span.newest:
            raise _foreign()
        if number + 1 < span.oldest:
            raise _expired()
        return number


def _check(request: pb.WatchForgettingRequest) -> None:
    with Checks() as checks:
        checks.text("cursor", request.cursor, MAX_CURSOR)
        checks.count("user_ids", len(request.user_ids), MAX_USERS)
        for i, user_id in enumerate(request.user_ids[:MAX_USERS]):
            checks.identifier(f"user_ids[{i}]", user_id)
        checks.count("states", len(request.states), MAX_STATES)
        known = interest_pb2.InterestState.values()[1:]
        for i, state in enumerate(request.states[:MAX_STATES]):
            if state not in known:
                names = ", ".join(interest_pb2.InterestState.keys()[1:])
                checks.found(f"states[{i}]", f"must be one of {names}")


def _response(transition: Transition, cursor: str) -> pb.WatchForgettingResponse:
    return pb.WatchForgettingResponse(transition=forgetting_transition(transition), cursor=cursor)


def _foreign() -> InvalidFields:
    return InvalidFields(
        [FieldViolation("cursor", "is none of this store: begin without a cursor, from now on")]
    )


def _expired() -> CursorExpired:
    return CursorExpired(
        "cursor: what follows it is not kept any more; begin without a cursor and read the"
        " profiles of the users you follow anew"
    )
