"""Re-ranking by the state of interest, and the articles' fields over a slate."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ebbing.history import item_key
from ebbing.interest.assessment import assess
from ebbing.interest.forgetting import ForgettingParameters
from ebbing.interest.trace import TraceTable
from server.recommend.candidates import Candidate, Source
from server.recommend.interests import InterestContext
from server.recommend.reranking import Scored, article_fields, belief
from server.recommend.strategies import Strategy, StrategyConfig, plan
from server.state.store import Interests, ItemRecord

DAY_S = 86400.0
AT_S = 1.7e9
PARAMETERS = ForgettingParameters.builtin()
TRACES = TraceTable.from_events(
    [
        *((AT_S - d * DAY_S, 1.0, [("alive", 1.0)]) for d in range(0, 20, 2)),
        *((AT_S - d * DAY_S, 1.0, [("faded", 1.0)]) for d in range(300, 320, 2)),
        (AT_S - 100 * DAY_S, 1.0, [("once", 1.0)]),
    ]
)
RHO = dict(zip(TRACES.names, assess(TRACES, AT_S, PARAMETERS).retention.tolist(), strict=True))


@pytest.fixture
def context() -> InterestContext:
    return InterestContext.of(TRACES, AT_S, PARAMETERS)


def candidates(*interests: Interests) -> list[Candidate]:
    """Candidates called i0, i1, … that are about these interests."""
    return [
        Candidate(ItemRecord(f"i{n}", item_key(f"i{n}"), about, 0, 0, b""), Source.RETRIEVAL)
        for n, about in enumerate(interests)
    ]


ALIVE, FADED, UNKNOWN = (("alive", 1.0),), (("faded", 1.0),), (("unknown", 1.0),)


def relevance(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def follow(
    items: list[Candidate], told: np.ndarray | None, context: InterestContext, share: float
) -> list[Scored]:
    """What the strategy FOLLOW makes of candidates, best first."""
    config = StrategyConfig(forgetting_share=share)
    made = plan(Strategy.FOLLOW, items, belief(items, told), context, config, len(items))
    forgetting, _ = context.forgetting_of([c.item.interests for c in items])
    return [
        Scored(
            items[i],
            float(made.scores[i]),
            None if told is None else float(told[i]),
            float(forgetting[i]),
        )
        for i in np.argsort(-made.scores, kind="stable")
    ]


def ids(scored: list) -> list[str]:
    return [s.candidate.item.item_id for s in scored]


def test_the_world_is_as_the_tests_want_it() -> None:
    assert RHO["alive"] > 0.5 > RHO["once"] > RHO["faded"] > 0


def test_priority_is_by_retention(context: InterestContext) -> None:
    assert context.order(context.retention) == ["alive", "once", "faded"]


def test_forgetting_is_the_weighted_forgetting_score(context: InterestContext) -> None:
    mixed = (("alive", 3.0), ("faded", 1.0))
    half_known = (("alive", 1.0), ("unknown", 1.0))
    forgetting, liveliness = context.forgetting_of([ALIVE, mixed, half_known, UNKNOWN, ()])
    phi = {name: 1 - rho for name, rho in RHO.items()}
    wanted = [
        phi["alive"],
        0.75 * phi["alive"] + 0.25 * phi["faded"],
        0.5 * phi["alive"] + 0.5,
        1.0,
        1.0,
    ]
    np.testing.assert_allclose(forgetting, wanted, rtol=1e-12)
    # The liveliest interest is the measure of the others.
    relative = RHO["faded"] / RHO["alive"]
    np.testing.assert_allclose(liveliness, [1.0, 0.75 + 0.25 * relative, 0.5, 0.0, 0.0], rtol=1e-12)


def test_of_a_user_without_interests(context: InterestContext) -> None:
    nobody = InterestContext.of(TraceTable.empty(), AT_S, PARAMETERS)
    assert nobody.order(nobody.retention) == []
    forgetting, liveliness = nobody.forgetting_of([ALIVE, ()])
    assert forgetting.tolist() == [1.0, 1.0]
    assert liveliness.tolist() == [0.0, 0.0]
    # Nothing sets the candidates apart, so they stay in the order they came in.
    assert ids(follow(candidates(FADED, ALIVE, ()), None, nobody, 0.7)) == ["i0", "i1", "i2"]


def test_without_a_share_of_forgetting_it_is_the_order_of_relevance(
    context: InterestContext,
) -> None:
    items = candidates(UNKNOWN, ALIVE, FADED, ALIVE)
    ranked = follow(items, relevance(0.9, 0.1, 0.5, 0.7), context, 0.0)
    assert ids(ranked) == ["i0", "i3", "i2", "i1"]
    assert [s.score for s in ranked] == [s.relevance for s in ranked]


def test_forgetting_weighs_relevance(context: InterestContext) -> None:
    items = candidates(FADED, ALIVE)
    ranked = follow(items, relevance(0.6, 0.5), context, 0.7)
    assert ids(ranked) == ["i1", "i0"]
    relative = RHO["faded"] / RHO["alive"]
    assert ranked[0].score == pytest.approx(0.5)
    assert ranked[1].score == pytest.approx(0.6 * (0.3 + 0.7 * relative), rel=1e-6)
    assert ranked[1].relevance == pytest.approx(0.6)
    assert ranked[1].forgetting == pytest.approx(1 - RHO["faded"])


def test_with_the_whole_share_an_unknown_interest_scores_nothing(
    context: InterestContext,
) -> None:
    ranked = follow(candidates(UNKNOWN, ALIVE), relevance(1.0, 0.01), context, 1.0)
    assert ids(ranked) == ["i1", "i0"]
    assert ranked[1].score == 0.0


def test_without_relevance_the_order_of_candidates_stands_in(context: InterestContext) -> None:
    ranked = follow(candidates(ALIVE, ALIVE, FADED, ALIVE), None, context, 0.0)
    assert ids(ranked) == ["i0", "i1", "i2", "i3"]
    assert [s.score for s in ranked] == pytest.approx([1 / 2, 1 / 3, 1 / 4, 1 / 5])
    assert {s.relevance for s in ranked} == {None}
    weighed = follow(candidates(FADED, ALIVE), None, context, 0.7)
    assert ids(weighed) == ["i1", "i0"]


def test_equals_stay_in_the_order_they_came_in(context: InterestContext) -> None:
    ranked = follow(candidates(*[ALIVE] * 20), relevance(*[0.5] * 20), context, 0.7)
    assert ids(ranked) == [f"i{n}" for n in range(20)]


def test_nothing_to_rank(context: InterestContext) -> None:
    assert follow([], None, context, 0.7) == []
    probabilities, score = article_fields([], 5.0)
    assert (probabilities.size, score) == (0, 0.0)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 5.0, 1000.0])
def test_probabilities_sum_to_one(context: InterestContext, alpha: float) -> None:
    items = candidates(ALIVE, FADED, UNKNOWN)
    slate = follow(items, relevance(0.2, 0.4, 0.6), context, 0.7)
    probabilities, score = article_fields(slate, alpha)
    assert math.fsum(probabilities) == pytest.approx(1.0, abs=1e-12)
    powers = [math.exp(-alpha * (s.forgetting - slate[0].forgetting)) for s in slate]
    np.testing.assert_allclose(probabilities, np.array(powers) / sum(powers), rtol=1e-9)
    assert score == pytest.approx(
        sum(s.relevance * p for s, p in zip(slate, probabilities, strict=True))
    )


def test_without_relevance_the_score_is_the_weight(context: InterestContext) -> None:
    slate = follow(candidates(ALIVE, FADED), None, context, 0.7)
    probabilities, score = article_fields(slate, 5.0)
    assert score == pytest.approx(
        slate[0].score * probabilities[0] + slate[1].score * probabilities[1]
    )


def retrieved(*scores: float) -> list[Candidate]:
    """Candidates about the same living interest, with these retrieval scores."""
    return [
        c._replace(retrieval_score=s)
        for c, s in zip(candidates(*[ALIVE] * len(scores)), scores, strict=True)
    ]


def test_belief_is_retrieval_probability_times_odds_of_relevance(context: InterestContext) -> None:
    ranked = follow(retrieved(2.0, 1.0, 0.0), relevance(0.5, 0.9, 0.5), context, 0.0)
    assert ids(ranked) == ["i1", "i0", "i2"]
    best = math.exp(1.0) * 9.0
    wanted = [1.0, math.exp(2.0) / best, 1.0 / best]
    assert [s.score for s in ranked] == pytest.approx(wanted, rel=1e-5)


def test_what_retrieval_did_not_bring_is_as_likely_as_its_least(
    context: InterestContext,
) -> None:
    items = [*retrieved(2.0, 1.0), candidates(ALIVE)[0]]
    believed = belief(items, relevance(0.5, 0.5, 0.5))
    assert believed[2] == pytest.approx(believed[1])
    assert belief([items[2]], relevance(0.25)).tolist() == [0.25]


def test_certain_relevance_leaves_scores_finite(context: InterestContext) -> None:
    ranked = follow(retrieved(1.0, 5.0, 1.0), relevance(1.0, 0.0, 0.5), context, 0.5)
    assert ids(ranked) == ["i0", "i2", "i1"]
    assert all(math.isfinite(s.score) and s.score > 0 for s in ranked)


def test_forgetting_weighs_belief(context: InterestContext) -> None:
    items = [c._replace(retrieval_score=1.0) for c in candidates(FADED, ALIVE)]
    ranked = follow(items, relevance(0.6, 0.5), context, 0.7)
    relative = RHO["faded"] / RHO["alive"]
    assert ids(ranked) == ["i1", "i0"]
    assert ranked[1].score == pytest.approx(0.3 + 0.7 * relative, rel=1e-6)
