"""From a request to a slate: candidates → filters → ranking → strategy → diversity → slate.

Whatever happens to Triton, a slate comes back within the caller's time: without models it is made
of what friends engage, what is looked at and what is popular, weighed by what is known of the
user's interests, and says that it is degraded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from ebbing.history import encode_history, item_key
from ebbing.interest.trace import TraceTable
from server.catalog import Catalog
from server.errors import ModelsUnavailable, UserNotFound
from server.inference.errors import InferenceError, TritonUnavailable
from server.inference.loaded import LoadedRelease
from server.metrics import Metrics
from server.recommend.about import main_interest
from server.recommend.asking import Answer, Fresh, Models
from server.recommend.background import Background
from server.recommend.because import because
from server.recommend.candidates import Candidate, Source, given
from server.recommend.diversity import capped, similarity, spread
from server.recommend.filters import eligible
from server.recommend.interests import InterestContext
from server.recommend.pacing import paces_of
from server.recommend.reranking import Scored, article_fields, belief
from server.recommend.rules import Rules
from server.recommend.slates import (
    ColdStart,
    RecommenderConfig,
    ScoreRequest,
    Slate,
    SlateRequest,
)
from server.recommend.sources import Sources
from server.recommend.strategies import Plan, Strategy, plan
from server.rollout.guardrails import Observation
from server.state.store import ItemRecord, Store
from server.users import Users, UserView

__all__ = ["Recommender", "Rollout"]

RESERVE = 0.1
"""Share of the caller's time kept for making the slate without models."""
SHADOWS_IN_FLIGHT = 8
"""Comparisons with a shadow at a time; more than that are left out."""
DAY_US = 86_400_000_000
PACED_US = 60 * DAY_US
"""How far back impressions count for PACE."""

log = structlog.get_logger()


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


