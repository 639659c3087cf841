"""The pipeline where the models answer, or are not needed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ebbing.history import item_key
from server.errors import AtBeforeFirstEvent, ModelsUnavailable, ReleaseNotFound, UserNotFound
from server.inference.errors import InferenceFailed
from server.recommend.candidates import Source
from server.recommend.pipeline import Recommender
from server.state.sqlite import SqliteStore
from tests.suites.store_suite import DAY_US, START_US, deed
from tests.unit.server.recommend.fakes import (
    MUSIC,
    NOW_US,
    SPORTS,
    FakeRelease,
    ids,
    made,
    score,
    slate,
    sources,
)

# With history, and models that answer.


async def test_a_slate_is_ordered_by_score(
    recommender: Recommender, release: FakeRelease, world: None, sample
) -> None:
    release.relevance = {"m1": 0.2, "m2": 0.4, "s0": 0.9, "s1": 0.1}
    made = await slate(recommender)
    # Sports are nothing of Ann's, so that the likeliest item counts for 0.3 of itself.
    belief = {
        "m1": math.exp(1.0) * 0.25,
        "m2": math.exp(1 / 3) * 2 / 3,
        "s0": math.exp(2 / 3) * 9.0,
        "s1": math.exp(0.0) / 9.0,
    }
    weight = {"m1": 1.0, "m2": 1.0, "s0": 0.3, "s1": 0.3}
    assert ids(made) == ["s0", "m2", "m1", "s1"]
    wanted = [belief[i] / belief["s0"] * weight[i] for i in ids(made)]
    assert [s.score for s in made.items] == pytest.approx(wanted, rel=1e-5)
    assert [s.relevance for s in made.items] == pytest.approx([0.9, 0.4, 0.2, 0.1])
    retrieval = [s.candidate.retrieval_score for s in made.items]
    assert retrieval == pytest.approx([2 / 3, 1 / 3, 1.0, 0.0])
    assert sources(made) == {Source.RETRIEVAL}
    assert (made.release, made.degraded_reason) == (3, "")
    assert made.user.at_s == NOW_US / 1e6
    assert made.probabilities.sum() == pytest.approx(1.0)
    assert made.article_score == pytest.approx(
        sum(p * s.relevance for p, s in zip(made.probabilities, made.items, strict=True))
    )
    assert made.priority == ["music"]
    assert sample("ebbing_slates_total", source="retrieval", degraded="false") == 1
    for stage in ("state", "retrieval", "filters", "ranking", "strategy"):
        assert sample("ebbing_recommend_stage_duration_seconds_count", stage=stage) == 1


async def test_the_first_items_of_the_order_are_the_slate(
    recommender: Recommender, release: FakeRelease, world: None
) -> None:
    whole, short = await slate(recommender), await slate(recommender, size=2)
    assert ids(short) == ids(whole)[:2]
    assert short.probabilities.sum() == pytest.approx(1.0)


async def test_no_more_candidates_are_ranked_than_set(
    recommender: Recommender, release: FakeRelease, world: None
) -> None:
    release.best = ["m0", "m1", "s0", "s1", "s2", "s3", "m2"]
    made = await slate(recommender)
    # m0 was seen; of what is left the first four.
    assert release.ranked == [[item_key(i) for i in ("m1", "s0", "s1", "s2")]]
    assert len(made.items) == 4


async def test_seen_items_are_left_out_unless_asked_for(
    recommender: Recommender, release: FakeRelease, world: None
) -> None:
    release.best = ["m0", "m1", "s0"]
    assert set(ids(await slate(recommender))) == {"m1", "s0"}
    assert set(ids(await slate(recommender, include_seen=True))) == {"m0", "m1", "s0"}


async def test_excluded_items_are_left_out(
    recommender: Recommender, release: FakeRelease, world: None
) -> None:
    made = await slate(recommender, excluded_ids=frozenset({"m1", "s1", "whatever"}))
    assert set(ids(made)) == {"s0", "m2"}


async def test_items_before_and_after_their_time_are_left_out(
    recommender: Recommender, release: FakeRelease, world: None, store: SqliteStore
) -> None:
    store.write_items(
        [
            made("m1", available_us=NOW_US + 1),
            made("s0", expire_us=NOW_US),
            made("m2", available_us=NOW_US, expire_us=NOW_US + DAY_US),
        ]
    )
    assert set(ids(await slate(recommender))) == {"m2", "s1"}
    # It is the moment asked for that counts.
    later = await slate(recommender, at_us=NOW_US + DAY_US)
    assert set(ids(later)) == {"m1", "s1"}


async def test_items_the_catalogue_lost_are_left_out(
    recommender: Recommender, release: FakeRelease, world: None
) -> None:
    release.best = ["gone", "m1", "gone too"]
    assert ids(await slate(recommender)) == ["m1"]


async def test_where_nothing_retrieved_may_come_the_users_own_interests_do(
    recommender: Recommender, release: FakeRelease, world: None, sample
) -> None:
    release.best = ["m0", "gone"]
    made = await slate(recommender)
    assert sources(made) == {Source.POPULAR}
    assert made.degraded_reason == ""
    # Of Ann's music what she has not had, and then what is popular.
    assert ids(made) == ["m1", "m2", "m3", "s0"]
    assert sample("ebbing_slates_total", source="popular", degraded="false") == 1


async def test_who_engaged_nothing_the_release_knows_is_not_left_to_its_guess(
    recommender: Recommender, release: FakeRelease, world: None
) -> None:
    release.oov_count = 1
    made = await slate(recommender)
    assert release.ranked == []
    assert ids(made)[0] == "m1"
    assert made.degraded_reason == ""


async def test_the_past_is_answered_from_what_was_known_then(
    recommender: Recommender, release: FakeRelease, world: None, store: SqliteStore
) -> None:
    store.append([deed("later", item_id="s0", days=5, interests=SPORTS)])
    then = await slate(recommender, at_us=START_US + 2 * DAY_US)
    now = await slate(recommender)
    seen = [[key for key in h.keys.tolist() if key] for h in release.histories]
    assert seen == [[item_key("m0")], [item_key("m0"), item_key("s0")]]
    assert "s0" in ids(then)
    assert "s0" not in ids(now)
    assert then.priority == ["music"]
    assert then.user.at_s == START_US / 1e6 + 2 * 86400
    with pytest.raises(AtBeforeFirstEvent):
        await slate(recommender, at_us=START_US)


async def test_alpha_of_the_request_goes_before_the_settings(
    recommender: Recommender, release: FakeRelease, world: None
) -> None:
    alike = await slate(recommender, alpha=0.0)
    np.testing.assert_allclose(alike.probabilities, 0.25)
    usual, same = await slate(recommender), await slate(recommender, alpha=5.0)
    np.testing.assert_array_equal(usual.probabilities, same.probabilities)
    assert usual.probabilities.max() > 0.3
    assert ids(usual) == ids(alike)


async def test_history_the_model_does_not_know_is_counted(
    recommender: Recommender, release: FakeRelease, world: None, sample
) -> None:
    release.oov_count = 2
    await slate(recommender)
    assert sample("ebbing_oov_items_total", release="3") == 2


async def test_the_token_names_the_slate(
    recommender: Recommender, release: FakeRelease, world: None
) -> None:
    made, again = await slate(recommender), await slate(recommender)
    assert made.attribution_token == again.attribution_token
    assert made.attribution_token.startswith("1.3.")
    other = await slate(recommender, size=1)
    assert other.attribution_token != made.attribution_token


async def test_an_unknown_release(recommender: Recommender, world: None) -> None:
    assert ids(await slate(recommender, release=3))
    with pytest.raises(ReleaseNotFound):
        await slate(recommender, release=4)


# Without history.


async def test_a_cold_start_gets_what_is_popular_and_is_not_degraded(
    recommender: Recommender, release: FakeRelease, world: None, sample
) -> None:
    made = await slate(recommender, user_id="new")
    assert ids(made) == ["s0", "s1", "m0", "m1"]
    assert sources(made) == {Source.POPULAR}
    assert made.degraded_reason == ""
    assert {s.relevance for s in made.items} == {None}
    assert {s.forgetting for s in made.items} == {1.0}
    assert made.priority == []
    assert made.probabilities.sum() == pytest.approx(1.0)
    # No model was asked.
    assert release.histories == release.ranked == []
    assert sample("ebbing_slates_total", source="popular", degraded="false") == 1


async def test_a_cold_start_at_any_moment(recommender: Recommender, world: None) -> None:
    made = await slate(recommender, user_id="new", at_us=5)
    assert made.user.at_s == 5e-6


async def test_a_user_known_by_interests_alone_gets_the_popular_weighed_by_them(
    recommender: Recommender, world: None, store: SqliteStore
) -> None:
    store.append([deed("search", "eve", days=2, interests=MUSIC)])
    made = await slate(recommender, user_id="eve")
    assert ids(made)[0] == "m0"
    assert made.degraded_reason == ""


async def test_nothing_to_recommend(recommender: Recommender, sample) -> None:
    made = await slate(recommender)
    assert list(made.items) == []
    assert made.article_score == 0.0
    assert made.attribution_token
    assert sample("ebbing_slates_total", source="none", degraded="false") == 1


# Scoring given items.


async def test_items_are_scored_in_the_order_given(
    recommender: Recommender, release: FakeRelease, world: None
) -> None:
    release.relevance = {"s0": 0.8, "m0": 0.4, "new": 1.0}
    made = await score(recommender, "new", "s0", "m0")
    assert ids(made) == ["new", "s0", "m0"]
    assert [s.relevance for s in made.items] == pytest.approx([1.0, 0.8, 0.4])
    assert [s.score for s in made.items] == pytest.approx([0.3, 0.24, 0.4])
    # Nothing is known of what the catalogue does not hold.
    assert made.items[0].forgetting == 1.0
    assert sources(made) == {Source.REQUEST}
    assert {s.candidate.retrieval_score for s in made.items} == {None}
    assert made.probabilities.sum() == pytest.approx(1.0)
    assert release.histories == []


async def test_scoring_for_an_unknown_user(recommender: Recommender, world: None) -> None:
    with pytest.raises(UserNotFound) as error:
        await score(recommender, "m0", user_id="nobody")
    assert error.value.metadata == {"user_id": "nobody"}


async def test_scoring_before_the_first_event(recommender: Recommender, world: None) -> None:
    with pytest.raises(AtBeforeFirstEvent):
        await score(recommender, "m0", at_us=START_US)


async def test_scoring_with_an_unknown_release(recommender: Recommender, world: None) -> None:
    with pytest.raises(ReleaseNotFound):
        await score(recommender, "m0", release=9)


async def test_scoring_needs_the_models(
    recommender: Recommender, release: FakeRelease, world: None
) -> None:
    release.ranking_failure = InferenceFailed("secret", detail="also secret")
    with pytest.raises(ModelsUnavailable) as error:
        await score(recommender, "m0")
    assert "secret" not in error.value.message
