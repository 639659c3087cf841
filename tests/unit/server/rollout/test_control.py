"""Keeping to the plan: several gateways on one store and one Triton."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from ebbing.manifest import Manifest, ManifestError
from server.errors import (
    AlreadyLive,
    NothingToRollBack,
    ReleaseNotFound,
    ReleaseUnusable,
    RolloutChanged,
    StoreUnavailable,
    TrialUnderWay,
)
from server.inference.errors import ModelLoadError
from server.inference.releases import Releases
from server.metrics import Metrics
from server.rollout.control import RolloutConfig, RolloutControl
from server.rollout.guardrails import GuardrailConfig, Guardrails, Observation
from server.rollout.plan import Plan, Role
from server.state.sqlite import SqliteStore
from server.state.store import Rollout
from tests.unit.server.inference.fake_triton import MODELS, FakeTriton, publish

COMMITTED = Path(__file__).parents[4] / "triton_repo"


class Clock:
    """Monotonic seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def us(self) -> int:
        return round(self.now * 1e6)


class Silent:
    """Hears nothing of batches."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def triton() -> FakeTriton:
    return FakeTriton()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "triton_repo"
    for model in MODELS:
        (folder / model).mkdir(parents=True)
        shutil.copy(COMMITTED / model / "config.pbtxt", folder / model)
    for release in (1, 2, 3):
        publish(folder, release)
    return folder


Start = Callable[..., RolloutControl]


@pytest.fixture
async def start(
    store: SqliteStore, writer: Executor, repository: Path, triton: Any, clock: Clock
) -> AsyncIterator[Start]:
    """Makes gateways' rollouts, all of one store and one Triton."""
    made: list[Releases] = []

    def control() -> RolloutControl:
        releases = Releases(repository, triton, Silent(), time.monotonic, 2.0)
        made.append(releases)
        return RolloutControl(
            store,
            writer,
            releases,
            Guardrails(GuardrailConfig()),
            Metrics(CollectorRegistry()),
            clock.us,
            clock,
            RolloutConfig(),
        )

    yield control
    for releases in made:
        await releases.drain()


@pytest.fixture
async def rollout(start: Start) -> RolloutControl:
    """A gateway whose live release is the first."""
    control = start()
    await control.begin(1)
    return control


def held(triton: FakeTriton) -> set[int]:
    return {version for model, version in triton.held if model == "retrieval"}


def fail(rollout: RolloutControl, release: int, clock: Clock, times: int = 20) -> None:
    for _ in range(times):
        rollout.observe(release, Observation(clock.now, True))


# Beginning.


async def test_without_a_plan_the_newest_release_begins_one(start: Start, store: Any) -> None:
    control = start()
    assert (await control.begin(0)).release == 3
    assert control.plan.live == 3
    assert Plan.read(*store.rollout()) == control.plan


async def test_the_plan_survives_a_restart_and_a_newer_release(
    rollout: RolloutControl, start: Start
) -> None:
    await rollout.try_release(2, Role.CANARY, 0.3)
    again = start()
    assert (await again.begin(0)).release == 1
    assert again.plan == rollout.plan
    assert again.serving("x", 2).release == 2


async def test_a_restart_with_the_release_it_began_with_undoes_nothing(
    rollout: RolloutControl, start: Start
) -> None:
    await rollout.promote(2)
    again = start()
    assert (await again.begin(1)).release == 2
    assert again.plan == rollout.plan


async def test_a_live_release_that_is_gone_gives_way_to_the_newest(
    rollout: RolloutControl, start: Start, repository: Path
) -> None:
    shutil.rmtree(Manifest.folder(repository, 1))
    again = start()
    assert (await again.begin(0)).release == 3
    # It cannot be gone back to either.
    assert again.plan.before == 0
    assert "release 1 cannot be served" in again.plan.reasons[3]


async def test_a_repository_without_the_release_named(start: Start) -> None:
    with pytest.raises(ManifestError, match="published: 1, 2, 3"):
        await start().begin(9)


async def test_a_trial_that_cannot_be_served_any_more_is_given_up(
    rollout: RolloutControl, start: Start, repository: Path
) -> None:
    await rollout.try_release(2, Role.CANARY, 0.5)
    (repository / "ranking" / "2" / "model.pt").write_bytes(b"damaged")
    again = start()
    await again.begin(0)
    assert again.plan.trials == ()
    assert "model.pt" in again.plan.reasons[2]
    assert {again.serving(f"u{n}").release for n in range(50)} == {1}


async def test_a_plan_that_does_not_read_is_said(start: Start, store: SqliteStore) -> None:
    store.write_rollout(Rollout(1, b"what"))
    with pytest.raises(StoreUnavailable, match="rollout plan"):
        await start().begin(0)


# Changing.


async def test_a_canary_is_loaded_before_it_serves(
    rollout: RolloutControl, triton: FakeTriton
) -> None:
    plan = await rollout.try_release(2, Role.CANARY, 0.5)
    assert plan == rollout.plan
    assert held(triton) == {1, 2}
    assert {rollout.serving(f"u{n}").release for n in range(50)} == {1, 2}


async def test_other_gateways_follow_at_their_next_look(
    rollout: RolloutControl, start: Start
) -> None:
    other = start()
    await other.begin(0)
    await rollout.promote(2)
    assert other.serving("u").release == 1
    await other.look()
    assert other.serving("u").release == 2


