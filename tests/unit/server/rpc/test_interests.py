"""InterestService on a store: what each answer holds, page by page, and how each failure ends."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from ebbing.interest.explanation import explain
from ebbing.interest.forgetting import ForgettingParameters
from ebbing.interest.graph import interest_graph
from ebbing.v1 import interest_service_pb2 as pb
from server.errors import (
    AtBeforeFirstEvent,
    HorizonOutOfRange,
    InterestNotFound,
    InvalidFields,
    UserNotFound,
)
from server.inference.releases import Releases
from server.metrics import Metrics
from server.profiles import profile_of
from server.rpc import interests as module
from server.rpc.interests import Interests
from server.rpc.mapping import user_interest
from server.state.sqlite import SqliteStore
from server.users import Users
from tests.harness.messages import rounded
from tests.suites.store_suite import DAY_US, START_US, deed, traces_of

PARAMETERS = ForgettingParameters.builtin()
ALPHA = 5.0
NOW_US = START_US + 100 * DAY_US
DAYS_S = 86400
FOOTBALL, JAZZ, BREAD = ("sports/football", 1.0), ("music/jazz", 2.0), ("cooking/bread", 0.5)
LOG = [
    *(deed(f"f{n}", days=7 * n, interests=(FOOTBALL,)) for n in range(12)),
    *(deed(f"j{n}", days=80 + n, interests=(JAZZ, BREAD)) for n in range(5)),
]
CONTEXT: Any = None


@pytest.fixture
def service(store: SqliteStore, metrics: Metrics) -> Interests:
    store.append(LOG)
    releases = SimpleNamespace(get=lambda number: SimpleNamespace(forgetting=PARAMETERS))
    users = Users(store, 64)
    watching: Any = None
    return Interests(users, cast(Releases, releases), metrics, lambda: NOW_US, ALPHA, watching)


def at(days: float) -> Timestamp:
    moment = Timestamp()
    moment.FromMicroseconds(START_US + round(days * DAY_US))
    return moment


def expected(days: float, known: float | None = None) -> dict[str, Any]:
    """Interests so many days after the start, by name, from the events up to ``known``."""
    upto = START_US + round((days if known is None else min(days, known)) * DAY_US)
    traces = traces_of(one for one in LOG if one.time_us <= upto)
    profile = profile_of(traces, START_US / 1e6 + days * DAYS_S, PARAMETERS, ALPHA)
    return {name: rounded(user_interest(profile, i)) for i, name in enumerate(traces.names)}


# --- GetInterestProfile ---------------------------------------------------------------------------


@pytest.mark.parametrize("days", [0.0, 10.5, 81.0, 84.0, 100.0, 500.0])
async def test_a_profile_at_any_moment_is_that_of_the_events_up_to_it(
    service: Interests, days: float
) -> None:
    request = pb.GetInterestProfileRequest(user_id="ann", at=at(days))
    answer = await service.GetInterestProfile(request, CONTEXT)
    assert {i.interest: rounded(i) for i in answer.interests} == expected(days)
    assert answer.at == at(days)
    assert answer.alpha == ALPHA
    assert sum(i.article_probability for i in answer.interests) == pytest.approx(1.0)


async def test_the_articles_numbers_are_over_all_interests_whatever_the_page(
    service: Interests,
) -> None:
    request = pb.GetInterestProfileRequest(user_id="ann", at=at(90), alpha=2.0)
    whole = await service.GetInterestProfile(request, CONTEXT)
    strength = np.array([i.strength for i in whole.interests])
    probability = np.array([i.article_probability for i in whole.interests])
    odds = np.exp(-2.0 * np.array([i.forgetting_score for i in whole.interests]))
    np.testing.assert_allclose(probability, odds / odds.sum())
    assert whole.article_score == pytest.approx(strength @ probability / strength.sum())
    request.page_size = 1
    page = await service.GetInterestProfile(request, CONTEXT)
    assert page.interests[0] == whole.interests[0]
    assert (page.article_score, page.alpha) == (whole.article_score, 2.0)


async def test_a_user_without_interests_has_neither_drift_nor_score(
    service: Interests, store: SqliteStore
) -> None:
    store.append([deed("none", user_id="bob", interests=())])
    answer = await service.GetInterestProfile(pb.GetInterestProfileRequest(user_id="bob"), CONTEXT)
    assert not answer.HasField("drift")
    assert not answer.HasField("article_score")
    assert answer.drift_undefined_reason == "NO_INTEREST"
    assert answer.event_count == 1


async def test_any_horizon_of_the_family(service: Interests) -> None:
    shortest, longest = PARAMETERS.horizons_s
    for horizon_s in (shortest, 45 * DAYS_S, longest):
        horizon = Duration()
        horizon.FromMicroseconds(round(horizon_s * 1e6))
        request = pb.GetInterestProfileRequest(user_id="ann", at=at(90), horizon=horizon)
        answer = await service.GetInterestProfile(request, CONTEXT)
        assert answer.horizon == horizon
        assert all(0 <= i.retention <= 1 for i in answer.interests)


@pytest.mark.parametrize("days", [1e-9, 1e6])
@pytest.mark.parametrize("rpc", ["GetInterestProfile", "ExplainInterest", "ListInterestHistory"])
async def test_horizons_outside_the_family(service: Interests, rpc: str, days: float) -> None:
    request = getattr(pb, f"{rpc}Request")(user_id="ann")
    request.horizon.FromNanoseconds(round(days * DAYS_S * 1e9))
    if rpc == "ExplainInterest":
        request.interest = FOOTBALL[0]
    with pytest.raises(HorizonOutOfRange) as error:
        await getattr(service, rpc)(request, CONTEXT)
    limits = [int(error.value.metadata[f"{name}_us"]) / 1e6 for name in ("shortest", "longest")]
    assert limits == pytest.approx(PARAMETERS.horizons_s)


# --- ListInterestHistory --------------------------------------------------------------------------


async def points(service: Interests, **fields: Any) -> list[pb.InterestHistoryPoint]:
    """All points, page by page."""
    found: list[pb.InterestHistoryPoint] = []
    token = ""
    while True:
        request = pb.ListInterestHistoryRequest(user_id="ann", page_token=token, **fields)
        answer = await service.ListInterestHistory(request, CONTEXT)
        found += answer.points
        token = answer.next_page_token
        if not token:
            return found


async def test_every_point_is_the_profile_of_its_moment(service: Interests) -> None:
    step = Duration(seconds=9 * DAYS_S)
    course = await points(service, step=step, end_time=at(130), page_size=4)
    assert [p.time for p in course] == [at(9 * n) for n in range(15)]
    for n, point in enumerate(course):
        assert {i.interest: rounded(i) for i in point.interests} == expected(9 * n)
        assert point.forecast is (9 * n > 100)


async def test_a_forecast_as_of_the_past_knows_nothing_of_what_came(service: Interests) -> None:
    step = Duration(seconds=10 * DAYS_S)
    course = await points(service, step=step, at=at(50), end_time=at(100), page_size=3)
    assert [p.forecast for p in course] == [False] * 6 + [True] * 5
    for n, point in enumerate(course):
        assert {i.interest: rounded(i) for i in point.interests} == expected(10 * n, known=50)


async def test_history_goes_from_the_first_event_to_now_by_the_day(service: Interests) -> None:
    course = await points(service)
    assert (course[0].time, course[-1].time, len(course)) == (at(0), at(100), 101)
    # Strongest at the end first.
    assert course[-1].interests[0].interest == JAZZ[0]
    assert [i.interest for i in course[0].interests] == [FOOTBALL[0]]


async def test_the_interests_asked_for_in_their_order(service: Interests) -> None:
    course = await points(service, interests=[BREAD[0], FOOTBALL[0]], start_time=at(79))
    assert [i.interest for i in course[0].interests] == [FOOTBALL[0]]
    assert [i.interest for i in course[-1].interests] == [BREAD[0], FOOTBALL[0]]


async def test_by_themselves_the_eight_strongest_are_told_of(
    service: Interests, store: SqliteStore
) -> None:
    store.append([deed(f"m{n}", days=90, interests=((f"m{n}", 20.0 + n),)) for n in range(10)])
    course = await points(service, start_time=at(95))
    assert [i.interest for i in course[0].interests] == [f"m{n}" for n in range(9, 1, -1)]


async def test_a_page_of_many_interests_has_fewer_points(
    service: Interests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.histories.PAGE_INTERESTS", 7)
    request = pb.ListInterestHistoryRequest(user_id="ann", page_size=50)
    answer = await service.ListInterestHistory(request, CONTEXT)
    assert len(answer.points) == 2
    assert answer.next_page_token
    assert len(await points(service, page_size=50)) == 101


async def test_now_stays_where_it_was_on_the_first_page(
    service: Interests, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = pb.ListInterestHistoryRequest(user_id="ann", page_size=60)
    first = await service.ListInterestHistory(request, CONTEXT)
    store.append([deed("later", days=101, interests=(("new", 9.0),))])
    monkeypatch.setattr(service, "_now_us", lambda: NOW_US + 50 * DAY_US)
    request.page_token = first.next_page_token
    second = await service.ListInterestHistory(request, CONTEXT)
    assert (second.points[-1].time, second.next_page_token) == (at(100), "")
    assert not any(i.interest == "new" for point in second.points for i in point.interests)


async def test_history_of_a_user_without_interests(service: Interests, store: SqliteStore) -> None:
    store.append([deed("none", user_id="bob", weight=0.0, interests=())])
    request = pb.ListInterestHistoryRequest(user_id="bob")
    answer = await service.ListInterestHistory(request, CONTEXT)
    assert [len(point.interests) for point in answer.points] == [0]


@pytest.mark.parametrize(
    ("fields", "error", "said"),
    [
        ({"user_id": "nobody"}, UserNotFound, {"user_id": "nobody"}),
        ({"interests": ["no"]}, InterestNotFound, {"user_id": "ann", "interest": "no"}),
        (
            {"interests": [JAZZ[0]], "end_time": at(79)},
            InterestNotFound,
            {"user_id": "ann", "interest": JAZZ[0]},
        ),
        ({"start_time": at(-1)}, AtBeforeFirstEvent, {"earliest_us": str(START_US)}),
        ({"end_time": at(-1)}, AtBeforeFirstEvent, {"earliest_us": str(START_US)}),
        ({"at": at(-1)}, AtBeforeFirstEvent, {"earliest_us": str(START_US)}),
    ],
)
async def test_histories_that_cannot_be_told(
    service: Interests, fields: dict[str, Any], error: type[Exception], said: dict[str, str]
) -> None:
    request = pb.ListInterestHistoryRequest(**{"user_id": "ann", **fields})
    with pytest.raises(error) as caught:
        await service.ListInterestHistory(request, CONTEXT)
    assert cast(Any, caught.value).metadata == said


async def test_a_history_that_would_start_after_now(service: Interests) -> None:
    request = pb.ListInterestHistoryRequest(user_id="ann", start_time=at(101))
    with pytest.raises(InvalidFields) as error:
        await service.ListInterestHistory(request, CONTEXT)
    assert [v.field for v in error.value.violations] == ["end_time"]


@pytest.mark.parametrize(
    "position", ["", "1", "1 2 3", "x y", "-1 5", "1.5 2", "9" * 30 + " 1", "1  2"]
)
async def test_forged_tokens_of_a_history(service: Interests, position: str) -> None:
    listing = f"history ann None None None {DAY_US} {PARAMETERS.horizon_s}"
    token = module.write_token(listing, position or "½")
    request = pb.ListInterestHistoryRequest(user_id="ann", page_token=token)
    with pytest.raises(InvalidFields) as error:
        await service.ListInterestHistory(request, CONTEXT)
    assert [v.field for v in error.value.violations] == ["page_token"]


async def test_a_token_that_leads_beyond_the_end_leads_to_an_empty_page(service: Interests) -> None:
    listing = f"history ann None None None {DAY_US} {PARAMETERS.horizon_s}"
    token = module.write_token(listing, f"{NOW_US} {NOW_US + 1}")
    request = pb.ListInterestHistoryRequest(user_id="ann", page_token=token)
    answer = await service.ListInterestHistory(request, CONTEXT)
    assert not answer.points
    assert not answer.next_page_token


# --- GetInterestGraph -----------------------------------------------------------------------------


@pytest.mark.parametrize("days", [40.0, 82.0, 100.0])
async def test_the_graph_is_that_of_the_events(service: Interests, days: float) -> None:
    request = pb.GetInterestGraphRequest(user_id="ann", at=at(days))
    answer = await service.GetInterestGraph(request, CONTEXT)
    nodes = {i.interest: rounded(i) for i in answer.nodes}
    assert nodes == expected(days)
    strengths = [i.strength for i in answer.nodes]
    assert strengths == sorted(strengths, reverse=True)
    names, moment = list(nodes), START_US / 1e6 + days * DAYS_S
    graph = interest_graph(
        [(i.time_s, i.weight, i.interests) for i in LOG if i.time_s <= moment], names, moment
    )
    for edge in answer.edges:
        i, j = names.index(edge.from_interest), names.index(edge.to_interest)
        assert edge.co_occurrence == graph.co_occurrence[i, j]
        assert edge.succession == graph.succession[i, j]
    weights = [edge.co_occurrence + edge.succession for edge in answer.edges]
    assert weights == sorted(weights, reverse=True)
    assert len(weights) == np.count_nonzero(graph.co_occurrence + graph.succession)


async def test_a_graph_of_so_many_nodes(service: Interests) -> None:
    request = pb.GetInterestGraphRequest(user_id="ann", max_nodes=2)
    answer = await service.GetInterestGraph(request, CONTEXT)
    names = [i.interest for i in answer.nodes]
    assert len(names) == 2
    assert {name for e in answer.edges for name in (e.from_interest, e.to_interest)} <= set(names)


async def test_only_the_newest_events_make_the_graph(
    service: Interests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_ENGAGEMENTS", 2)
    answer = await service.GetInterestGraph(pb.GetInterestGraphRequest(user_id="ann"), CONTEXT)
    assert {e.from_interest for e in answer.edges} == {JAZZ[0], BREAD[0]}


async def test_a_graph_without_edges_and_without_nodes(
    service: Interests, store: SqliteStore
) -> None:
    request = pb.GetInterestGraphRequest(user_id="ann", at=at(0))
    answer = await service.GetInterestGraph(request, CONTEXT)
    assert (len(answer.nodes), len(answer.edges)) == (1, 0)
    store.append([deed("none", user_id="bob", interests=())])
    answer = await service.GetInterestGraph(pb.GetInterestGraphRequest(user_id="bob"), CONTEXT)
    assert (len(answer.nodes), len(answer.edges)) == (0, 0)


# --- ExplainInterest ------------------------------------------------------------------------------


@pytest.mark.parametrize("days", [81.0, 100.0, 400.0])
async def test_contributions_add_up_to_retention(service: Interests, days: float) -> None:
    for name, known in expected(days).items():
        request = pb.ExplainInterestRequest(user_id="ann", interest=name, at=at(days))
        answer = await service.ExplainInterest(request, CONTEXT)
        assert rounded(answer.interest) == known
        odds = sum(part.log_odds for part in answer.contributions)
        assert 1 / (1 + np.exp(-odds)) == pytest.approx(answer.interest.retention, rel=1e-9)
        traces = traces_of(o for o in LOG if o.time_us <= START_US + days * DAY_US)
        parts = explain(traces, START_US / 1e6 + days * DAYS_S, name, PARAMETERS)
        assert [(p.name, p.text) for p in answer.contributions] == [(p.name, p.text) for p in parts]
        told = [(p.log_odds, p.value) for p in answer.contributions]
        np.testing.assert_allclose(told, [(p.log_odds, p.value) for p in parts], rtol=1e-9)
        assert answer.horizon.ToMicroseconds() / 1e6 == PARAMETERS.horizon_s


async def test_what_was_not_engaged_by_then_cannot_be_explained(service: Interests) -> None:
    request = pb.ExplainInterestRequest(user_id="ann", interest=JAZZ[0], at=at(79))
    with pytest.raises(InterestNotFound) as error:
        await service.ExplainInterest(request, CONTEXT)
    assert error.value.metadata == {"user_id": "ann", "interest": JAZZ[0]}


@pytest.mark.parametrize("rpc", ["GetInterestProfile", "GetInterestGraph", "ExplainInterest"])
async def test_users_and_moments_nothing_is_known_of(service: Interests, rpc: str) -> None:
    method, kind = getattr(service, rpc), getattr(pb, f"{rpc}Request")
    fields = {"interest": FOOTBALL[0]} if rpc == "ExplainInterest" else {}
    with pytest.raises(UserNotFound):
        await method(kind(user_id="nobody", **fields), CONTEXT)
    with pytest.raises(AtBeforeFirstEvent):
        await method(kind(user_id="ann", at=at(-1), **fields), CONTEXT)
