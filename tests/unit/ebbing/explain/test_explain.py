"""``ebbing explain``: what it asks, what it prints and draws, and how it says what went wrong."""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from rich.console import Console

from ebbing.cli import CommandError
from ebbing.client import EbbingError, to_duration, to_timestamp
from ebbing.explain import command, tables
from ebbing.explain.findings import PAST_POINTS, Findings, ask, ask_course, told
from ebbing.v1 import interest_pb2 as interest
from ebbing.v1 import interest_service_pb2 as pb

DAY_S = 86400.0
NOW_S = 1_748_736_000.0
"""1 June 2025."""
STATES = {
    "sports/football": interest.INTEREST_STATE_ACTIVE,
    "music/jazz": interest.INTEREST_STATE_FORGOTTEN,
    "odd $x_1$ [red]name[/]": interest.INTEREST_STATE_RESTING,
}
PARTS = {"events": 1.5, "quiet": -2.0, "activity": 0.1, "gap": 0.004, "trend": -0.004}


def an_interest(path: str, at_s: float, first_s: float) -> interest.UserInterest:
    return interest.UserInterest(
        interest=path,
        state=STATES[path],
        retention=1 / (1 + math.exp(-sum(PARTS.values()))),
        strength=3.0,
        half_life=to_duration(timedelta(days=9)) if path != "music/jazz" else None,
        first_event_time=to_timestamp(first_s),
        reason=interest.StateReason(text=f"last 2 d ago, as of {at_s:.0f}"),
    )


class FakeClient:
    """Answers as a gateway does that knows one user; notes what it is asked."""

    error: EbbingError | None = None
    asked: list[tuple[str, Any]]
    paths: tuple[str, ...] = tuple(STATES)
    drift: float | None = 0.5
    first_s = NOW_S - 100 * DAY_S

    def __init__(self, address: str) -> None:
        type(self).asked = [("address", address)]

    def __enter__(self) -> FakeClient:
        return self

    def __exit__(self, *error: object) -> None:
        self.asked.append(("closed", None))

    def interest_profile(
        self, user_id: str, at: datetime | None, *, horizon: timedelta | None
    ) -> pb.GetInterestProfileResponse:
        if self.error:
            raise self.error
        self.asked.append(("profile", (at, horizon)))
        at_s = at.timestamp() if at else NOW_S
        return pb.GetInterestProfileResponse(
            user_id=user_id,
            at=to_timestamp(at_s),
            horizon=to_duration(horizon or timedelta(days=30)),
            interests=[an_interest(path, at_s, self.first_s) for path in self.paths],
            event_count=12,
            drift=self.drift,
            article_score=0.25,
            forgetting_version="seven",
        )

    def explain_interest(
        self, user_id: str, path: str, at: float, *, horizon: timedelta | None
    ) -> pb.ExplainInterestResponse:
        self.asked.append(("explain", (path, at, horizon)))
        return pb.ExplainInterestResponse(
            interest=an_interest(path, at, self.first_s),
            contributions=[
                pb.RetentionContribution(name=name, log_odds=odds, text=f"why {name}")
                for name, odds in PARTS.items()
            ],
        )

    def interest_history(
        self, user_id: str, interests: list[str], **fields: Any
    ) -> Iterator[pb.InterestHistoryPoint]:
        self.asked.append(("history", {"interests": interests, **fields}))
        moment = fields["start_time"]
        while moment <= fields["end_time"]:
            yield pb.InterestHistoryPoint(
                time=to_timestamp(moment),
                interests=[an_interest(path, moment, self.first_s) for path in interests],
                forecast=moment > fields["at"] + 1e-3,
            )
            moment += fields["step"].total_seconds()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeClient]:
    kind = type("FakeClientOfThisTest", (FakeClient,), {})
    monkeypatch.setattr("ebbing.client.Client", kind)
    return kind


def of_kind(fake: type[FakeClient], what: str) -> list[Any]:
    return [value for kind, value in fake.asked if kind == what]