async def test_a_release_that_left_lingers_and_then_goes(
    rollout: RolloutControl, triton: FakeTriton, clock: Clock
) -> None:
    await rollout.promote(2)
    await rollout.promote(3)
    await rollout.look()
    assert rollout.serving("u", 1).release == 1
    clock.now += 15.0
    await rollout.look()
    assert triton.loads[-2:] == [("retrieval", (2, 3)), ("ranking", (2, 3))]
    with pytest.raises(ReleaseNotFound):
        rollout.serving("u", 1)


async def test_a_release_that_comes_back_in_time_stays(
    rollout: RolloutControl, clock: Clock
) -> None:
    await rollout.try_release(2, Role.SHADOW, 1.0)
    await rollout.roll_back("")
    await rollout.try_release(2, Role.CANARY, 0.0)
    clock.now += 20.0
    await rollout.look()
    assert rollout.serving("u", 2).release == 2


async def test_what_cannot_be_done_changes_nothing(
    rollout: RolloutControl, store: SqliteStore, repository: Path
) -> None:
    (repository / "ranking" / "3" / "model.pt").write_bytes(b"damaged")
    before = store.rollout()
    for attempt, error in (
        (rollout.promote(1), AlreadyLive),
        (rollout.try_release(1, Role.CANARY, 0.1), AlreadyLive),
        (rollout.promote(9), ReleaseNotFound),
        (rollout.try_release(9, Role.SHADOW, 1.0), ReleaseNotFound),
        (rollout.promote(3), ReleaseUnusable),
        (rollout.roll_back("why"), NothingToRollBack),
    ):
        with pytest.raises(error):
            await attempt
    assert store.rollout() == before
    await rollout.try_release(2, Role.CANARY, 0.1)
    publish(repository, 4)
    with pytest.raises(TrialUnderWay):
        await rollout.try_release(4, Role.CANARY, 0.1)


async def test_a_release_triton_does_not_load_is_not_promoted(
    rollout: RolloutControl, triton: FakeTriton
) -> None:
    triton.load_failure = ModelLoadError("damaged")
    with pytest.raises(ReleaseUnusable, match="damaged"):
        await rollout.promote(2)
    assert rollout.serving("u").release == 1


async def test_of_two_operators_at_once_one_is_told(start: Start, rollout: RolloutControl) -> None:
    other = start()
    await other.begin(0)
    done = await asyncio.gather(rollout.promote(2), other.promote(3), return_exceptions=True)
    plans = [one for one in done if isinstance(one, Plan)]
    assert len(plans) == 1
    assert [type(one) for one in done if not isinstance(one, Plan)] == [RolloutChanged]
    await rollout.look()
    await other.look()
    assert rollout.plan == other.plan == plans[0]


async def test_a_caller_who_leaves_leaves_no_half_state(
    rollout: RolloutControl, store: SqliteStore
) -> None:
    leaving = asyncio.create_task(rollout.promote(2))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    async with asyncio.timeout(5):
        while rollout.plan.live != 2:
            await asyncio.sleep(0.001)
    assert Plan.read(*store.rollout()) == rollout.plan


async def test_whoever_waits_for_changes_is_woken(rollout: RolloutControl) -> None:
    waiting = asyncio.create_task(rollout.news.wait(5.0))
    await asyncio.sleep(0)
    await rollout.promote(2)
    async with asyncio.timeout(1):
        await waiting


# Guarding.


async def test_a_canary_that_fails_is_rolled_back_with_its_reason(
    rollout: RolloutControl, clock: Clock
) -> None:
    await rollout.try_release(2, Role.CANARY, 0.5)
    fail(rollout, 2, clock)
    await rollout.look()
    assert rollout.plan.trials == ()
    assert rollout.plan.live == 1
    assert "guardrail failures" in rollout.plan.reasons[2]


async def test_a_promoted_release_is_on_probation(rollout: RolloutControl, clock: Clock) -> None:
    await rollout.promote(2)
    fail(rollout, 2, clock)
    await rollout.look()
    assert (rollout.plan.live, rollout.plan.before) == (1, 0)


async def test_after_its_probation_a_release_is_the_measure(
    rollout: RolloutControl, clock: Clock
) -> None:
    await rollout.promote(2)
    clock.now += 601.0
    fail(rollout, 2, clock)
    await rollout.look()
    assert rollout.plan.live == 2


async def test_a_guardrail_on_one_gateway_is_felt_on_all(
    rollout: RolloutControl, start: Start, clock: Clock
) -> None:
    await rollout.try_release(2, Role.CANARY, 0.5)
    other = start()
    await other.begin(0)
    fail(other, 2, clock)
    await other.look()
    await rollout.look()
    assert rollout.plan.trials == other.plan.trials == ()


async def test_what_a_release_did_before_its_role_does_not_count(
    rollout: RolloutControl, clock: Clock
) -> None:
    await rollout.try_release(2, Role.SHADOW, 1.0)
    fail(rollout, 2, clock)
    clock.now += 1.0
    await rollout.try_release(2, Role.CANARY, 0.5)
    await rollout.look()
    assert rollout.plan.trial(Role.CANARY) is not None