class Recommender:
    """Makes slates."""

    def __init__(
        self,
        store: Store,
        users: Users,
        catalog: Catalog,
        rollout: Rollout,
        sources: Sources,
        fresh: Fresh,
        rules: Rules,
        metrics: Metrics,
        clock: Callable[[], float],
        config: RecommenderConfig,
    ) -> None:
        """Set up; ``clock`` gives monotonic seconds."""
        self._store = store
        self._users = users
        self._catalog = catalog
        self._rollout = rollout
        self._sources = sources
        self._rules = rules
        self._metrics = metrics
        self._clock = clock
        self._config = config
        self._models = Models(catalog, fresh, metrics, clock)
        self._shadows = Background(SHADOWS_IN_FLIGHT)

    async def recommend(self, request: SlateRequest, now_us: int, budget_s: float) -> Slate:
        """A slate for one user, within ``budget_s`` seconds.

        Raises:
            ReleaseNotFound: the release asked for is not in service.
            AtBeforeFirstEvent: nothing is known of the user at that moment.
        """
        release = self._rollout.serving(request.user_id, request.release)
        with self._stage("state"):
            user = await self._view(request.user_id, request.at_us, now_us)
        slate, answer = await self._made(request, release, user, budget_s * (1 - RESERVE))
        with self._stage("reasons"):
            items = self._catalog.lookup(user.history.keys[user.history.keys != 0].tolist())
            about = [scored.candidate.item.interests for scored in slate.items]
            slate = replace(slate, because=because(about, user.history, items))
        self._count(slate)
        if user.history.keys.any():
            self._observe(release, answer, slate)
            shadow = None if request.release else self._rollout.shadowing(request.user_id)
            if shadow and not slate.degraded_reason:
                self._shadows.offer(self._compare(shadow, request, slate, budget_s))
        return slate

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
            relevance = await self._models.rank(release, user, context, candidates, budget_s)
        except InferenceError as error:
            log.warning("scoring failed", error=str(error), detail=error.detail)
            raise ModelsUnavailable("the models do not answer: try again in a moment") from error
        believed = belief(candidates, relevance)
        config = self._config.strategies
        made = plan(Strategy.FOLLOW, candidates, believed, context, config, len(candidates))
        scored = _scored(candidates, made.scores, relevance, context, range(len(candidates)))
        return self._slate(scored, user, context, release, request.alpha)

    async def drain(self) -> None:
        """Give up what no caller waits for."""
        await self._shadows.drain()

    async def _view(self, user_id: str, at_us: int | None, now_us: int) -> UserView:
        known = await self._users.view(user_id, at_us, now_us)
        if known is not None:
            return known
        at_s = (now_us if at_us is None else at_us) / 1e6
        return UserView(user_id, at_s, TraceTable.empty(), encode_history([], [], [], at_s))

    async def _made(
        self, request: SlateRequest, release: LoadedRelease, user: UserView, models_s: float
    ) -> tuple[Slate, Answer]:
        """The slate that a release makes, and what its models said."""
        with self._stage("interests"):
            context = InterestContext.of(user.traces, user.at_s, release.forgetting)
        with self._stage("sources"):
            beside = await self._beside(request, user, context)
        answer, cold = Answer(), ColdStart.NONE
        if known := bool(user.history.keys.any()):
            answer = await self._models.ask(
                release,
                user,
                context,
                lambda found: self._chosen(found, beside, request, user),
                models_s,
            )
        candidates = list(answer.candidates)
        if not candidates:
            with self._stage("cold_start"):
                begun, brought = await self._sources.cold(
                    request.user_id, user.at_s, request.context_interests
                )
                # Models that are well and yet offer nothing do not know what the user is after.
                own = context.order(context.retention) if answer.failure is None else []
                mine = await self._sources.of_interests(own, Source.POPULAR)
            most = self._config.candidates
            wanted = self._filtered(beside, request, user)[: most // 2]
            candidates = self._filtered([*wanted, *mine, *brought], request, user)[:most]
            cold = ColdStart.NONE if known else begun
        with self._stage("strategy"):
            slate = self._ordered(request, release, user, context, candidates, answer.relevance)
        return replace(slate, degraded_reason=_degraded(answer), cold_start=cold), answer

    async def _beside(
        self, request: SlateRequest, user: UserView, context: InterestContext
    ) -> list[Candidate]:
        """Candidates that the strategy wants beside those of retrieval."""
        if request.strategy is Strategy.REKINDLE:
            worth = context.recoverable
            wanted = [name for name in context.order(worth) if worth[context.index[name]] > 0]
            return await self._sources.of_interests(wanted, Source.REKINDLE)
        if request.strategy is Strategy.PACE:
            wanted = context.order(context.retention)
            return await self._sources.of_interests(wanted, Source.POPULAR)
        if request.strategy is Strategy.EXPLORE:
            friends = await self._sources.of_friends(request.user_id, user.at_s)
            return [*friends, *self._sources.popular()]
        return []

    def _chosen(
        self,
        found: Sequence[Candidate],
        beside: Sequence[Candidate],
        request: SlateRequest,
        user: UserView,
    ) -> list[Candidate]:
        """What is ranked: what was retrieved, and up to half as much of what else is wanted."""
        most = self._config.candidates
        offered = self._filtered(found, request, user)
        if not offered or not beside:
            return offered[:most]
        keys = {candidate.item.item_key for candidate in offered}
        others = [
            candidate
            for candidate in self._filtered(beside, request, user)
            if candidate.item.item_key not in keys
        ][: most // 2]
        return [*offered[: most - len(others)], *others]

    def _filtered(
        self, candidates: Sequence[Candidate], request: SlateRequest, user: UserView
    ) -> list[Candidate]:
        """The candidates that may be shown."""
        with self._stage("filters"):
            excluded = {item_key(i) for i in request.excluded_ids}
            if not request.include_seen:
                excluded.update(user.history.keys.tolist())
            kept = eligible(candidates, excluded, round(user.at_s * 1e6))
            if request.filters:
                kept = [c for c in kept if request.filters.take(c.item)]
            if self._rules:
                kept = [c for c in kept if not self._denied(c, request)]
        return kept

    def _denied(self, candidate: Candidate, request: SlateRequest) -> bool:
        rule = self._rules.denies(candidate, request.context)
        if rule:
            self._metrics.denied_candidates.labels(rule).inc()
        return rule is not None

    def _ordered(
        self,
        request: SlateRequest,
        release: LoadedRelease,
        user: UserView,
        context: InterestContext,
        candidates: Sequence[Candidate],
        relevance: NDArray[np.float32] | None,
    ) -> Slate:
        """Candidates scored by the strategy, boosted by rules, made diverse, and cut to a slate."""
        shown = self._shown(request, user)
        paces = paces_of(context, shown) if request.strategy is Strategy.PACE else []
        made = plan(
            request.strategy,
            candidates,
            belief(candidates, relevance),
            context,
            self._config.strategies,
            request.size,
            paces,
            Counter({interest: len(moments) for interest, moments in shown.items()}),
        )
        if self._rules:
            boosts = [self._rules.boost(c, request.context) for c in candidates]
            made = made._replace(scores=made.scores * np.array(boosts))
        order = self._diverse(request, candidates, made)[: request.size]
        # Whatever has a place that was kept to win an interest back says so.
        kept = frozenset(made.reserved)
        candidates = [
            c._replace(source=Source.REKINDLE) if i in kept else c for i, c in enumerate(candidates)
        ]
        scored = _scored(candidates, made.scores, relevance, context, order)
        slate = self._slate(scored, user, context, release, request.alpha)
        return replace(slate, priority=made.priority, paces=paces)

    def _diverse(
        self, request: SlateRequest, candidates: Sequence[Candidate], made: Plan
    ) -> list[int]:
        """The order of a slate: what the strategy reserved, then the best, spread and capped."""
        diversity = self._config.diversity if request.diversity is None else request.diversity
        best = np.argsort(-made.scores, kind="stable")
        rest = [i for i in best.tolist() if made.scores[i] >= 0 and i not in made.reserved]
        about = [candidate.item.interests for candidate in candidates]
        if diversity > 0:
            alike = similarity([about[i] for i in rest])
            chosen = spread(made.scores[rest], alike, request.size, diversity)
            rest = [rest[i] for i in chosen]
        return [*made.reserved, *capped(about, self._config.per_interest, rest)]

    def _shown(self, request: SlateRequest, user: UserView) -> Mapping[str, Sequence[float]]:
        """When items of each interest were shown to the user, as far as the strategy asks."""
        back_us = {Strategy.PACE: PACED_US, Strategy.REKINDLE: DAY_US}.get(request.strategy)
        moments: dict[str, list[float]] = {}
        if back_us:
            until_us = round(user.at_s * 1e6)
            for one in self._store.asides(request.user_id, until_us - back_us, until_us):
                moments.setdefault(main_interest(one.interests), []).append(one.time_s)
        return moments

    async def _compare(
        self, shadow: LoadedRelease, request: SlateRequest, shown: Slate, budget_s: float
    ) -> None:
        """Ask a shadow what was asked of the release that answered, and note how it differs."""
        slate, answer = await self._made(request, shadow, shown.user, budget_s)
        keys, others = ({s.candidate.item.item_key for s in one.items} for one in (shown, slate))
        overlap = len(keys & others) / len(keys) if keys else 1.0
        if answer.failure is None:
            self._metrics.shadow_overlap.observe(overlap)
        self._observe(shadow, answer, slate, overlap)

    def _observe(
        self, release: LoadedRelease, answer: Answer, slate: Slate, overlap: float | None = None
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
                oov_share=answer.oov_share,
                empty=not answer.candidates,
                retention=1.0 - sum(forgetting) / len(forgetting) if forgetting else 0.0,
                overlap=overlap,
            ),
        )

    def _slate(
        self,
        items: Sequence[Scored],
        user: UserView,
        context: InterestContext,
        release: LoadedRelease,
        alpha: float | None,
    ) -> Slate:
        alpha = self._config.alpha if alpha is None else alpha
        probabilities, score = article_fields(items, alpha)
        return Slate(user, items, probabilities, score, context, release.release)

    def _count(self, slate: Slate) -> None:
        source = slate.items[0].candidate.source.name.lower() if slate.items else "none"
        degraded = "true" if slate.degraded_reason else "false"
        self._metrics.slates.labels(source, degraded).inc()

    def _stage(self, name: str) -> AbstractContextManager[object]:
        return self._metrics.stage_seconds.labels(name).time()


def _scored(
    candidates: Sequence[Candidate],
    scores: NDArray[np.float64],
    relevance: NDArray[np.float32] | None,
    context: InterestContext,
    order: Sequence[int],
) -> list[Scored]:
    """Some of the candidates in an order, with what is told of each."""
    forgetting, _ = context.forgetting_of([candidates[i].item.interests for i in order])
    return [
        Scored(
            candidates[i],
            float(scores[i]),
            None if relevance is None else float(relevance[i]),
            float(forgotten),
        )
        for i, forgotten in zip(order, forgetting, strict=True)
    ]


def _degraded(answer: Answer) -> str:
    """Why the models had no say, as a constant; empty where they had."""
    error = answer.failure
    if error is None:
        return ""
    reason = f"TRITON_{error.outcome.upper()}"
    log.warning("slate degraded", reason=reason, error=str(error), detail=error.detail)
    return reason
