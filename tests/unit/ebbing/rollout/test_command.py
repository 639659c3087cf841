"""``ebbing rollout``: what is meant by few words, and how the answer reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
import typer
from google.protobuf.timestamp_pb2 import Timestamp

from ebbing.cli import CommandError
from ebbing.client import EbbingError
from ebbing.rollout.command import Action, rollout, share_of
from ebbing.v1 import release_service_pb2 as pb

CANARY, SHADOW, LIVE = pb.RELEASE_ROLE_CANARY, pb.RELEASE_ROLE_SHADOW, pb.RELEASE_ROLE_LIVE


def standing(number: int, role: int, traffic: float = 0.0, reason: str = "") -> pb.Release:
    return pb.Release(
        release=number,
        role=role,  # type: ignore[arg-type]
        traffic=traffic,
        reason=reason,
        publish_time=Timestamp(seconds=1_748_736_000),
    )


IDLE_AND_LIVE = [standing(3, pb.RELEASE_ROLE_IDLE), standing(2, LIVE, 1.0)]


class FakeClient:
    """Answers how things stand; notes what it is asked to do."""

    releases: list[pb.Release]
    done: list[tuple[Any, ...]]
    error: EbbingError | None

    def __init__(self, address: str, options: Any = None) -> None:
        assert address

    def __enter__(self) -> FakeClient:
        if self.error:
            raise self.error
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def list_releases(self) -> Iterator[pb.Release]:
        yield from self.releases

    def watch_releases(self) -> Iterator[pb.WatchReleasesResponse]:
        yield pb.WatchReleasesResponse(releases=self.releases)
        yield pb.WatchReleasesResponse(releases=self.releases)
        raise KeyboardInterrupt

    def _do(self, *what: Any) -> list[pb.Release]:
        self.done.append(what)
        return self.releases

    def promote_release(self, release: int) -> list[pb.Release]:
        return self._do("promote", release)

    def roll_back_release(self, reason: str, *, release: int) -> list[pb.Release]:
        return self._do("rollback", release, reason)

    def set_release_traffic(self, release: int, role: int, share: float) -> list[pb.Release]:
        return self._do(pb.ReleaseRole.Name(role), release, share)  # type: ignore[arg-type]


Run = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command; gives what was done."""
    monkeypatch.setattr("ebbing.client.Client", FakeClient)

    def go(
        action: str,
        share: float | None = None,
        releases: list[pb.Release] | None = None,
        error: EbbingError | None = None,
        **options: Any,
    ) -> list[tuple[Any, ...]]:
        FakeClient.releases = IDLE_AND_LIVE if releases is None else releases
        FakeClient.error, FakeClient.done = error, []
        given = {
            "release": None,
            "reason": "",
            "watch": False,
            "address": "gateway:1",
            "as_json": False,
            **options,
        }
        rollout(Action(action), share, **given)
        return FakeClient.done

    return go


@pytest.mark.parametrize(
    ("text", "share"), [("10%", 0.1), ("0.1", 0.1), ("100%", 1.0), ("0%", 0.0), ("1", 1.0)]
)
def test_shares_as_people_write_them(text: str, share: float) -> None:
    assert share_of(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["101%", "-1%", "1.01", "ten", "", "%", "nan", "inf%"])
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="share"):
        share_of(text)


def test_the_newest_release_is_meant_where_nothing_is_tried(run: Run) -> None:
    assert run("canary", 0.1) == [("RELEASE_ROLE_CANARY", 3, 0.1)]
    assert run("shadow") == [("RELEASE_ROLE_SHADOW", 3, 1.0)]
    assert run("promote") == [("promote", 3)]


def test_what_is_tried_is_meant_first(run: Run) -> None:
    tried = [standing(5, pb.RELEASE_ROLE_IDLE), standing(4, CANARY), standing(3, SHADOW)]
    assert run("canary", 0.5, tried) == [("RELEASE_ROLE_CANARY", 4, 0.5)]
    assert run("shadow", None, tried) == [("RELEASE_ROLE_SHADOW", 3, 1.0)]
    assert run("promote", None, tried) == [("promote", 4)]
    assert run("rollback", None, tried, reason="slow") == [("rollback", 4, "slow")]
    assert run("rollback", None, tried[2:]) == [("rollback", 3, "")]
    assert run("rollback") == [("rollback", 2, "")]


def test_a_release_can_be_named(run: Run) -> None:
    assert run("promote", release=2) == [("promote", 2)]
    assert run("canary", 0.2, release=2) == [("RELEASE_ROLE_CANARY", 2, 0.2)]


def test_what_does_not_fit_together_is_said(run: Run) -> None:
    with pytest.raises(CommandError, match="canary 10%"):
        run("canary")
    with pytest.raises(CommandError, match="no share"):
        run("promote", 0.5)
    with pytest.raises(CommandError, match="ebbing publish"):
        run("promote", releases=[])


def test_how_things_stand_is_a_table(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    tried = [standing(4, CANARY, 0.1, "rolled back: [bold]slow[/]"), standing(2, LIVE, 0.9)]
    run("status", releases=tried)
    out = capsys.readouterr().out
    for word in ("canary", "0.1", "live", "0.9", "1 Jun 2025", "[bold]slow[/]"):
        assert word in out


def test_json_for_programs(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run("status", as_json=True)
    (first, second) = json.loads(capsys.readouterr().out)
    assert (first["release"], second["role"]) == ("3", "RELEASE_ROLE_LIVE")


def test_watching_goes_on_until_it_is_ended(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run("status", watch=True, as_json=True)
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_failures_name_the_remedy(run: Run) -> None:
    gone = EbbingError(grpc.StatusCode.UNAVAILABLE, "connection refused")
    with pytest.raises(CommandError, match=r"no gateway answers at gateway:1.*ebbing serve"):
        run("status", error=gone)
    refused = EbbingError(grpc.StatusCode.FAILED_PRECONDITION, "release 2 is live already", "X")
    with pytest.raises(CommandError, match="live already"):
        run("promote", error=refused)
