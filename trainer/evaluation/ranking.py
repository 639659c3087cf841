"""Retrieval and ranking on the tests of a log: everything that is measured of a pair of models."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ebbing.interest.forgetting import ForgettingParameters
from ebbing.progress import Reporter
from trainer.data.log import EventLog
from trainer.evaluation.measures import SLATE, SlateFigures, coverage, of_slates, rank_figures
from trainer.evaluation.places import Places, places_of
from trainer.evaluation.placing import Placing
from trainer.evaluation.protocol import HeldOut
from trainer.evaluation.reranking import RankingFunction, Reranking, rerank
from trainer.evaluation.resampling import LEVEL, Bootstrap, Interval, Means
from trainer.evaluation.scorers import (
    ModelScorer,
    Popular,
    RecentlyPopular,
    Repeating,
    Scorer,
)
from trainer.evaluation.slices import Slice, slices_of
from trainer.retriever import Retriever

RETRIEVAL = "retrieval"
SCORERS = {
    "popular": "the items most had, the same for everybody",
    "recently_popular": "the items most had in the last 30 days",
    "repeat": "the user's own items, the newest first, then the items most had",
    RETRIEVAL: "the retrieval model, by its scores",
}
"""What ranks the whole catalogue, and how it is called for people."""

SHORT = {
    "popular": "most had",
    "recently_popular": "most had lately",
    "repeat": "own items again",
    RETRIEVAL: "retrieval model",
}
"""The same in few words, for the heads of tables and for plots."""

OF_SLICES = ("hit_rate_at_10", "ndcg_at_10", "mrr")
"""What is reported of slices too."""


@dataclass(frozen=True)
class EvaluationConfig:
    """How much is measured."""

    reranked: int = 2000
    """Tests on which the ranker is measured at most, evenly spread; the state of each is replayed.
    """
    states: int = 5000
    """Tests whose item's interest is looked up at most, evenly spread, for the slices by it."""
    bootstrap: Bootstrap = field(default_factory=Bootstrap)
    """How intervals are drawn."""
    seed: int = 7
    """Of the negatives that relevance is measured on."""


