"""Releases rolled out on real gateways and a real Triton: canary, promotion, and the way back."""

from __future__ import annotations

import json
import shutil
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import grpc
import pytest

from ebbing.client import Client, EbbingError
from ebbing.v1 import release_service_pb2 as pb
from server.inference.embedded import EmbeddedTriton
from tests.harness.callers import Callers
from tests.harness.gateway import GatewayProcess, catalogue, events, ran
from tests.harness.release import LOG, TinyRelease
from tests.harness.releases import Nan, Slow, publish_again
from tests.harness.triton import embedded_config

PATIENCE_S = 60
QUICK = {
    "rollout_poll_s": 0.1,
    "release_linger_s": 0.5,
    "guardrail_samples": 20,
    "lame_duck_s": 0,
}
"""Gateways that look and judge at once; the rules are the same."""
FIRST, SAME, NAN, SLOW = 1, 2, 3, 4


@pytest.fixture(scope="module")
def own_repository(
    trained: tuple[Path, object, dict], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, str]]:
    """A repository of four releases with a Triton of its own; loads here disturb nobody."""
    from trainer.publish import publish

    config = embedded_config(tmp_path_factory.mktemp("rollout"))
    repository = config.repository
    assert publish(trained[0], repository, "2025-06-01T00:00:00+00:00").release == FIRST
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        publish_again(repository, FIRST, SAME)
        publish_again(repository, FIRST, NAN, Nan)
        publish_again(repository, FIRST, SLOW, Slow, 200)
    with EmbeddedTriton(config) as triton:
        yield repository, triton.grpc_address


@pytest.fixture
def start(
    own_repository: tuple[Path, str], release: TinyRelease, tmp_path: Path
) -> Iterator[Callable[..., GatewayProcess]]:
    """Starts gateways on one state that holds the generated log."""
    repository, triton = own_repository
    state = tmp_path / "state.db"
    with ExitStack() as stack:

        def go(**settings: object) -> GatewayProcess:
            given = {**QUICK, **settings}
            gateway = GatewayProcess(tmp_path, repository, triton, state, **given)
            return stack.enter_context(gateway)

        yield go


@pytest.fixture
def gateway(start: Callable[..., GatewayProcess], release: TinyRelease) -> GatewayProcess:
    """One gateway whose live release is the first."""
    running = start(release=FIRST)
    with running.client() as client:
        client.write_items(catalogue(release.simulation))
        client.write_events(events(release.simulation))
    return running


@pytest.fixture
def client(gateway: GatewayProcess) -> Iterator[Client]:
    with gateway.client() as client:
        yield client


@pytest.fixture
def load(gateway: GatewayProcess, release: TinyRelease) -> Callers:
    return Callers(gateway, list(release.simulation.log.user_ids))


def until(true: Callable[[], bool], what: str) -> None:
    for _ in range(20 * PATIENCE_S):
        if true():
            return
        time.sleep(0.05)
    pytest.fail(f"not even after {PATIENCE_S} s: {what}")


def roles(client: Client) -> dict[int, str]:
    """What each release in service is for."""
    return {
        one.release: pb.ReleaseRole.Name(one.role).removeprefix("RELEASE_ROLE_")
        for one in client.list_releases()
        if one.role != pb.RELEASE_ROLE_IDLE
    }


def reason(client: Client, number: int) -> str:
    return next(one.reason for one in client.list_releases() if one.release == number)


def test_a_release_is_tried_promoted_and_rolled_back_without_a_failed_request(
    client: Client, load: Callers
) -> None:
    with load:
        client.set_release_traffic(SAME, pb.RELEASE_ROLE_CANARY, 0.5)
        until(lambda: load.answered[SAME] > 20, "the canary answers")
        assert roles(client) == {FIRST: "LIVE", SAME: "CANARY"}
        client.promote_release(SAME)
        load.answered.clear()
        until(lambda: load.answered[SAME] > 20, "the promoted release answers")
        # What was asked before the promotion may still have been answered by the one before.
        load.answered.clear()
        until(lambda: sum(load.answered.values()) > 20, "it goes on")
        assert set(load.answered) == {SAME}
        client.roll_back_release("only a test", release=SAME)
        until(lambda: load.answered[FIRST] > 20, "the one before answers again")
    assert load.failures == []
    assert load.degraded == 0
    assert roles(client) == {FIRST: "LIVE"}
    assert reason(client, SAME) == "rolled back: only a test"


def test_a_user_is_answered_by_one_release_as_long_as_the_split_stands(
    client: Client, release: TinyRelease
) -> None:
    client.set_release_traffic(SAME, pb.RELEASE_ROLE_CANARY, 0.4)
    users = release.simulation.log.user_ids
    first = {user: client.recommend(user, LOG.end).release for user in users}
    assert set(first.values()) == {FIRST, SAME}
    assert {user: client.recommend(user, LOG.end).release for user in users} == first


