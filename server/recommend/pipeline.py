"""From a request to a slate: candidates → filters → ranking → re-ranking → slate.

Whatever happens to Triton, a slate comes back within the caller's time: without models it is made
of popular items, weighed by what is known of the user's interests, and says that it is degraded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from ebbing.features import candidate_features
from ebbing.history import encode_history, item_key
from ebbing.interest.trace import TraceTable
from server.catalog import Catalog
from server.errors import ModelsUnavailable, UserNotFound
from server.inference.errors import InferenceError, TritonUnavailable
from server.inference.releases import LoadedRelease
from server.metrics import Metrics
from server.recommend.background import Background
from server.recommend.candidates import Candidate, given, popular, retrieved
from server.recommend.filters import eligible
from server.recommend.reranking import InterestContext, Scored, article_fields, follow
from server.rollout.guardrails import Observation
from server.state.store import ItemRecord, Store
from server.users import Users, UserView

__all__ = ["Recommender", "ScoreRequest", "Slate", "SlateRequest"]

POPULAR_CANDIDATES = 512
RETRIEVAL_SHARE = 0.6
"""Share of the caller's time that retrieval may take; ranking has what is left."""
SHADOWS_IN_FLIGHT = 8
"""Comparisons with a shadow at a time; more than that are left out."""
RESERVE = 0.1
"""Share of the caller's time kept for making the slate without models."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class SlateRequest:
    """A checked request for a slate."""

    user_id: str
    size: int
    at_us: int | None
    """The moment, microseconds since the epoch; None is now."""
    include_seen: bool
    excluded_ids: frozenset[str]
    release: int
    """The release to answer from; 0 is the live one."""
    alpha: float | None
    """The articles' α; None is the setting's."""


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """A checked request to score given items."""

    user_id: str
    item_ids: tuple[str, ...]
    at_us: int | None
    release: int
    alpha: float | None


@dataclass(frozen=True, slots=True)
class Slate:
    """What is recommended, and what is behind it."""

    user: UserView
    items: list[Scored]
    probabilities: NDArray[np.float64]
    """The articles' p(i|u,t), (C,)."""
    article_score: float
    """The articles' R(u,t)."""
    context: InterestContext
    release: int
    degraded_reason: str
    """Why models had no say; empty where they had."""

    @property
    def attribution_token(self) -> str:
        """Names the slate, for events to echo; the same slate has the same token."""
        what = [
            self.user.user_id,
            repr(self.user.at_s),
            *(s.candidate.item.item_id for s in self.items),
        ]
        digest = hashlib.blake2b("\0".join(what).encode(), digest_size=12).hexdigest()
        return f"1.{self.release}.{digest}"


class Rollout(Protocol):
    """Says which release answers whom, and is told how it did; see ``server.rollout``."""

    def serving(self, user_id: str, release: int = 0) -> LoadedRelease:
        """The release that answers a user, or the one asked for; may raise ReleaseNotFound."""
        ...

    def shadowing(self, user_id: str) -> LoadedRelease | None:
        """The release that is asked beside, if any."""
        ...

    def observe(self, release: int, observation: Observation) -> None:
        """A release made a slate, or failed to."""
        ...


class _Answer(NamedTuple):
    """What the models of a release said for one user."""

    candidates: Sequence[Candidate] = ()
    """What was retrieved and may be shown; empty where retrieval failed."""
    relevance: NDArray[np.float32] | None = None
    """Of the candidates; None where ranking failed, or there is none."""
    failure: InferenceError | None = None
    """What went wrong."""
    oov_share: float = 0.0
    """Share of the history that the release does not know."""
    model_s: float = 0.0
    """How long it took, seconds."""