def test_every_interest_with_its_parts(
    fake: type[FakeClient], capsys: pytest.CaptureFixture[str]
) -> None:
    command.explain("ada", address="gateway:1")
    printed = capsys.readouterr().out
    assert "ada as of 1 Jun 2025 · 12 events · drift F(u,t) 0.50 · R(u,t) 0.25" in printed
    for path in STATES:
        assert path in printed
    assert "retention 40.1% within 30 d · half-life 9.0 d" in printed
    assert "no half-life within 10 y" in printed
    assert printed.count("together") == len(STATES)
    assert printed.count("-0.40") == len(STATES)
    # The heaviest part comes first.
    assert printed.index("why quiet") < printed.index("why events") < printed.index("why activity")
    # Parts too small to see are but named.
    assert "why gap" not in printed
    assert printed.count("2 more") == printed.count("gap, trend") == len(STATES)
    assert of_kind(fake, "address") == ["gateway:1"]
    assert of_kind(fake, "closed")


def test_all_is_asked_as_of_one_moment(fake: type[FakeClient]) -> None:
    command.explain("ada", horizon=timedelta(days=7))
    assert of_kind(fake, "profile") == [(None, timedelta(days=7))]
    explained = of_kind(fake, "explain")
    assert explained == [(path, NOW_S, timedelta(days=7)) for path in STATES]


def test_one_interest_or_so_many(
    fake: type[FakeClient], capsys: pytest.CaptureFixture[str]
) -> None:
    command.explain("ada", interest="music/jazz")
    assert [path for path, _, _ in of_kind(fake, "explain")] == ["music/jazz"]
    capsys.readouterr()
    command.explain("ada", most=2)
    assert len(of_kind(fake, "explain")) == 2
    assert "2 of 3 interests" in capsys.readouterr().out


