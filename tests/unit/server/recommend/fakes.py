"""A release that says what a test tells it to, and how a test asks for slates."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebbing.features import CANDIDATE_FEATURES
from ebbing.history import EncodedHistory, item_key
from ebbing.interest.forgetting import ForgettingParameters
from server.errors import ReleaseNotFound
from server.inference.loaded import Retrieved
from server.recommend.candidates import Candidate, Source
from server.recommend.pipeline import Recommender
from server.recommend.slates import ScoreRequest, Slate, SlateRequest
from server.rollout.guardrails import Observation
from server.state.store import Interests, ItemRecord
from tests.suites.store_suite import DAY_US, START_US

NOW_US = START_US + 10 * DAY_US
SPORTS, MUSIC = (("sports", 1.0),), (("music", 1.0),)


class FakeRelease:
    """Retrieves given items, best first, and finds each as relevant as it is told."""

    release = 3
    forgetting = ForgettingParameters.builtin()

    def __init__(self) -> None:
        self.best: list[str] = []
        self.relevance: dict[str, float] = {}
        self.oov_count = 0
        self.retrieval_failure: Exception | None = None
        self.ranking_failure: Exception | None = None
        self.histories: list[EncodedHistory] = []
        self.ranked: list[list[int]] = []
        self.budgets: list[float] = []

    async def retrieve(self, history: EncodedHistory, budget_s: float) -> Retrieved:
        self.histories.append(history)
        self.budgets.append(budget_s)
        await asyncio.sleep(0)
        if self.retrieval_failure:
            raise self.retrieval_failure
        keys = np.array([item_key(i) for i in self.best], np.int64)
        scores = np.linspace(1, 0, len(keys), dtype=np.float32)
        return Retrieved(keys, scores, self.oov_count, np.zeros(2, np.float32))

    async def rank(
        self,
        history: EncodedHistory,
        keys: NDArray[np.int64],
        features: NDArray[np.float32],
        budget_s: float,
    ) -> NDArray[np.float32]:
        assert features.shape == (len(keys), len(CANDIDATE_FEATURES))
        assert np.isfinite(features).all()
        self.ranked.append(keys.tolist())
        self.budgets.append(budget_s)
        await asyncio.sleep(0)
        if self.ranking_failure:
            raise self.ranking_failure
        known = {item_key(i): value for i, value in self.relevance.items()}
        return np.array([known.get(key, 0.5) for key in keys.tolist()], np.float32)


class FakeFresh:
    """Offers given items with given scores."""

    def __init__(self) -> None:
        self.offers: dict[str, float] = {}

    def best(self, release: int, user: NDArray[np.float32]) -> list[Candidate]:
        return [Candidate(made(name), Source.FRESH, score) for name, score in self.offers.items()]


class FakeRollout:
    """One release in service, perhaps with a shadow; notes what is observed."""

    def __init__(self, live: Any) -> None:
        self.live = live
        self.shadow: Any = None
        self.observed: list[tuple[int, Observation]] = []

    def serving(self, user_id: str, release: int = 0) -> Any:
        if release not in (0, self.live.release):
            raise ReleaseNotFound("not in service")
        return self.live

    def shadowing(self, user_id: str) -> Any:
        return self.shadow

    def observe(self, release: int, observation: Observation) -> None:
        self.observed.append((release, observation))


def about(name: str) -> Interests:
    return MUSIC if name.startswith("m") else SPORTS


def made(name: str, available_us: int = 0, expire_us: int = 0) -> ItemRecord:
    return ItemRecord(name, item_key(name), about(name), available_us, expire_us, b"")


async def slate(recommender: Recommender, budget_s: float = 5.0, **fields: Any) -> Slate:
    request: dict[str, Any] = {
        "user_id": "ann",
        "size": 10,
        "at_us": None,
        "include_seen": False,
        "excluded_ids": frozenset(),
        "release": 0,
        "alpha": None,
    }
    return await recommender.recommend(SlateRequest(**{**request, **fields}), NOW_US, budget_s)


def ids(made: Slate) -> list[str]:
    return [s.candidate.item.item_id for s in made.items]


def sources(made: Slate) -> set[Source]:
    return {s.candidate.source for s in made.items}


async def score(recommender: Recommender, *item_ids: str, **fields: Any) -> Slate:
    request: dict[str, Any] = {"user_id": "ann", "at_us": None, "release": 0, "alpha": None}
    return await recommender.score(
        ScoreRequest(item_ids=item_ids, **{**request, **fields}), NOW_US, 5.0
    )
