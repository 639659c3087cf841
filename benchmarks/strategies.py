"""What each strategy makes of generated users whose interests' future is known.

The gateway's own pipeline makes slates over a store. The models are stand-ins: they like what the
user has engaged most, for it is the strategies that are measured. Users have interests of many
paces, steady and not; all are skipped for an occasion or two now and then, and half of them end
for good at some moment. REKINDLE is asked several times on each of some days, and what it shows is
told back as impressions.

A place that REKINDLE gave is right if its interest is engaged again within the horizon by itself,
though nothing were shown. Wrong are interests that had ended, and those that come back, but later
than that. There are two kinds of users: those whose abandoned interests ended at least four usual
gaps before anybody is asked about, and those whose interests end at any moment, so that what ended
the day before yesterday cannot be told from what was skipped.

The choices were made on seed 0; others are the result.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from benchmarks.record import circumstances, keep
from ebbing.events import DEFAULT_EVENT_WEIGHTS, EventType
from ebbing.history import EncodedHistory, item_key
from ebbing.interest.forgetting import ForgettingParameters
from ebbing.interest.rhythm import DAY_S
from ebbing.interest.states import InterestState
from ebbing.progress import Reporter
from server.catalog import Catalog
from server.inference.loaded import Retrieved
from server.metrics import Metrics
from server.recommend.about import main_interest
from server.recommend.candidates import Source
from server.recommend.diversity import intra_list_diversity, similarity
from server.recommend.pipeline import Recommender
from server.recommend.reranking import Scored
from server.recommend.rules import Rules
from server.recommend.shelves import Shelves
from server.recommend.slates import RecommenderConfig, Slate, SlateRequest
from server.recommend.social import Social
from server.recommend.sources import Sources
from server.recommend.strategies import Strategy, StrategyConfig
from server.state.sqlite import SqliteStore
from server.state.store import Interaction, Interests, ItemRecord
from server.users import Users
from tests.harness.rhythms import EPOCH_S, RHYTHMS
from tests.harness.state import records
from trainer.data.log import EventLog
from trainer.forgetting import fit_forgetting

FIELDS, TOPICS, ITEMS = 10, 4, 30
"""Fields, topics of each, and items of each topic."""
USERS, INTERESTS = 48, (6, 10)
"""Users, and interests of each, from … to below."""
BEGIN_DAYS, END_DAYS = 40, 360
"""Interests begin before the first; nobody is asked about after the second."""
ASKED_DAYS = range(240, END_DAYS, 10)
SLATES_A_DAY, APART_S = 4, 3600.0
SKIPS = 0.12
"""Chance of each occasion that it is skipped, half of the times together with the next."""
ENDS = 0.5
"""Share of the interests that end."""
ABANDONED_GAPS = 4.0
"""Usual gaps that it is at least since an abandoned one ended; two skipped occasions are three."""
FUTURE_DAYS = END_DAYS + 90
"""Until when it is known what comes."""
IRREGULAR_DAYS = (2.0, 4.0, 7.0, 14.0)
"""Mean gaps of those without a rhythm."""
HORIZON_S = 30 * DAY_S
SIZE = 10
SEEDS = (1, 2, 3)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Life:
    """One interest of one user."""

    user: int
    topic: int
    times: Floats
    """Every engagement there will be, seconds since the epoch, ascending."""
    ended: bool
    """Whether there will be none beyond them."""

    def returns(self, at_s: float) -> bool:
        """Whether it is engaged within the horizon after a moment."""
        place = int(np.searchsorted(self.times, at_s, side="right"))
        return place < len(self.times) and bool(self.times[place] <= at_s + HORIZON_S)


def lives(seed: int, lately: bool) -> list[Life]:
    """The interests of all users.

    Those that end have done so long enough before anybody is asked about that skipped occasions do
    not explain it; or, ``lately``, at any moment, which nobody could tell from a skipped occasion.
    """
    chance = np.random.default_rng(seed)
    kinds = [*RHYTHMS, *IRREGULAR_DAYS]
    made = []
    for user in range(USERS):
        topics = chance.permutation(FIELDS * TOPICS)[: chance.integers(*INTERESTS)]
        for topic in topics.tolist():
            kind = kinds[chance.integers(len(kinds))]
            gap = kind if isinstance(kind, float) else RHYTHMS[kind][0] / DAY_S
            days = _occasions(chance, kind, gap)
            days = chance.uniform(0, BEGIN_DAYS) + days[_kept(chance, len(days))]
            ended = bool(chance.random() < ENDS)
            last = END_DAYS if lately else ASKED_DAYS[0] - ABANDONED_GAPS * gap
            until = chance.uniform(2 * BEGIN_DAYS, last) if ended else float(FUTURE_DAYS)
            made.append(Life(user, topic, EPOCH_S + DAY_S * days[days < until], ended))
    return [life for life in made if len(life.times)]


def _occasions(chance: np.random.Generator, kind: str | float, gap_days: float) -> Floats:
    """Days of more occasions than are needed; a pace in days has no rhythm."""
    enough = int(2 * FUTURE_DAYS / gap_days)
    if isinstance(kind, float):
        return np.cumsum(chance.gamma(2.0, gap_days / 2.0, enough))
    _, hours, days = RHYTHMS[kind]
    on = days(chance, enough)
    return np.sort(on + chance.uniform(-hours, hours, len(on)) / 24.0)


def _kept(chance: np.random.Generator, n: int) -> NDArray[np.bool_]:
    """(n,) which occasions are not skipped."""
    kept = chance.random(n) >= SKIPS
    twice = ~kept & (chance.random(n) < 0.5)
    kept[1:] &= ~twice[:-1]
    return kept


def path_of(topic: int) -> str:
    """The interest that a topic is."""
    return f"field-{topic // TOPICS}/topic-{topic}"


CATALOGUE = [
    ItemRecord(name, item_key(name), ((path_of(topic), 1.0),), 0, 0, b"")
    for topic in range(FIELDS * TOPICS)
    for name in (f"{topic}-{n}" for n in range(ITEMS))
]


class StandIn:
    """A release that likes the topics the user's history is made of, and the first items best."""

    release = 1
    encodes_items = False

    def __init__(self, forgetting: ForgettingParameters) -> None:
        """Set up with the parameters it was published with."""
        self.forgetting = forgetting
        self._keys = np.array([item.item_key for item in CATALOGUE], np.int64)
        self._topics = {item.item_key: n // ITEMS for n, item in enumerate(CATALOGUE)}

    async def retrieve(self, history: EncodedHistory, budget_s: float) -> Retrieved:
        """All topics of the history by frequency, items by place."""
        known = Counter(self._topics[key] for key in history.keys.tolist() if key)
        liked = np.array([np.log(known[topic] + 0.1) for topic in range(FIELDS * TOPICS)])
        scores = np.repeat(liked, ITEMS) - 0.2 * np.tile(np.arange(ITEMS), FIELDS * TOPICS)
        best = np.argsort(-scores, kind="stable")[:100]
        return Retrieved(self._keys[best], scores[best].astype(np.float32), 0, np.zeros(1))

    async def rank(
        self, history: EncodedHistory, keys: NDArray[np.int64], features: object, budget_s: float
    ) -> NDArray[np.float32]:
        """Nothing more to say."""
        return np.full(len(keys), 0.5, np.float32)

    def serving(self, user_id: str, release: int = 0) -> Any:
        """The release that answers: itself."""
        return self

    def shadowing(self, user_id: str) -> None:
        """No other is asked."""

    def observe(self, release: int, observation: object) -> None:
        """Nobody judges it."""

    def best(self, release: int, user: object) -> list[Any]:
        """It knows all items."""
        return []


class World:
    """The pipeline over a store, with all engagements up to a moment."""

    def __init__(
        self,
        store: SqliteStore,
        writer: ThreadPoolExecutor,
        everything: Sequence[Life],
        forgetting: ForgettingParameters,
    ) -> None:
        """Set up with nothing engaged yet."""
        self._store = store
        self.lives = {(life.user, path_of(life.topic)): life for life in everything}
        self._engagements = [
            (float(at), n, life) for life in everything for n, at in enumerate(life.times)
        ]
        self._engagements.sort(key=lambda one: one[0])
        self._written = 0
        self._shown = 0
        store.write_items(CATALOGUE)
        catalog = Catalog(store, writer)
        stand_in = StandIn(forgetting)
        sources = Sources(
            store, catalog, Shelves(store, catalog, time.monotonic, 1e9), Social(store)
        )
        self._recommenders = {
            share: Recommender(
                store,
                Users(store, 128),
                catalog,
                stand_in,  # type: ignore[arg-type]
                sources,
                stand_in,
                Rules(),
                Metrics(CollectorRegistry()),
                time.monotonic,
                RecommenderConfig(strategies=StrategyConfig(forgetting_share=share)),
            )
            for share in (0.0, StrategyConfig().forgetting_share)
        }

    def until(self, at_s: float) -> None:
        """Write what is engaged up to a moment."""
        start, end = self._written, self._written
        while end < len(self._engagements) and self._engagements[end][0] <= at_s:
            end += 1
        self._written = end
        rows = []
        for number in range(start, end):
            at, n, life = self._engagements[number]
            item = CATALOGUE[life.topic * ITEMS + (7 * n + life.user) % ITEMS]
            rows.append(_interaction(f"e{number}", life.user, item, EventType.VIEW, at))
        for first in range(0, len(rows), 500):
            self._store.append(rows[first : first + 500])

    def tell_shown(self, slates: Mapping[int, Slate]) -> None:
        """Write the impressions of users' slates."""
        rows = []
        for user, slate in slates.items():
            for scored in slate.items:
                self._shown += 1
                item, at_s = scored.candidate.item, slate.user.at_s
                name = f"i{self._shown}"
                rows.append(_interaction(name, user, item, EventType.IMPRESSION, at_s))
        self._store.append(rows)

    async def slate(
        self, user: int, at_s: float, strategy: Strategy, plain: bool = False, diversity: float = 0
    ) -> Slate:
        """One slate; a plain one is ordered by what the models believe alone."""
        recommender = self._recommenders[0.0 if plain else StrategyConfig().forgetting_share]
        at_us = round(at_s * 1e6)
        request = SlateRequest(
            user_id=_name(user),
            size=SIZE,
            at_us=at_us,
            include_seen=True,
            excluded_ids=frozenset(),
            release=0,
            alpha=None,
            strategy=strategy,
            diversity=diversity,
        )
        return await recommender.recommend(request, at_us, 5.0)


def _name(user: int) -> str:
    return f"u{user}"


def _interaction(
    event_id: str, user: int, item: ItemRecord, kind: EventType, at_s: float
) -> Interaction:
    return Interaction(
        event_id=event_id,
        user_id=_name(user),
        item_key=item.item_key,
        event_type=int(kind),
        time_us=round(at_s * 1e6),
        weight=DEFAULT_EVENT_WEIGHTS[kind],
        interests=item.interests,
        body=b"",
    )


async def rekindling(world: World, stage: Any) -> dict[str, float]:
    """Ask REKINDLE on many days, several times on each, and count whom its places went to."""
    config = StrategyConfig()
    places = max(1, round(config.rekindle_share * SIZE))
    counts: Counter[str] = Counter()
    shown: dict[tuple[int, str], list[float]] = defaultdict(list)
    for day in ASKED_DAYS:
        for n in range(SLATES_A_DAY):
            at_s = EPOCH_S + day * DAY_S + n * APART_S
            world.until(at_s)
            slates = {u: await world.slate(u, at_s, Strategy.REKINDLE) for u in range(USERS)}
            for user, slate in slates.items():
                given = [_about(one) for one in slate.items if _kept_a_place(one)]
                counts["slates"] += 1
                counts["places"] += len(given)
                counts["slates_over_their_places"] += len(given) > places
                for interest in given:
                    seen = [at for at in shown[user, interest] if at >= at_s - DAY_S]
                    counts["places_over_the_daily_cap"] += len(seen) >= config.rekindle_daily
                    counts[_fate(world.lives[user, interest], at_s)] += 1
                for one in slate.items:
                    shown[user, _about(one)].append(at_s)
                if n == 0:
                    _count_quiet(world, user, slate, at_s, set(given), counts)
            world.tell_shown(slates)
        stage.advance(1)
    quiet, back = counts["quiet"], counts["quiet_that_return"]
    return {
        **{name: counts[name] for name in ("slates", "places", "returns", "late", "ended")},
        "share_recoverable": round(counts["returns"] / max(counts["places"], 1), 4),
        "share_among_all_fading_and_forgotten": round(back / max(quiet, 1), 4),
        "share_offered_of_those_that_return": round(counts["offered"] / max(back, 1), 4),
        "slates_over_their_places": counts["slates_over_their_places"],
        "places_over_the_daily_cap": counts["places_over_the_daily_cap"],
    }


def _about(scored: Scored) -> str:
    return main_interest(scored.candidate.item.interests)


def _kept_a_place(scored: Scored) -> bool:
    return scored.candidate.source is Source.REKINDLE


def _fate(life: Life, at_s: float) -> str:
    if life.returns(at_s):
        return "returns"
    return "ended" if life.ended else "late"


def _count_quiet(
    world: World, user: int, slate: Slate, at_s: float, given: set[str], counts: Counter[str]
) -> None:
    """Count the interests that fade or are forgotten, and what becomes of them."""
    context = slate.context
    for name, state in zip(context.names, context.states.tolist(), strict=True):
        if state in (InterestState.FADING, InterestState.FORGOTTEN):
            back = world.lives[user, name].returns(at_s)
            counts["quiet"] += 1
            counts["quiet_that_return"] += back
            counts["offered"] += back and name in given


STRATEGIES: Mapping[str, Mapping[str, Any]] = {
    "plain top-k by belief": {"strategy": Strategy.FOLLOW, "plain": True},
    "FOLLOW": {"strategy": Strategy.FOLLOW},
    "FOLLOW, diversity 0.3": {"strategy": Strategy.FOLLOW, "diversity": 0.3},
    "REKINDLE": {"strategy": Strategy.REKINDLE},
    "EXPLORE": {"strategy": Strategy.EXPLORE},
    "PACE": {"strategy": Strategy.PACE},
}


async def variety(world: World) -> dict[str, dict[str, float]]:
    """Diversity, coverage and novelty of what each strategy shows at one moment."""
    at_s = EPOCH_S + END_DAYS * DAY_S
    world.until(at_s)
    engaged: dict[str, set[int]] = defaultdict(set)
    for (user, name), life in world.lives.items():
        if life.times[0] <= at_s:
            engaged[name].add(user)
    told = {}
    for name, asked in STRATEGIES.items():
        slates = [(u, await world.slate(u, at_s, **asked)) for u in range(USERS)]
        about = [[s.candidate.item.interests for s in slate.items] for _, slate in slates]
        shown = [
            (user, scored.candidate.item.item_id, _about(scored))
            for user, slate in slates
            for scored in slate.items
        ]
        told[name] = {
            "items_a_slate": round(len(shown) / USERS, 2),
            "intra_list_diversity": _mean(
                [intra_list_diversity(similarity(one)) for one in about if len(one) > 1]
            ),
            "catalogue_coverage": round(len({item for _, item, _ in shown}) / len(CATALOGUE), 4),
            "novelty_bits": _mean(
                [-np.log2(len(engaged[topic]) / USERS) for _, _, topic in shown if engaged[topic]]
            ),
            "share_new_to_the_user": _mean([u not in engaged[topic] for u, _, topic in shown]),
        }
    return told


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4) if values else 0.0


