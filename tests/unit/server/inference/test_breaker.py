"""The circuit breaker: when it opens, whom it lets through, when it closes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.inference.breaker import FAILURES, REST_S, Breaker


def opened(at: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(FAILURES):
        assert breaker.admits(at)
        breaker.failed(at)
    return breaker


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    breaker = Breaker()
    for _ in range(FAILURES - 1):
        breaker.failed(0.0)
    assert not breaker.open
    breaker.succeeded()
    breaker.failed(0.0)
    assert not breaker.open
    assert opened().open


def test_one_for_each_rest_is_let_through() -> None:
    breaker = opened()
    assert not breaker.admits(REST_S * 0.99)
    assert breaker.admits(REST_S)
    assert not breaker.admits(REST_S)
    # The probe is never heard of again: another one goes.
    assert breaker.admits(2 * REST_S)
    breaker.failed(2.5 * REST_S)
    assert not breaker.admits(3 * REST_S)
    assert breaker.admits(3.5 * REST_S)


def test_an_answer_closes_it() -> None:
    breaker = opened()
    assert breaker.admits(REST_S)
    breaker.succeeded()
    assert not breaker.open
    assert breaker.admits(REST_S)
    breaker.failed(REST_S)
    assert not breaker.open


@given(st.lists(st.tuples(st.floats(0, 0.5), st.booleans()), max_size=200))
def test_nobody_is_kept_off_for_longer_than_a_rest(steps: list[tuple[float, bool]]) -> None:
    breaker, now, refused_since = Breaker(), 0.0, None
    for wait, works in steps:
        now += wait
        if breaker.admits(now):
            refused_since = None
            breaker.succeeded() if works else breaker.failed(now)
            assert not (works and breaker.open)
        else:
            refused_since = now if refused_since is None else refused_since
            assert now - refused_since < REST_S