@dataclass(frozen=True)
class RankingEvaluation:
    """Answers to every test, and the figures."""

    log: EventLog
    tests: HeldOut
    known: np.ndarray
    """(I,) bool: items of the log that the model knows."""
    placed: int
    """How many of the others are placed by what they are about."""
    events: np.ndarray
    """(T,) event numbers asked, ascending: the tests, and those of unseen items."""
    seen: np.ndarray
    """(T,) bool: which of them are the tests."""
    places: Mapping[str, Places]
    """What each of `SCORERS` answered."""
    means: Means
    """Of the tests; columns are `SCORERS` × `names`."""
    names: tuple[str, ...]
    """Figures there are of each scorer."""
    slices: tuple[tuple[Slice, Means], ...]
    """Columns are `SCORERS` × `OF_SLICES`."""
    reranking: Reranking
    config: EvaluationConfig

    def mean(self, scorer: str, name: str) -> Interval:
        """A mean figure of one of `SCORERS`."""
        return self.means.interval(column(scorer, name, self.names))

    def gain(self, baseline: str, name: str) -> Interval:
        """By how much the retrieval model is above a baseline, by the same users."""
        return self.means.difference(
            column(RETRIEVAL, name, self.names), column(baseline, name, self.names)
        )

    def to_json(self) -> dict[str, Any]:
        """All figures; `docs/evaluation.md` says what each is."""
        return {
            "protocol": str(self.tests),
            "asked": self._asked(),
            "full_catalogue": {name: self._row(name) for name in SCORERS},
            "intervals": {
                scorer: {name: _bounds(self.mean(scorer, name)) for name in self.names}
                for scorer in SCORERS
            },
            "gains": {
                scorer: {name: _interval(self.gain(scorer, name)) for name in self.names}
                for scorer in SCORERS
                if scorer != RETRIEVAL
            },
            "slices": {one.name: _slice(one, means) for one, means in self.slices},
            "reranking": {
                order: {"tests": len(ranks), **_means(rank_figures(ranks))}
                for order, ranks in self.reranking.ranks.items()
            },
            "relevance": self.reranking.figures(),
            "bootstrap": {**asdict(self.config.bootstrap), "of": "users", "level": LEVEL},
        }

    def ranks_csv(self) -> str:
        """`user_id,test_item,rank`, a row a test, by the retrieval model over the catalogue."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("user_id", "test_item", "rank"))
        log, events = self.log, self.tests.events
        users = (log.user_ids[user] for user in log.users[events].tolist())
        items = (log.item_ids[item] for item in log.items[events].tolist())
        ranks = self.places[RETRIEVAL].ranks[self.seen].tolist()
        writer.writerows(zip(users, items, ranks, strict=True))
        return text.getvalue()

    def _asked(self) -> dict[str, Any]:
        tests = self.tests
        return {
            "protocol": tests.protocol,
            "cut": tests.cut,
            "asked": tests.asked,
            "repeats": tests.repeats,
            "repeat_share": tests.repeat_share,
            "tests": len(tests.events),
            "users": len(np.unique(self.log.users[tests.events])),
            "items": len(self.log.item_ids),
            "items_known": int(self.known.sum()),
            "items_placed": self.placed,
            "training_events": len(tests.known),
            "left_out": {
                "users_of_one_event": tests.alone,
                "items_had_before": tests.repeated,
                "items_never_in_training": len(tests.unseen),
            },
        }

    def _row(self, scorer: str) -> dict[str, float | int | None]:
        means = {name: self.mean(scorer, name).value for name in self.names}
        slates = self.places[scorer].slates[self.seen]
        row: dict[str, float | int | None] = {"tests": len(slates), **_clean(means)}
        row[f"coverage_at_{SLATE}"] = coverage(slates, len(self.log.item_ids))
        return row | _clean(of_slates(means))


def evaluate_ranking(
    log: EventLog,
    tests: HeldOut,
    retrieval: Any,
    ranker: RankingFunction,
    parameters: ForgettingParameters,
    reporter: Reporter,
    config: EvaluationConfig | None = None,
    placing: Placing | None = None,
) -> RankingEvaluation:
    """Measure a pair of models on tests, beside the baselines.

    Args:
        log: all of it, as the tests were taken from.
        tests: what is asked.
        retrieval: a retrieval model, eager or exported, with the methods of `CatalogueModel`.
        ranker: what `RANKING_INPUTS` → relevance (B, C) is.
        parameters: of forgetting, that features and states are of.
        reporter: where progress is shown.
        config: how much is measured.
        placing: where items that the retrieval model does not know belong.

    Raises:
        EvaluationError: the model knows none of the items, or its scores are not numbers.
    """
    config = config or EvaluationConfig()
    events = np.sort(np.concatenate([tests.events, tests.unseen]))
    seen = np.isin(events, tests.events)
    model = ModelScorer(retrieval, log, placing)
    scorers: dict[str, Scorer] = {
        "popular": Popular(tests),
        "recently_popular": RecentlyPopular(log, tests),
        "repeat": Repeating(log, tests),
        RETRIEVAL: model,
    }
    with reporter.stage("whole catalogue", len(events) * len(scorers), "rankings") as stage:
        places = {
            name: places_of(log, events, scorers[name], tests.repeats, stage.advance)
            for name in SCORERS
        }
    with reporter.stage("state of interests", min(len(events), config.states), "tests") as stage:
        slices = slices_of(log, tests, events, parameters, config.states, stage.advance)
    every = -(-len(tests.events) // config.reranked) or 1
    some = tests.events[::every]
    with reporter.stage("reranking", len(some), "tests") as stage:
        reranking = rerank(
            log,
            some,
            Retriever(retrieval, log),
            ranker,
            parameters,
            tests.repeats,
            np.random.default_rng(config.seed),
            stage.advance,
        )
    with reporter.stage("intervals", 1 + len(slices), "groups of tests") as stage:
        of_slates = SlateFigures(log, tests.known, model.vectors())
        figures = {
            name: rank_figures(place.ranks) | of_slates(place) for name, place in places.items()
        }
        names = tuple(figures[RETRIEVAL])
        users = log.users[events]
        drawn = config.bootstrap.means
        means = drawn(_stacked(figures, names)[seen], users[seen])
        stage.advance(1)
        of_slices = []
        for one in slices:
            own = drawn(_stacked(figures, OF_SLICES)[one.which], users[one.which])
            of_slices.append((one, own))
            stage.advance(1)
    return RankingEvaluation(
        log,
        tests,
        model.known,
        len(model.placed),
        events,
        seen,
        places,
        means,
        names,
        tuple(of_slices),
        reranking,
        config,
    )


def _stacked(figures: Mapping[str, Mapping[str, np.ndarray]], names: tuple[str, ...]) -> np.ndarray:
    """(T, `SCORERS` × names)."""
    return np.column_stack([figures[scorer][name] for scorer in SCORERS for name in names])


def column(scorer: str, name: str, names: tuple[str, ...]) -> int:
    """Column of a figure of one of `SCORERS` among `SCORERS` × `names`."""
    return tuple(SCORERS).index(scorer) * len(names) + names.index(name)


def _slice(one: Slice, means: Means) -> dict[str, Any]:
    def of(scorer: str) -> dict[str, Any]:
        return {
            name: _interval(means.interval(column(scorer, name, OF_SLICES))) for name in OF_SLICES
        }

    def gain(scorer: str) -> dict[str, Any]:
        return {
            name: _interval(
                means.difference(
                    column(RETRIEVAL, name, OF_SLICES), column(scorer, name, OF_SLICES)
                )
            )
            for name in OF_SLICES
        }

    return {
        "title": one.title,
        "tests": int(one.which.sum()),
        "figures": {scorer: of(scorer) for scorer in SCORERS},
        "gains": {scorer: gain(scorer) for scorer in SCORERS if scorer != RETRIEVAL},
    }


def _means(figures: Mapping[str, np.ndarray]) -> dict[str, float | None]:
    return _clean({name: float(np.mean(values)) for name, values in figures.items() if len(values)})


def _interval(interval: Interval) -> dict[str, float | None]:
    return _clean(asdict(interval))


def _bounds(interval: Interval) -> list[float | None]:
    return [_number(interval.low), _number(interval.high)]


def _clean(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _number(value) for name, value in values.items()}


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
