"""The pipeline over a real store, and a small world in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from typing import Any

import pytest
import structlog

from server.catalog import Catalog
from server.metrics import Metrics
from server.recommend.pipeline import Recommender
from server.recommend.rules import Rules
from server.recommend.shelves import Shelves
from server.recommend.slates import RecommenderConfig
from server.recommend.social import Social
from server.recommend.sources import Sources
from server.state.sqlite import SqliteStore
from server.users import Users
from tests.suites.store_suite import deed
from tests.unit.server.recommend.fakes import FakeFresh, FakeRelease, FakeRollout, about, made


@pytest.fixture
def release() -> FakeRelease:
    return FakeRelease()


@pytest.fixture
def rollout(release: FakeRelease) -> FakeRollout:
    return FakeRollout(release)


@pytest.fixture
def fresh() -> FakeFresh:
    return FakeFresh()


MakeRecommender = Callable[..., Recommender]


@pytest.fixture
def make(
    store: SqliteStore, writer: Executor, metrics: Metrics, rollout: Any, fresh: Any
) -> MakeRecommender:
    """Makes recommenders of four candidates, with other rules, clock and settings if named."""
    catalog = Catalog(store, writer)
    shelves = Shelves(store, catalog, time.monotonic, 0.0)
    sources = Sources(store, catalog, shelves, Social(store))

    def recommender(
        rules: Rules | None = None,
        clock: Callable[[], float] = time.monotonic,
        **settings: Any,
    ) -> Recommender:
        config = RecommenderConfig(**{"candidates": 4, **settings})
        users = Users(store, 64)
        rules = rules or Rules()
        return Recommender(
            store, users, catalog, rollout, sources, fresh, rules, metrics, clock, config
        )

    return recommender


@pytest.fixture
def recommender(make: MakeRecommender) -> Recommender:
    return make()


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[dict[str, Any]]]:
    with structlog.testing.capture_logs() as entries:
        yield entries


@pytest.fixture
def world(store: SqliteStore, release: FakeRelease) -> None:
    """Ann likes music, has seen m0; others make s0, s1, m0, m1, s2 popular, in that order."""
    names = ["s0", "s1", "m0", "m1", "s2", "s3", "m2", "m3"]
    store.write_items([made(name) for name in names])
    store.append(
        [
            deed(f"{user}-{name}", user, name, days=1.0, interests=about(name), weight=weight)
            for user, weight, name in (
                ("bob", 5.0, "s0"),
                ("bob", 4.0, "s1"),
                ("bob", 2.0, "m0"),
                ("bob", 2.0, "m1"),
                ("bob", 1.0, "s2"),
                ("ann", 1.0, "m0"),
            )
        ]
    )
    release.best = ["m1", "s0", "m2", "s1"]
