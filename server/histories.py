"""The course of a user's interests: one profile after another, past and expected."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ebbing.interest.forgetting import ForgettingParameters
from ebbing.interest.profile import interest_vectors
from server.errors import FieldViolation, InterestNotFound, InvalidFields, UserNotFound
from server.profiles import Profile, profile_of
from server.users import Users

__all__ = ["Histories", "HistoryPage", "HistoryPoint", "HistoryRequest", "interest_not_found"]

DEFAULT_INTERESTS = 8
"""Interests told of where the request names none."""
PAGE_INTERESTS = 10_000
"""Interests over all points of a page, at most."""


class HistoryPoint(NamedTuple):
    """A user's interests at one moment of their history."""

    time_us: int
    forecast: bool
    """Whether it lies after the last moment whose events count."""
    profile: Profile
    shown: list[int]
    """Numbers of the interests told of, in the order asked for."""


class HistoryPage(NamedTuple):
    """Some points of a history."""

    points: list[HistoryPoint]
    at_us: int
    """Up to when events counted."""
    next_us: int | None
    """Time of the point after them; None if they were the last."""


@dataclass(frozen=True, slots=True)
class HistoryRequest:
    """A checked request for a page of a history; moments in microseconds since the epoch."""

    user_id: str
    interests: tuple[str, ...]
    """Whose course; empty: the strongest at the end."""
    start_us: int | None
    """First moment; None is the user's first event."""
    end_us: int | None
    """Last moment; None is ``at_us``."""
    at_us: int | None
    """Up to when events count; None is now."""
    step_us: int
    """Time between points, above 0."""
    horizon_s: float
    size: int
    """Points wanted, at least 1."""
    next_us: int | None
    """First moment of this page; None for the first page."""


class Histories:
    """Tells the course of users' interests."""

    def __init__(self, users: Users) -> None:
        """Set up on the users it tells of."""
        self._users = users

    async def page(
        self, request: HistoryRequest, parameters: ForgettingParameters, alpha: float, now_us: int
    ) -> HistoryPage:
        """One page; other calls have their turn between its points.

        Raises:
            UserNotFound: the user has no event.
            AtBeforeFirstEvent: a moment asked for is before the first one.
            InvalidFields: the history would end before it begins.
            InterestNotFound: an interest was not engaged by the end.
        """
        users, user_id, at_us, end_us = self._users, request.user_id, request.at_us, request.end_us
        for field, moment_us in (
            ("at", at_us),
            ("start_time", request.start_us),
            ("end_time", end_us),
        ):
            if moment_us is not None:
                users.require_known(field, user_id, moment_us)
        if at_us is None:
            at_us = users.latest_us(user_id, now_us)
        if end_us is None:
            end_us = at_us
        start_us = request.start_us
        if start_us is None:
            # A user whose events show no interest has a history without interests: of one point.
            first_us = users.first_us(user_id)
            start_us = end_us if first_us is None else first_us
        if end_us < start_us:
            raise InvalidFields([FieldViolation("end_time", "is before start_time: swap them")])

        names = await self._names(request, min(at_us, end_us), end_us)
        begin_us = start_us if request.next_us is None else request.next_us
        left = max(0, (end_us - begin_us) // request.step_us + 1)
        size = min(request.size, left, max(1, PAGE_INTERESTS // max(1, len(names))))
        moments = [begin_us + n * request.step_us for n in range(size)]
        points = []
        async for time_us, traces in users.course(user_id, at_us, moments):
            profile = profile_of(traces, time_us / 1e6, parameters, alpha, request.horizon_s)
            numbers = {name: i for i, name in enumerate(traces.names)}
            shown = [numbers[name] for name in names if name in numbers]
            points.append(HistoryPoint(time_us, time_us > at_us, profile, shown))
            await asyncio.sleep(0)
        following_us = begin_us + size * request.step_us if size < left else None
        return HistoryPage(points, at_us, following_us)

    async def _names(self, request: HistoryRequest, until_us: int, end_us: int) -> Sequence[str]:
        last = await self._users.view(request.user_id, until_us, until_us)
        if last is None:
            raise UserNotFound("no event of this user is known", {"user_id": request.user_id})
        traces = last.traces
        if not request.interests:
            strength = interest_vectors(traces, end_us / 1e6).blended
            strongest = np.argsort(-strength, kind="stable")[:DEFAULT_INTERESTS]
            return [traces.names[i] for i in strongest]
        for name in request.interests:
            if name not in traces.names:
                raise interest_not_found(request.user_id, name)
        return request.interests


def interest_not_found(user_id: str, interest: str) -> InterestNotFound:
    """That a user never engaged an interest by the moment asked about."""
    return InterestNotFound(
        "the user did not engage this interest by then: GetInterestProfile tells those known",
        {"user_id": user_id, "interest": interest},
    )
