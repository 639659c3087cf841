"""How good the slates of a gateway over a real Triton are: a real log goes in, in time order.

    .venv/bin/python -m benchmarks.quality skew data/one-log [--run RUN] [--out FILE]
    .venv/bin/python -m benchmarks.quality retention data/one-log [--out FILE]

skew: each user's last event is held out; everything else is written, and slates are asked for as of
the moment of the last event. The peer is the offline evaluation of the exported models of the same
release on the same users, which combines the models as the gateway does. What there is of
difference is skew between training and serving.

retention: of users with a long history the last events are held out; slates are asked for as of
each of them, one after another, and each event is written after it was asked about. FOLLOW with
shares of forgetting is compared with FOLLOW without it, by gateways over one state. The earlier
half of what is held out chooses a share; the later half is the result, of the default share and of
the chosen one.

Figures are hit rates at 10 and NDCG at 10; differences are paired by user, with 95 % bootstrap
intervals over users.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import circumstances, keep
from ebbing.client import Client, catalog_item, user_event
from ebbing.events import EventType
from ebbing.progress import Reporter
from ebbing.v1 import recommendation_service_pb2 as pb
from ebbing.v1.user_event_pb2 import UserEvent
from server.inference.embedded import EmbeddedTriton
from server.recommend.strategies import StrategyConfig
from tests.harness.gateway import GatewayProcess
from tests.harness.triton import embedded_config
from trainer.data.load import DataConfig, load_log
from trainer.data.log import EventLog
from trainer.data.simulate import write_csv
from trainer.evaluation.of_run import Question, held_out_for, refuse_trained
from trainer.evaluation.reranking import ORDERS, rerank
from trainer.evaluation.resampling import Bootstrap, Interval
from trainer.publish import publish
from trainer.recipes import RECIPES
from trainer.retriever import Retriever
from trainer.runs import Run
from trainer.train import TrainingRun, train_run

CUTOFF = 10
CREATED = "2026-11-29T00:00:00+00:00"
FIGURES = ("hit_rate_at_10", "ndcg_at_10")
MISSED = 10**9
"""Rank of what is not in a slate."""

CANDIDATES = (128, 200)
"""The default of a gateway, and as many as the offline evaluation ranks."""
SHARES = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
"""Of a FOLLOW score that hang on retention, for choosing; the first is FOLLOW without it."""
HELD = 10
"""Events held out of a user: half to choose by, half for the result."""
LONG = 4 * HELD
"""Events a user has at least to be asked about."""


class Gateways:
    """Gateways over one Triton and one state that differ in their settings."""

    def __init__(self, clients: Mapping[str, Client], log: EventLog) -> None:
        self._clients = clients
        self._log = log

    def write_items(self) -> None:
        """The whole catalogue."""
        pairs = zip(self._log.item_ids, self._log.interests, strict=True)
        self._writer.write_items([catalog_item(item, dict(about)) for item, about in pairs])

    def write_events(self, rows: np.ndarray) -> None:
        """Events of the log by number, in time order."""
        ordered = rows[np.argsort(self._log.times[rows], kind="stable")]
        answer = self._writer.write_events(map(self._event, ordered.tolist()))
        assert answer.accepted_count == len(rows), answer

    def ranks(self, name: str, rows: np.ndarray, repeats: bool) -> np.ndarray:
        """Places in the slates, from 1, of what events of the log, each not written yet, took.

        Raises:
            RuntimeError: a slate failed or was made without models.
        """
        wanted = [self._event(row) for row in rows.tolist()]
        requests = (
            pb.RecommendItemsRequest(
                user_id=event.user_id,
                at=event.event_time,
                page_size=CUTOFF,
                strategy=pb.STRATEGY_FOLLOW,
                include_seen=repeats,
            )
            for event in wanted
        )
        places = []
        results = self._clients[name].stream_recommendations(requests)
        for event, result in zip(wanted, results, strict=True):
            if result.HasField("failure") or result.slate.degraded:
                raise RuntimeError(f"no slate of the models: {result}")
            ids = [item.item_id for item in result.slate.items]
            places.append(ids.index(event.item_id) + 1 if event.item_id in ids else MISSED)
        return np.array(places, np.int64)

    def _event(self, row: int) -> UserEvent:
        """An event of the log; ids keep the order among equal times."""
        log = self._log
        return user_event(
            log.user_ids[log.users[row]],
            EventType(int(log.types[row])),
            float(log.times[row]),
            item_id=log.item_ids[log.items[row]],
            event_id=f"log-{row:09d}",
        )

    @property
    def _writer(self) -> Client:
        return next(iter(self._clients.values()))


@contextmanager
def served(
    folder: Path, run: Path, log: EventLog, settings: Mapping[str, Mapping[str, object]]
) -> Iterator[Gateways]:
    """A run published and served by a gateway for each of some settings, by name."""
    config = embedded_config(folder)
    publish(run, config.repository, CREATED)
    with ExitStack() as stack:
        triton = stack.enter_context(EmbeddedTriton(config))
        clients = {}
        for name, own in settings.items():
            gateway = stack.enter_context(
                GatewayProcess(
                    folder, config.repository, triton.grpc_address, folder / "state.db", **own
                )
            )
            clients[name] = stack.enter_context(gateway.client())
        yield Gateways(clients, log)


@dataclass(frozen=True)
class Ranks:
    """Places of what T tests wanted, by who ranked."""

    users: np.ndarray
    """(T,) ascending user numbers."""
    of: Mapping[str, np.ndarray]
    """Who ranked → (T,) ranks from 1."""

    def told(self, peer: str) -> dict[str, Any]:
        """Mean figures of each, and what they have over a peer on the same users."""
        columns = [(name, figure) for name in self.of for figure in FIGURES]
        table = np.column_stack([_figure(self.of[name], figure) for name, figure in columns])
        means = Bootstrap().means(table, self.users)
        place = {column: number for number, column in enumerate(columns)}
        return {
            "tests": len(self.users),
            "users": len(np.unique(self.users)),
            "figures": {
                name: {figure: _told(means.interval(place[name, figure])) for figure in FIGURES}
                for name in self.of
            },
            f"less {peer}": {
                name: {
                    figure: _told(means.difference(place[name, figure], place[peer, figure]))
                    for figure in FIGURES
                }
                for name in self.of
                if name != peer
            },
        }


def _figure(ranks: np.ndarray, figure: str) -> np.ndarray:
    hit = ranks <= CUTOFF
    if figure == "hit_rate_at_10":
        return hit.astype(float)
    return np.where(hit, 1.0 / np.log2(1.0 + np.minimum(ranks, CUTOFF).astype(float)), 0.0)


def _told(interval: Interval) -> list[float]:
    return [round(number, 4) for number in (interval.value, interval.low, interval.high)]


def skew(options: argparse.Namespace, folder: Path, reporter: Reporter) -> dict[str, Any]:
    """Slates before each user's last event, beside the offline evaluation of the same models."""
    path = options.run or folder / "run"
    if not options.run:
        recipe = RECIPES[options.recipe]()
        train_run(TrainingRun(options.data, path, recipe, budget_s=options.budget), reporter)
    run = Run.read(path)
    log = load_log(options.data, run.reading())[0].engagements()
    tests = held_out_for(run, log, Question("leave-one-out"))
    refuse_trained(run, log, tests, options.data)
    events = tests.events[:: -(-len(tests.events) // options.tests)]
    with reporter.stage("offline", len(events), "tests") as stage:
        found = rerank(
            log,
            events,
            Retriever(run.model("retrieval"), log),
            run.model("ranking"),
            run.forgetting(),
            tests.repeats,
            np.random.default_rng(7),
            stage.advance,
        )
    ranks = {f"offline, {order}": found.ranks[order] for order in ORDERS}
    settings = {
        f"slates, {most} candidates": {"candidates": most, "forgetting_share": 0.0}
        for most in CANDIDATES
    }
    began = time.monotonic()
    with served(folder, path, log, settings) as gateways:
        gateways.write_items()
        gateways.write_events(np.setdiff1d(np.arange(len(log)), log.last_events()))
        with reporter.stage("slates", len(settings) * len(events), "slates") as stage:
            for name in settings:
                ranks[name] = gateways.ranks(name, events, tests.repeats)
                stage.advance(len(events))
    peer = "offline, retrieval_plus_ranking"
    same = {
        name: round(float(np.mean(_capped(ranks[name]) == _capped(ranks[peer]))), 4)
        for name in settings
    }
    return {
        "recipe": run.declared["recipe"],
        "retrieval_stopped_by_budget": run.declared.get("stopped_by_budget"),
        "repeats": tests.repeats,
        "seconds_served": round(time.monotonic() - began, 1),
        **Ranks(log.users[events], ranks).told(peer),
        "share_of_tests_at_the_same_place": same,
    }


def _capped(ranks: np.ndarray) -> np.ndarray:
    return np.minimum(ranks, CUTOFF + 1)


def retention(options: argparse.Namespace, folder: Path, reporter: Reporter) -> dict[str, Any]:
    """FOLLOW by shares of forgetting, before each of users' last events."""
    whole = load_log(options.data, DataConfig())[0].engagements()
    long = np.flatnonzero(np.diff(whole.offsets) >= LONG)
    held = whole.offsets[long + 1][:, None] + np.arange(-HELD, 0)
    known = whole.without(held.ravel())
    path = options.run or folder / "run"
    if not options.run:
        write_log(known, folder / "data")
        recipe = RECIPES[options.recipe]()
        train_run(TrainingRun(folder / "data", path, recipe, budget_s=options.budget), reporter)
    default = StrategyConfig().forgetting_share
    names = {share: f"share {share:g}" for share in sorted({*SHARES, default})}
    settings = {name: {"forgetting_share": share} for share, name in names.items()}
    half = HELD // 2
    began = time.monotonic()
    with served(folder, path, whole, settings) as gateways:
        gateways.write_items()
        gateways.write_events(np.setdiff1d(np.arange(len(whole)), held))
        first = _replayed(gateways, held[:, :half], names.values(), reporter, "choosing")
        choosing = Ranks(np.repeat(long, half), first)
        means = {share: _hits(first[name]) for share, name in names.items()}
        chosen = max(means, key=lambda share: means[share])
        asked = sorted({0.0, chosen, default})
        then = _replayed(
            gateways, held[:, half:], [names[share] for share in asked], reporter, "result"
        )
        result = Ranks(np.repeat(long, half), then)
    without = names[0.0]
    return {
        "recipe": Run.read(path).declared["recipe"],
        "default_share": default,
        "chosen_share": chosen,
        "seconds_served": round(time.monotonic() - began, 1),
        "choosing": choosing.told(without),
        "result": result.told(without),
    }


def _replayed(
    gateways: Gateways,
    rounds: np.ndarray,
    names: Iterable[str],
    reporter: Reporter,
    what: str,
) -> dict[str, np.ndarray]:
    """Ask about each user's (U, R) events one after another, and write each thereafter.

    Returns:
        Who ranked → (U · R,) ranks, by user.
    """
    asked = list(names)
    ranks: dict[str, Sequence[np.ndarray]] = {name: [] for name in asked}
    with reporter.stage(what, rounds.size * len(asked), "slates") as stage:
        for events in rounds.T:
            for name in asked:
                ranks[name] = [*ranks[name], gateways.ranks(name, events, repeats=True)]
                stage.advance(len(events))
            gateways.write_events(events)
    return {name: np.column_stack(found).ravel() for name, found in ranks.items()}


def _hits(ranks: np.ndarray) -> float:
    return float(_figure(ranks, "hit_rate_at_10").mean())


def write_log(log: EventLog, folder: Path) -> None:
    """A log as files, for training; the order among equal times stays."""
    folder.mkdir()
    write_csv(
        folder / "events.csv",
        ("user_id", "item_id", "event_type", "event_time"),
        [
            (
                log.user_ids[log.users[row]],
                log.item_ids[log.items[row]],
                EventType(int(log.types[row])).name.lower(),
                repr(float(log.times[row])),
            )
            for row in np.argsort(log.times, kind="stable").tolist()
        ],
    )
    write_csv(
        folder / "items.csv",
        ("item_id", "interests"),
        [
            (item, "|".join(path for path, _ in about))
            for item, about in zip(log.item_ids, log.interests, strict=True)
        ],
    )


def main() -> None:
    """Measure, print, and keep if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("skew", "retention"))
    parser.add_argument("data", type=Path, help="folder of a log")
    parser.add_argument("--run", type=Path, help="a run that held the same out; none trains one")
    parser.add_argument("--recipe", default="sequence", choices=tuple(RECIPES))
    parser.add_argument("--budget", type=float, default=60.0, help="seconds for retrieval")
    parser.add_argument("--tests", type=int, default=2000, help="of skew, at most, evenly spread")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    measure = {"skew": skew, "retention": retention}[options.what]
    with tempfile.TemporaryDirectory() as place:
        found = measure(options, Path(place), Reporter())
    result = {**circumstances(), "data": options.data.resolve().name, **found}
    print(json.dumps(result, indent=1))
    keep(result, options.out)


if __name__ == "__main__":
    main()