class Recommender:
    """Makes slates."""

    def __init__(
        self,
        store: Store,
        users: Users,
        catalog: Catalog,
        rollout: Rollout,
        metrics: Metrics,
        clock: Callable[[], float],
        alpha: float,
        forgetting_share: float,
        candidates: int,
    ) -> None:
        """Set up; ``clock`` gives monotonic seconds, the rest is as in ``server.settings``."""
        self._store = store
        self._users = users
        self._catalog = catalog
        self._rollout = rollout
        self._metrics = metrics
        self._clock = clock
        self._shadows = Background(SHADOWS_IN_FLIGHT)
        self._alpha = alpha
        self._forgetting_share = forgetting_share
        self._candidates = candidates

    async def recommend(self, request: SlateRequest, now_us: int, budget_s: float) -> Slate:
        """A slate for one user, within ``budget_s`` seconds.

        Raises:
            ReleaseNotFound: the release asked for is not in service.
            AtBeforeFirstEvent: nothing is known of the user at that moment.
        """
        release = self._rollout.serving(request.user_id, request.release)
        with self._stage("state"):
            user = await self._view(request.user_id, request.at_us, now_us)
            context = InterestContext.of(user.traces, user.at_s, release.forgetting)
        excluded = {item_key(i) for i in request.excluded_ids}
        if not request.include_seen:
            excluded.update(user.history.keys.tolist())
        answer, degraded = _Answer(), ""
        if user.history.keys.any():
            models_s = budget_s * (1 - RESERVE)
            answer = await self._ask(release, user, context, excluded, models_s)
            if error := answer.failure:
                degraded = f"TRITON_{error.outcome.upper()}"
                log.warning(
                    "slate degraded", reason=degraded, error=str(error), detail=error.detail
                )
        candidates = answer.candidates
        if not candidates:
            with self._stage("popular"):
                keys = self._store.popular(POPULAR_CANDIDATES)
                candidates = popular(keys, self._catalog.lookup(keys))
            candidates = self._filter(candidates, excluded, user)
        with self._stage("reranking"):
            ranked = follow(candidates, answer.relevance, context, self._forgetting_share)
        slate = self._slate(ranked[: request.size], user, context, release, request.alpha, degraded)
        self._count(slate)
        if user.history.keys.any():
            self._observe(release, answer, slate)
            shadow = None if request.release else self._rollout.shadowing(request.user_id)
            if shadow and not degraded:
                self._shadows.offer(self._compare(shadow, slate, excluded, request.size, budget_s))
        return slate

    async def _ask(
        self,
        release: LoadedRelease,
        user: UserView,
        context: InterestContext,
        excluded: set[int],
        budget_s: float,
    ) -> _Answer:
        """What a release's models say, as far as they do."""
        started = self._clock()
        answer = _Answer()
        try:
            with self._stage("retrieval"):
                found, oov_share = await self._retrieve(release, user, budget_s * RETRIEVAL_SHARE)
            answer = _Answer(self._filter(found, excluded, user), oov_share=oov_share)
            with self._stage("ranking"):
                ranking_s = budget_s * (1 - RETRIEVAL_SHARE)
                relevance = await self._rank(release, user, context, answer.candidates, ranking_s)
            answer = answer._replace(relevance=relevance)
        except InferenceError as error:
            answer = answer._replace(failure=error)
        return answer._replace(model_s=self._clock() - started)

    async def _compare(
        self,
        shadow: LoadedRelease,
        shown: Slate,
        excluded: set[int],
        size: int,
        budget_s: float,
    ) -> None:
        """Ask a shadow what was asked of the release that answered, and note how it differs."""
        user = shown.user
        context = InterestContext.of(user.traces, user.at_s, shadow.forgetting)
        answer = await self._ask(shadow, user, context, excluded, budget_s)
        ranked = follow(answer.candidates, answer.relevance, context, self._forgetting_share)
        slate = self._slate(ranked[:size], user, context, shadow, None, "")
        keys, others = ({s.candidate.item.item_key for s in one.items} for one in (shown, slate))
        overlap = len(keys & others) / len(keys) if keys else 1.0
        if answer.failure is None:
            self._metrics.shadow_overlap.observe(overlap)
        self._observe(shadow, answer, slate, overlap)

    def _observe(
        self, release: LoadedRelease, answer: _Answer, slate: Slate, overlap: float | None = None
    ) -> None:
        """Tell the rollout how a release did."""
        if isinstance(answer.failure, TritonUnavailable):
            return  # A Triton that is not there says nothing about the release.
        forgetting = [scored.forgetting for scored in slate.items]
        self._rollout.observe(
            release.release,
            Observation(
                at=self._clock(),
                failed=answer.failure is not None,
                model_s=answer.model_s,
                oov_share=answer.oov_share,
                empty=not answer.candidates,
                retention=1.0 - sum(forgetting) / len(forgetting) if forgetting else 0.0,
                overlap=overlap,
            ),
        )

    async def score(self, request: ScoreRequest, now_us: int, budget_s: float) -> Slate:
        """Given items scored for one user, in the order given.

        Raises:
            UserNotFound: the user has no event.
            ReleaseNotFound, AtBeforeFirstEvent: as for ``recommend``.
            ModelsUnavailable: Triton does not answer.
        """
        release = self._rollout.serving(request.user_id, request.release)
        user = await self._users.view(request.user_id, request.at_us, now_us)
        if user is None:
            raise UserNotFound("no event of this user is known", {"user_id": request.user_id})
        context = InterestContext.of(user.traces, user.at_s, release.forgetting)
        keys = [item_key(i) for i in request.item_ids]
        known = self._catalog.lookup(keys)
        candidates = given(
            [
                known.get(key) or ItemRecord(item_id, key, (), 0, 0, b"")
                for key, item_id in zip(keys, request.item_ids, strict=True)
            ]
        )
        try:
            relevance = await self._rank(release, user, context, candidates, budget_s)
        except InferenceError as error:
            log.warning("scoring failed", error=str(error), detail=error.detail)
            raise ModelsUnavailable("the models do not answer: try again in a moment") from error
        ranked = follow(candidates, relevance, context, self._forgetting_share)
        place = {key: i for i, key in enumerate(keys)}
        ranked.sort(key=lambda scored: place[scored.candidate.item.item_key])
        return self._slate(ranked, user, context, release, request.alpha, "")

    async def drain(self) -> None:
        """Give up what no caller waits for."""
        await self._shadows.drain()

    async def _view(self, user_id: str, at_us: int | None, now_us: int) -> UserView:
        known = await self._users.view(user_id, at_us, now_us)
        if known is not None:
            return known
        at_s = (now_us if at_us is None else at_us) / 1e6
        return UserView(user_id, at_s, TraceTable.empty(), encode_history([], [], [], at_s))

    async def _retrieve(
        self, release: LoadedRelease, user: UserView, budget_s: float
    ) -> tuple[list[Candidate], float]:
        """Candidates, and the share of the history that the release does not know."""
        answer = await release.retrieve(user.history, budget_s)
        if answer.oov_count:
            self._metrics.oov_items.labels(str(release.release)).inc(answer.oov_count)
        found = retrieved(answer, self._catalog.lookup(answer.keys.tolist()))
        return found, answer.oov_count / max(int(np.count_nonzero(user.history.keys)), 1)

    def _filter(
        self, candidates: list[Candidate], excluded: set[int], user: UserView
    ) -> list[Candidate]:
        with self._stage("filters"):
            kept = eligible(candidates, excluded, round(user.at_s * 1e6))
        return kept[: self._candidates]

    @staticmethod
    async def _rank(
        release: LoadedRelease,
        user: UserView,
        context: InterestContext,
        candidates: Sequence[Candidate],
        budget_s: float,
    ) -> NDArray[np.float32] | None:
        if not candidates:
            return None
        features = candidate_features(
            user.traces,
            [c.item.interests for c in candidates],
            user.at_s,
            release.forgetting,
            context.retention,
        )
        keys = np.array([c.item.item_key for c in candidates], np.int64)
        return await release.rank(user.history, keys, features, budget_s)

    def _slate(
        self,
        items: list[Scored],
        user: UserView,
        context: InterestContext,
        release: LoadedRelease,
        alpha: float | None,
        degraded: str,
    ) -> Slate:
        probabilities, score = article_fields(items, self._alpha if alpha is None else alpha)
        return Slate(user, items, probabilities, score, context, release.release, degraded)

    def _count(self, slate: Slate) -> None:
        source = slate.items[0].candidate.source.name.lower() if slate.items else "none"
        degraded = "true" if slate.degraded_reason else "false"
        self._metrics.slates.labels(source, degraded).inc()

    def _stage(self, name: str) -> AbstractContextManager[object]:
        return self._metrics.stage_seconds.labels(name).time()
