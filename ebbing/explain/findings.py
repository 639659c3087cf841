"""What the gateway says of a user's interests, and how it says that it cannot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import grpc
from google.protobuf.json_format import MessageToDict

from ebbing.cli import nobody_answers
from ebbing.client import Client, EbbingError
from ebbing.v1.interest_pb2 import UserInterest
from ebbing.v1.interest_service_pb2 import (
    ExplainInterestResponse,
    GetInterestProfileResponse,
    InterestHistoryPoint,
)

__all__ = ["Findings", "as_text", "ask", "ask_course", "told"]

DAY_S = 86400.0
PAST_POINTS = 300
"""Points of a course up to the moment asked about; those after it have the same step."""
SHORTEST_STEP_S = 60.0
FORECAST_SHARE = 0.25
"""Length of the forecast over that of the past, at least; and at least one horizon."""
MOST_DRAWN = 8
"""Interests in one drawing."""


@dataclass(frozen=True)
class Findings:
    """Some of a user's interests, explained as of one moment."""

    profile: GetInterestProfileResponse
    """All that holds for the user; its interests are one page of the strongest."""
    explained: Sequence[ExplainInterestResponse]
    """The interests asked about, strongest first."""

    @property
    def at_s(self) -> float:
        """The moment, seconds since the epoch."""
        return self.profile.at.ToMicroseconds() / 1e6

    @property
    def horizon_days(self) -> float:
        """Horizon of retention, days."""
        return self.profile.horizon.ToMicroseconds() / 1e6 / DAY_S

    @property
    def interests(self) -> list[UserInterest]:
        """The interests asked about."""
        return [one.interest for one in self.explained]


def ask(
    client: Client,
    user_id: str,
    interest: str | None,
    at: datetime | None,
    horizon: timedelta | None,
    most: int,
) -> Findings:
    """Explain one interest of a user, or the strongest ones.

    Raises:
        EbbingError: the gateway does not answer, or knows no such user, interest or moment.
    """
    profile = client.interest_profile(user_id, at, horizon=horizon)
    paths = [interest] if interest else [one.interest for one in profile.interests[:most]]
    # All as of the same moment, also where that is now.
    moment = profile.at.ToMicroseconds() / 1e6
    explained = [client.explain_interest(user_id, p, moment, horizon=horizon) for p in paths]
    return Findings(profile, explained)


def ask_course(
    client: Client, findings: Findings, horizon: timedelta | None
) -> list[InterestHistoryPoint]:
    """The course of the interests explained, from their first event on and beyond the moment.

    Raises:
        EbbingError: as for ``ask``.
    """
    shown = findings.interests[:MOST_DRAWN]
    if not shown:
        return []
    end_s = findings.at_s
    start_s = min(one.first_event_time.ToMicroseconds() for one in shown) / 1e6
    past_s = end_s - start_s
    ahead_s = max(FORECAST_SHARE * past_s, findings.horizon_days * DAY_S)
    # A whole number of steps lead to the moment, so that the past ends where the forecast begins.
    steps = max(1, min(PAST_POINTS, int(past_s // SHORTEST_STEP_S)))
    step_s = max(past_s / steps, ahead_s / PAST_POINTS, SHORTEST_STEP_S)
    return list(
        client.interest_history(
            findings.profile.user_id,
            [one.interest for one in shown],
            start_time=start_s,
            end_time=end_s + ahead_s,
            step=timedelta(seconds=step_s),
            at=end_s,
            horizon=horizon,
        )
    )


def as_text(findings: Findings) -> str:
    """JSON: the profile's own fields, and each interest with its contributions."""

    def fields(message: object) -> dict[str, object]:
        return MessageToDict(
            message,  # type: ignore[arg-type]
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=True,
        )

    text = fields(findings.profile)
    del text["next_page_token"]
    text["interests"] = [
        {
            **fields(one.interest),
            "contributions": [fields(part) for part in one.contributions],
        }
        for one in findings.explained
    ]
    return json.dumps(text, indent=2, ensure_ascii=False)


def told(error: EbbingError, address: str, user_id: str) -> str:
    """A failed call in one line: what is wrong, and the remedy."""
    if not error.reason and error.code in {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }:
        return nobody_answers(address)
    if error.reason == "USER_NOT_FOUND":
        return f"the gateway at {address} knows no event of user {user_id!r}: check the id"
    if error.reason == "INTEREST_NOT_FOUND":
        return (
            f"{user_id!r} did not engage {error.metadata.get('interest')!r} by then: leave out"
            " --interest to see those known"
        )
    if error.reason == "AT_BEFORE_FIRST_EVENT":
        earliest_s = int(error.metadata["earliest_us"]) / 1e6
        return f"--at is before the first event of {user_id!r}: ask for {earliest_s:f} or later"
    return error.message
