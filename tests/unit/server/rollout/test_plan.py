"""The plan: who is served by what, and what may become of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import AlreadyLive, EbbingError, NothingToRollBack, TrialUnderWay
from server.rollout.plan import KEPT_REASONS, Plan, Role, Trial

LIVE = Plan().promoted(1, 10)
USERS = [f"u{n}" for n in range(2000)]


def canary(release: int = 2, share: float = 0.1) -> Trial:
    return Trial(release, Role.CANARY, share)


def shadow(release: int = 3, share: float = 1.0) -> Trial:
    return Trial(release, Role.SHADOW, share)


def test_the_first_release_has_everybody() -> None:
    assert LIVE.version == 1
    assert LIVE.role_of(1) == (Role.LIVE, 1.0)
    assert {LIVE.serving(user) for user in USERS} == {1}
    assert {LIVE.shadowing(user) for user in USERS} == {0}
    assert LIVE.in_service == {1}


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_a_canary_serves_its_share(share: float) -> None:
    plan = LIVE.tried(canary(share=share))
    served = sum(plan.serving(user) == 2 for user in USERS) / len(USERS)
    assert served == pytest.approx(share, abs=0.03)
    assert plan.role_of(2) == (Role.CANARY, share)
    assert plan.role_of(1) == (Role.LIVE, 1.0 - share)
    assert plan.in_service == {1, 2}


def test_users_stay_with_a_canary_that_grows() -> None:
    shares = (0.05, 0.2, 0.6)
    served = [
        {user for user in USERS if LIVE.tried(canary(share=share)).serving(user) == 2}
        for share in shares
    ]
    assert served[0] < served[1] < served[2]


def test_different_canaries_have_different_users() -> None:
    """Or the same few would meet every mistake."""
    one, two = (
        {user for user in USERS if LIVE.tried(canary(release, 0.2)).serving(user) == release}
        for release in (2, 5)
    )
    assert 0.02 < len(one & two) / len(USERS) < 0.07


def test_a_shadow_shows_nothing() -> None:
    plan = LIVE.tried(shadow())
    assert {plan.serving(user) for user in USERS} == {1}
    assert {plan.shadowing(user) for user in USERS} == {3}
    assert plan.role_of(1) == (Role.LIVE, 1.0)


def test_a_promoted_release_leaves_the_one_before_at_hand() -> None:
    plan = LIVE.tried(canary()).promoted(2, 20)
    assert (plan.live, plan.before, plan.trials, plan.live_us) == (2, 1, (), 20)
    assert plan.role_of(1) == (Role.RETIRED, 0.0)
    assert plan.reasons[1] == "replaced by release 2"


def test_rolling_back_ends_what_is_tried_first() -> None:
    plan = LIVE.promoted(2, 20).tried(canary(3)).tried(shadow(4))
    ended = plan.rolled_back(30, "slow")
    assert (ended.live, ended.before, ended.trials) == (2, 1, ())
    assert ended.reasons[3] == ended.reasons[4] == "rolled back: slow"
    back = ended.rolled_back(40, "worse")
    assert (back.live, back.before) == (1, 0)
    assert back.reasons[2] == "rolled back: worse"
    with pytest.raises(NothingToRollBack):
        back.rolled_back(50, "again")


def test_what_is_rolled_back_can_be_named() -> None:
    plan = LIVE.promoted(2, 20).tried(canary(3)).tried(shadow(4))
    assert plan.rolled_back(30, "x", 3).trials == (shadow(4),)
    assert plan.rolled_back(30, "x", 2).live == 1
    assert plan.rolled_back(30, "x", 2).trials == plan.trials
    # The one at hand is let go of.
    assert plan.rolled_back(30, "x", 1).before == 0
    for stands, release in ((plan, 9), (LIVE, 1)):
        with pytest.raises(NothingToRollBack):
            stands.rolled_back(30, "x", release)


def test_what_is_live_cannot_be_tried_or_promoted() -> None:
    for change in (lambda: LIVE.tried(canary(1)), lambda: LIVE.promoted(1, 20)):
        with pytest.raises(AlreadyLive):
            change()


def test_one_canary_and_one_shadow_at_a_time() -> None:
    plan = LIVE.tried(canary(2)).tried(shadow(3))
    with pytest.raises(TrialUnderWay) as error:
        plan.tried(canary(4))
    assert error.value.metadata == {"release": "2"}
    with pytest.raises(TrialUnderWay):
        plan.tried(shadow(4))
    # The same one may change its share, or its role.
    assert plan.tried(canary(2, 0.5)).role_of(2) == (Role.CANARY, 0.5)
    assert LIVE.tried(canary(2)).tried(shadow(2)).trials == (shadow(2),)


def test_the_one_before_can_be_tried_again() -> None:
    plan = LIVE.promoted(2, 20).tried(canary(1))
    assert (plan.before, plan.role_of(1)) == (0, (Role.CANARY, 0.1))


def test_reasons_of_long_ago_are_let_go() -> None:
    plan = LIVE
    for release in range(2, 60):
        plan = plan.promoted(release, release)
    assert len(plan.reasons) == KEPT_REASONS + 2
    assert set(plan.reasons) >= {59, 58, 57}


def test_a_plan_that_does_not_read_is_no_plan() -> None:
    assert Plan.read(0, b"") == Plan()
    for body in (b"{", b"[]", b'{"live": 1}', b'{"trials": 3, "reasons": {}}', b"\xff"):
        with pytest.raises(ValueError, match="no rollout plan"):
            Plan.read(1, body)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["canary", "shadow", "promote", "roll back", "without"]),
        st.integers(1, 5),
        st.floats(0, 1),
    ),
    max_size=20,
)


def changed_by(plan: Plan, what: str, release: int, share: float, now_us: int) -> Plan:
    match what:
        case "canary":
            return plan.tried(canary(release, share))
        case "shadow":
            return plan.tried(shadow(release, share))
        case "promote":
            return plan.promoted(release, now_us)
        case "roll back":
            return plan.rolled_back(now_us, "why")
    return plan.without(release, now_us, "why")


@given(steps=STEPS)
def test_whatever_operators_do_the_plan_is_whole(steps: list[tuple[str, int, float]]) -> None:
    plan = LIVE
    for number, (what, release, share) in enumerate(steps):
        try:
            changed = changed_by(plan, what, release, share, number)
        except EbbingError:
            continue
        assert changed is plan or changed.version == plan.version + 1
        plan = changed
        assert plan.live
        assert plan.before != plan.live
        tried = [trial.release for trial in plan.trials]
        assert len({plan.live, plan.before, *tried}) == 2 + len(tried)
        assert len({trial.role for trial in plan.trials}) == len(tried)
        assert Plan.read(plan.version, plan.body) == plan
        assert {plan.serving(user) for user in USERS[:50]} <= plan.in_service