@pytest.mark.parametrize(("bad", "guardrail"), [(NAN, "failures"), (SLOW, "latency")])
@pytest.mark.parametrize("role", [pb.RELEASE_ROLE_CANARY, pb.RELEASE_ROLE_SHADOW])
def test_a_release_that_misbehaves_is_rolled_back_by_itself(
    client: Client, load: Callers, gateway: GatewayProcess, bad: int, guardrail: str, role: int
) -> None:
    with load:
        until(lambda: load.answered[FIRST] > 30, "there is something to compare with")
        client.set_release_traffic(bad, role, 1.0 if role == pb.RELEASE_ROLE_SHADOW else 0.5)
        until(lambda: roles(client) == {FIRST: "LIVE"}, "it is rolled back")
    assert load.failures == []
    assert f"guardrail {guardrail}" in reason(client, bad)
    if role == pb.RELEASE_ROLE_SHADOW:
        # Nobody ever saw its answers.
        assert set(load.answered) == {FIRST}
        assert load.degraded == 0
    status = ran("rollout", "status", "--address", gateway.address)
    assert status.returncode == 0, status.stderr
    assert guardrail in status.stdout


def test_a_bad_release_that_was_promoted_outright_is_rolled_back(
    client: Client, load: Callers
) -> None:
    with load:
        until(lambda: load.answered[FIRST] > 30, "there is something to compare with")
        client.promote_release(NAN)
        until(lambda: roles(client) == {FIRST: "LIVE"}, "it is rolled back")
    assert load.failures == []


def test_gateways_share_the_rollout_and_it_survives_them(
    gateway: GatewayProcess, client: Client, start: Callable[..., GatewayProcess]
) -> None:
    other = start()
    with other.client() as elsewhere:
        client.set_release_traffic(SAME, pb.RELEASE_ROLE_CANARY, 0.3)
        until(lambda: SAME in roles(elsewhere), "the other gateway follows")
        gateway.kill()
        elsewhere.promote_release(SAME)
        gateway.start()
        assert roles(elsewhere) == {SAME: "LIVE", FIRST: "RETIRED"}
    with gateway.client() as again:
        assert roles(again) == {SAME: "LIVE", FIRST: "RETIRED"}


def test_a_gateway_killed_in_mid_rollout_leaves_a_whole_plan(
    gateway: GatewayProcess, client: Client
) -> None:
    promoting = threading.Thread(target=_promote, args=(gateway.address,))
    promoting.start()
    time.sleep(0.2)
    gateway.kill()
    promoting.join()
    gateway.start()
    with gateway.client() as again:
        assert roles(again) in ({FIRST: "LIVE"}, {SAME: "LIVE", FIRST: "RETIRED"})
        (live,) = (one for one in again.list_releases() if one.role == pb.RELEASE_ROLE_LIVE)
        assert live.traffic == 1.0
        assert again.recommend("x", LOG.end).release == live.release


def _promote(address: str) -> None:
    with Client(address) as client, suppress(EbbingError):
        client.promote_release(SAME)


def test_what_cannot_be_done_is_refused_with_its_reason(
    client: Client, own_repository: tuple[Path, str]
) -> None:
    def refused(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(EbbingError) as error:
            call()
        return error.value.code, error.value.reason

    code = grpc.StatusCode
    canary = pb.RELEASE_ROLE_CANARY
    precondition = code.FAILED_PRECONDITION
    assert refused(lambda: client.promote_release(FIRST)) == (precondition, "ALREADY_LIVE")
    assert refused(lambda: client.promote_release(99)) == (code.NOT_FOUND, "RELEASE_NOT_FOUND")
    assert refused(lambda: client.set_release_traffic(SAME, canary, 1.01)) == (
        code.INVALID_ARGUMENT,
        "INVALID_FIELD",
    )
    assert refused(client.roll_back_release) == (precondition, "NOTHING_TO_ROLL_BACK")
    repository, _ = own_repository
    damaged = publish_again(repository, FIRST, 5)
    try:
        (repository / "ranking" / "5" / "model.pt").write_bytes(b"damaged")
        assert refused(lambda: client.promote_release(damaged)) == (
            precondition,
            "RELEASE_UNUSABLE",
        )
    finally:
        for model in ("retrieval", "ranking", "releases"):
            shutil.rmtree(repository / model / "5")
    client.set_release_traffic(SAME, canary, 0.1)
    assert refused(lambda: client.set_release_traffic(NAN, canary, 0.1)) == (
        precondition,
        "TRIAL_UNDER_WAY",
    )
    assert roles(client) == {FIRST: "LIVE", SAME: "CANARY"}


def test_the_command_rolls_out_and_back(gateway: GatewayProcess, client: Client) -> None:
    def command(*words: object) -> str:
        done = ran("rollout", *words, "--address", gateway.address, "--json")
        assert done.returncode == 0, done.stderr
        return done.stdout

    def role_of(number: int, text: str) -> str:
        return {one["release"]: one["role"] for one in json.loads(text)}[str(number)]

    live, canary = "RELEASE_ROLE_LIVE", "RELEASE_ROLE_CANARY"
    assert role_of(FIRST, command("status")) == live
    assert role_of(SAME, command("canary", "10%", "--release", SAME)) == canary
    assert role_of(SAME, command("promote")) == live
    assert role_of(FIRST, command("rollback", "--reason", "enough")) == live
    wrong = ran("rollout", "canary", "101%", "--address", gateway.address)
    assert wrong.returncode == 2
    assert "share" in wrong.stderr