def test_a_user_without_interests(
    fake: type[FakeClient], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    fake.paths, fake.drift = (), None
    command.explain("ada")
    printed = capsys.readouterr().out
    assert "drift F(u,t) undefined" in printed
    assert "No event of this user shows an interest." in printed
    with pytest.raises(CommandError, match="shows an interest"):
        command.explain("ada", plot=tmp_path / "course.png")


def test_json_has_the_numbers(fake: type[FakeClient], capsys: pytest.CaptureFixture[str]) -> None:
    command.explain("ada", as_json=True)
    told_of = json.loads(capsys.readouterr().out)
    assert (told_of["user_id"], told_of["drift"], told_of["horizon"]) == ("ada", 0.5, "2592000s")
    assert [one["interest"] for one in told_of["interests"]] == list(STATES)
    for one in told_of["interests"]:
        odds = math.fsum(part["log_odds"] for part in one["contributions"])
        assert 1 / (1 + math.exp(-odds)) == pytest.approx(one["retention"])


def test_a_picture_of_the_course(
    fake: type[FakeClient], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "course.png"
    command.explain("ada", plot=path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert f"drawn: {path}" in capsys.readouterr().out
    (asked,) = of_kind(fake, "history")
    assert asked["interests"] == list(STATES)
    assert (asked["start_time"], asked["at"]) == (NOW_S - 100 * DAY_S, NOW_S)
    assert asked["end_time"] == NOW_S + 30 * DAY_S
    assert asked["step"].total_seconds() == pytest.approx(100 * DAY_S / PAST_POINTS)


def test_a_picture_beside_json_leaves_stdout_to_it(
    fake: type[FakeClient], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command.explain("ada", as_json=True, plot=tmp_path / "course.svg")
    json.loads(capsys.readouterr().out)
    assert "<svg" in (tmp_path / "course.svg").read_text()


@pytest.mark.parametrize("name", ["course.xyz", "nowhere/course.png"])
def test_a_picture_that_cannot_be_drawn(fake: type[FakeClient], tmp_path: Path, name: str) -> None:
    with pytest.raises(CommandError, match="cannot draw into"):
        command.explain("ada", plot=tmp_path / name)


def test_without_matplotlib_the_extra_is_named(
    fake: type[FakeClient], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delitem(sys.modules, "ebbing.explain.plot", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.dates", None)
    with pytest.raises(CommandError, match=r"pip install 'ebbing\[trainer\]'"):
        command.explain("ada", plot=tmp_path / "course.png")


def course_of(client: FakeClient) -> tuple[Findings, list[pb.InterestHistoryPoint]]:
    asking: Any = client
    findings = ask(asking, "ada", None, None, None, 8)
    return findings, ask_course(asking, findings, None)


def test_the_course_of_a_user_who_has_just_begun(fake: type[FakeClient]) -> None:
    fake.first_s = NOW_S
    _, course = course_of(fake("a"))
    assert not course[0].forecast
    assert all(point.forecast for point in course[1:])
    assert len(course) > 100


def test_a_long_past_has_a_long_forecast(fake: type[FakeClient]) -> None:
    findings, course = course_of(fake("a"))
    past = [point for point in course if not point.forecast]
    assert len(past) == PAST_POINTS + 1
    assert past[-1].time.ToMicroseconds() / 1e6 == pytest.approx(findings.at_s, abs=0.01)


def failure(code: grpc.StatusCode, reason: str = "", **metadata: str) -> EbbingError:
    return EbbingError(code, "what the gateway says", reason, metadata)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (failure(grpc.StatusCode.UNAVAILABLE), "no gateway answers at here:1: start one with"),
        (failure(grpc.StatusCode.DEADLINE_EXCEEDED), "no gateway answers at here:1"),
        (failure(grpc.StatusCode.NOT_FOUND, "USER_NOT_FOUND"), "no event of user 'ada'"),
        (
            failure(grpc.StatusCode.NOT_FOUND, "INTEREST_NOT_FOUND", interest="a/b"),
            "did not engage 'a/b'",
        ),
        (
            failure(grpc.StatusCode.OUT_OF_RANGE, "AT_BEFORE_FIRST_EVENT", earliest_us="5500000"),
            "ask for 5.500000 or later",
        ),
        (failure(grpc.StatusCode.OUT_OF_RANGE, "HORIZON_OUT_OF_RANGE"), "what the gateway says"),
        (failure(grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE"), "what the gateway says"),
    ],
)
def test_failures_are_one_line_with_the_remedy(
    fake: type[FakeClient], error: EbbingError, said: str
) -> None:
    fake.error = error
    with pytest.raises(CommandError) as caught:
        command.explain("ada", address="here:1")
    assert said in str(caught.value)
    assert str(caught.value) == told(error, "here:1", "ada")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2025-06-01", datetime(2025, 6, 1, tzinfo=UTC)),
        ("20250601", datetime(2025, 6, 1, tzinfo=UTC)),
        ("2025-06-01T12:30", datetime(2025, 6, 1, 12, 30, tzinfo=UTC)),
        ("2025-06-01T12:30:00+02:00", datetime(2025, 6, 1, 10, 30, tzinfo=UTC)),
        ("1748736000", datetime(2025, 6, 1, tzinfo=UTC)),
        ("1748736000.5", datetime(2025, 6, 1, 0, 0, 0, 500_000, tzinfo=UTC)),
    ],
)
def test_moments(text: str, moment: datetime) -> None:
    assert command._moment(text) == moment


@pytest.mark.parametrize(
    ("text", "days"), [("12h", 0.5), ("30d", 30), ("2w", 14), ("1y", 365.25), ("0.5d", 0.5)]
)
def test_spans(text: str, days: float) -> None:
    assert command._span(text) == timedelta(days=days)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        *((command._moment, text) for text in ("", "yesterday", "2025-13-01", "9" * 30)),
        *((command._span, text) for text in ("", "30", "d", "-3d", "30 days", "nan d")),
    ],
)
def test_what_cannot_be_read_is_said_so(parse: Callable[[str], object], text: str) -> None:
    import typer

    with pytest.raises(typer.BadParameter, match="write"):
        parse(text)


@pytest.mark.parametrize(
    ("value", "drawn"),
    [
        (0.0, "            │            "),
        (4.0, "            │████████████"),
        (-4.0, "████████████│            "),
        (9.0, "            │████████████"),
        (2.0, "            │██████      "),
        (-2.0, "      ██████│            "),
        (0.5, "            │█▌          "),
        (-0.5, "          ▐█│            "),
    ],
)
def test_bars(value: float, drawn: str) -> None:
    assert tables.bar(value, 4.0).plain == drawn


def test_without_parts_there_are_no_bars() -> None:
    assert tables.bar(0.0, 0.0).plain.strip() == "│"


def test_names_of_a_log_are_no_markup(fake: type[FakeClient]) -> None:
    findings, _ = course_of(fake("a"))
    console = Console(width=120, file=io.StringIO(), record=True)
    tables.show(findings, console)
    assert "odd $x_1$ [red]name[/]" in console.export_text()
