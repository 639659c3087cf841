"""What the models of a release say for a user: retrieval, then ranking."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ebbing.features import candidate_features
from server.catalog import Catalog
from server.inference.breaker import Breaker
from server.inference.errors import (
    BreakerOpen,
    InferenceDeadline,
    InferenceError,
    InferenceFailed,
)
from server.inference.loaded import LoadedRelease
from server.metrics import Metrics
from server.recommend.candidates import Candidate, retrieved
from server.recommend.interests import InterestContext
from server.users import UserView

__all__ = ["Answer", "Fresh", "Models"]

RETRIEVAL_SHARE = 0.6
"""Share of the time that retrieval may take; ranking has what is left."""
PATIENCE_S = 0.1
"""Who gives a model less time than this has no answer for being in a hurry, if any."""

Choose = Callable[[Sequence[Candidate]], list[Candidate]]


class Answer(NamedTuple):
    """What the models said."""

    candidates: Sequence[Candidate] = ()
    """What may be shown; empty where retrieval failed or offered nothing."""
    relevance: NDArray[np.float32] | None = None
    """Of the candidates; None where ranking failed, or there was none."""
    failure: InferenceError | None = None
    """What went wrong."""
    oov_share: float = 0.0
    """Share of the history that the release does not know."""


class Fresh(Protocol):
    """Offers items that a release has never seen; see ``server.recommend.fresh``."""

    def best(self, release: int, user: NDArray[np.float32]) -> list[Candidate]:
        """Those that fit a user's vector best, with their scores."""
        ...


class Models:
    """Asks the models of releases."""

    def __init__(
        self, catalog: Catalog, fresh: Fresh, metrics: Metrics, clock: Callable[[], float]
    ) -> None:
        """Set up; ``clock`` gives monotonic seconds."""
        self._catalog = catalog
        self._fresh = fresh
        self._metrics = metrics
        self._clock = clock
        self._breakers: dict[tuple[int, str], Breaker] = defaultdict(Breaker)

    async def ask(
        self,
        release: LoadedRelease,
        user: UserView,
        context: InterestContext,
        choose: Choose,
        budget_s: float,
    ) -> Answer:
        """What they say within ``budget_s`` seconds, as far as they do; never raises for that.

        ``choose`` makes of what was retrieved the candidates that are ranked.
        """
        answer = Answer()
        try:
            with self._metrics.stage_seconds.labels("retrieval").time():
                found, oov_share = await self._retrieve(release, user, budget_s * RETRIEVAL_SHARE)
            # Who has engaged nothing the release knows gets its answer to an empty history, which
            # is worse than what is known of the user's interests.
            answer = Answer(choose(found) if oov_share < 1 else (), oov_share=oov_share)
            with self._metrics.stage_seconds.labels("ranking").time():
                ranking_s = budget_s * (1 - RETRIEVAL_SHARE)
                relevance = await self.rank(release, user, context, answer.candidates, ranking_s)
            answer = answer._replace(relevance=relevance)
        except InferenceError as error:
            answer = answer._replace(failure=error)
        return answer

    async def rank(
        self,
        release: LoadedRelease,
        user: UserView,
        context: InterestContext,
        candidates: Sequence[Candidate],
        budget_s: float,
    ) -> NDArray[np.float32] | None:
        """Relevance of candidates, (C,); None without any.

        Raises:
            InferenceError: no usable answer in time.
        """
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
        with self._breaking(release.release, "ranking", budget_s):
            return await release.rank(user.history, keys, features, budget_s)

    async def _retrieve(
        self, release: LoadedRelease, user: UserView, budget_s: float
    ) -> tuple[list[Candidate], float]:
        """Candidates, and the share of the history that the release does not know."""
        with self._breaking(release.release, "retrieval", budget_s):
            answer = await release.retrieve(user.history, budget_s)
        if answer.oov_count:
            self._metrics.oov_items.labels(str(release.release)).inc(answer.oov_count)
        found = retrieved(answer, self._catalog.lookup(answer.keys.tolist()))
        if fresh := self._fresh.best(release.release, answer.user):
            # Both are scores of one space.
            found = sorted([*found, *fresh], key=lambda c: -(c.retrieval_score or 0.0))
        return found, answer.oov_count / max(int(np.count_nonzero(user.history.keys)), 1)

    @contextmanager
    def _breaking(self, release: int, model: str, budget_s: float) -> Iterator[None]:
        """Around a question to a model: it is not asked while it fails again and again.

        A Triton that is not there, or has too much to do, says so at once, and nothing of a model.

        Raises:
            BreakerOpen: it is left alone at the moment.
        """
        breaker = self._breakers[release, model]
        if not breaker.admits(self._clock()):
            raise BreakerOpen(f"{model} of release {release} fails again and again: it rests")
        try:
            yield
        except (InferenceFailed, InferenceDeadline) as error:
            if isinstance(error, InferenceFailed) or budget_s >= PATIENCE_S:
                breaker.failed(self._clock())
            raise
        else:
            breaker.succeeded()
        finally:
            self._metrics.breaker_open.labels(str(release), model).set(breaker.open)
