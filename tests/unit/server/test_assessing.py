"""The outlook of many users at once is, for each, what the engine says of them alone."""

from __future__ import annotations

import random

import numpy as np
import pytest

from ebbing.interest.assessment import Assessment, assess, states_at
from ebbing.interest.forgetting import ForgettingParameters
from ebbing.interest.states import InterestState
from ebbing.interest.trace import TraceTable
from server.assessing import ReleaseAssess
from server.told import Course

DAY_S = 86400.0
START_S = 1.7e9
PARAMETERS = ForgettingParameters.builtin()


def some_table(seed: int) -> TraceTable:
    """A user with interests of all sorts, weekly ones among them, over two years."""
    chance = random.Random(seed)
    events = []
    for n in range(chance.randint(1, 8)):
        name, time = f"interest {n}", START_S + chance.uniform(0, 300) * DAY_S
        gap_s = chance.choice([7.0, 1.0, 30.0, chance.uniform(0.1, 90.0)]) * DAY_S
        for _ in range(chance.choice([1, 2, 3, 12, 30])):
            events.append((time, 1.0, [(name, 1.0)]))
            time += gap_s * chance.choice([1.0, 1.0, chance.uniform(0.2, 4.0)])
    return TraceTable.from_events(events)


def words(assessed: Assessment, i: int) -> bytes:
    """Everything an account could be made of."""
    return repr(
        [
            assessed.retention[i],
            round(float(assessed.freshness[i]), 9),
            round(float(assessed.recency_s[i]), 3),
            int(assessed.states[i]),
            assessed.rhythm.gap_s[i],
            assessed.trend[i],
            assessed.limits.fading_s[i],
        ]
    ).encode()


@pytest.fixture
def tables() -> list[TraceTable]:
    return [some_table(seed) for seed in range(40)]


@pytest.fixture
def model() -> ReleaseAssess:
    return ReleaseAssess(PARAMETERS, words)


@pytest.mark.parametrize("days", [0.0, 1.0, 20.0, 400.0])
def test_states_and_changes_are_those_of_each_alone(
    model: ReleaseAssess, tables: list[TraceTable], days: float
) -> None:
    ats = [table.span[1] + days * DAY_S for table in tables]
    counts = [len(table.names) for table in tables]
    course = Course.of(model.outlook(tables), np.repeat(ats, counts))
    alone = [states_at(table, at, PARAMETERS) for table, at in zip(tables, ats, strict=True)]
    assert course.present.tolist() == np.concatenate(alone).tolist()
    changes = [assess(table, at, PARAMETERS).changes for table, at in zip(tables, ats, strict=True)]
    np.testing.assert_allclose(course.next_change, np.concatenate(changes), rtol=0, atol=1e-5)


def test_every_step_of_a_course_is_what_the_engine_says_then(
    model: ReleaseAssess, tables: list[TraceTable]
) -> None:
    for table in tables:
        newest = table.span[1]
        course = Course.of(model.outlook([table]), np.full(len(table.names), newest + 1e9))
        for i in range(len(table.names)):
            for time, state in course.steps(i, 0):
                if time >= newest:
                    assert states_at(table, time, PARAMETERS)[i] == state
        assert set(course.present.tolist()) == {InterestState.FORGOTTEN}


def test_accounts_are_those_of_each_alone(model: ReleaseAssess, tables: list[TraceTable]) -> None:
    outlook = model.outlook(tables)
    for user, table in enumerate(tables):
        at = table.span[1] + 3 * DAY_S
        assessed = assess(table, at, PARAMETERS)
        for i in range(len(table.names)):
            account = outlook.account(user, i, int(assessed.states[i]), at)
            assert account.retention == assessed.retention[i]
            assert account.reason == words(assessed, i)


def test_retention_before_the_newest_event_is_as_of_it(model: ReleaseAssess) -> None:
    table = TraceTable.from_events(
        [(START_S, 1.0, [("old", 1.0)]), (START_S + 100 * DAY_S, 1.0, [("new", 1.0)])]
    )
    account = model.outlook([table]).account(
        0, table.names.index("old"), InterestState.FADING, START_S + 50 * DAY_S
    )
    expected = assess(table, START_S + 100 * DAY_S, PARAMETERS)
    assert account.retention == expected.retention[table.names.index("old")]
    assert str(50 * DAY_S).encode() in account.reason


def test_users_without_interests(model: ReleaseAssess) -> None:
    nothing = TraceTable.from_events([(START_S, 1.0, [])])
    course = Course.of(model.outlook([nothing, nothing]), np.zeros(0))
    assert course.present.tolist() == []


def test_other_parameters_have_another_name() -> None:
    named = {
        ReleaseAssess(parameters, words).parameters
        for parameters in (PARAMETERS, ForgettingParameters.builtin())
    }
    assert len(named) == 1
    text = PARAMETERS.to_json().replace("builtin", "another")
    assert ReleaseAssess(ForgettingParameters.from_json(text), words).parameters not in named