def log_of(everything: Sequence[Life]) -> EventLog:
    """The users' engagements before anybody is asked about, as a log to fit on."""
    until = EPOCH_S + ASKED_DAYS[0] * DAY_S
    rows = [
        (life.user, life.topic * ITEMS, float(at))
        for life in everything
        for at in life.times
        if at <= until
    ]
    users, items, times = (np.array(column) for column in zip(*rows, strict=True))
    interests: list[Interests] = [item.interests for item in CATALOGUE]
    return EventLog.of(
        [_name(user) for user in range(USERS)],
        [item.item_id for item in CATALOGUE],
        interests,
        users,
        items,
        np.full(len(rows), int(EventType.VIEW)),
        times,
    )


def measured(
    everything: Sequence[Life], forgetting: ForgettingParameters, label: str, with_variety: bool
) -> dict[str, Any]:
    """What comes of some users with some parameters."""
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(SqliteStore(Path(folder) / "state.db", records())) as store,
        ThreadPoolExecutor(1) as writer,
        Reporter().stage(label, len(ASKED_DAYS), "days") as stage,
    ):
        world = World(store, writer, everything, forgetting)

        async def all_of_it() -> dict[str, Any]:
            result: dict[str, Any] = {"rekindle": await rekindling(world, stage)}
            if with_variety:
                result["variety"] = await variety(world)
            return result

        return asyncio.run(all_of_it())


def main() -> None:
    """Measure, print, and keep if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result: dict[str, Any] = {**circumstances(), "seeds": {}}
    for seed in options.seeds:
        told = result["seeds"][str(seed)] = {}
        for world, lately in (("ended long before", False), ("ending at any time", True)):
            everything = lives(seed, lately)
            fitted = fit_forgetting(log_of(everything), "fitted").parameters
            for name, parameters in (
                ("built-in", ForgettingParameters.builtin()),
                ("fitted", fitted),
            ):
                label = f"{world}, {name}"
                varied = not lately and name == "fitted"
                told[label] = measured(everything, parameters, f"seed {seed}, {label}", varied)
        keep(result, options.out)
    print(result)


if __name__ == "__main__":
    main()
