"""Eager model = TorchScript model = through the gateway and Triton, for a thousand histories.

The expected answers are computed here from the events that were written, with nothing of the
gateway's but what training uses too: the encoder of histories and the features of candidates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ebbing.client import Client, user_event
from ebbing.events import DEFAULT_EVENT_WEIGHTS, EventType
from ebbing.features import candidate_features
from ebbing.history import HISTORY_LENGTH, encode_history, item_key
from ebbing.interest.forgetting import ForgettingParameters
from ebbing.interest.trace import TraceTable
from ebbing.v1 import recommendation_service_pb2 as pb
from tests.harness.release import TinyRelease
from trainer.export import PARITY_ATOL, load_exported

USERS = 1_200
"""Somewhat more than a thousand, as some will have no history."""
LONGEST = 80
"""Longer than the models' history, so that the oldest events have to fall off."""
END = 1_748_736_000
AT = END + 3_600.0
SPAN_S = 200 * 86_400
SEED = 20_250_601
SLATE = 100
UNKNOWN_SHARE = 0.1
"""Share of the events whose item neither the catalogue nor the model knows."""


@dataclass(frozen=True)
class Row:
    """One event of a history."""

    event_id: str
    item_id: str
    kind: EventType
    time: float


@dataclass(frozen=True)
class Eager:
    """What the eager models and their exports answer for one user."""

    retrieval: dict[str, float]
    """Score of each item that retrieval returns."""
    relevance: dict[str, float]
    """Relevance of each item of the slate."""


@pytest.fixture(scope="module")
def histories(release: TinyRelease) -> dict[str, list[Row]]:
    """Random histories by user, in no order: ties, unknown items, deeds that show no interest."""
    random = np.random.default_rng(SEED)
    kinds = np.array([kind for kind in EventType if kind])
    histories = {}
    for user in range(USERS):
        # Whoever has fewer events is more of an exception, so short histories are drawn more often.
        n = int(LONGEST * random.random() ** 2) if user else 0
        times = END - random.integers(0, SPAN_S, n)
        if n > 1:
            times[random.random(n) < 0.3] = times[0]
        unknown = random.random(n) < UNKNOWN_SHARE
        items = np.where(
            unknown,
            [f"unknown-{x}" for x in random.integers(0, 50, n)],
            random.choice(release.simulation.log.item_ids, n),
        )
        if user % 97 == 1:
            items = np.array([f"unknown-{x}" for x in range(n)])
        histories[f"parity-{user:04d}"] = [
            # Ids in an order of their own: among equal times it is they that count.
            Row(f"parity-{user:04d}-{label:03d}", str(item), EventType(int(kind)), float(time))
            for label, item, kind, time in zip(
                random.permutation(n), items, random.choice(kinds, n), times, strict=True
            )
        ]
    return histories


@pytest.fixture(scope="module")
def slates(client: Client, histories: dict[str, list[Row]]) -> dict[str, pb.Slate]:
    """What the gateway answers once it has been told all histories."""
    client.write_events(
        user_event(user, row.kind, row.time, item_id=row.item_id, event_id=row.event_id)
        for user, rows in histories.items()
        for row in rows
    )
    results = client.recommend_many(histories, AT, page_size=SLATE, include_seen=True)
    return {user: result.slate for user, result in zip(histories, results, strict=True)}


def engagements(rows: list[Row]) -> list[Row]:
    """The events that leave a trace, oldest first."""
    left = (row for row in rows if DEFAULT_EVENT_WEIGHTS[row.kind])
    return sorted(left, key=lambda row: (row.time, row.event_id))


@pytest.fixture(scope="module")
def expected(
    release: TinyRelease, histories: dict[str, list[Row]], slates: dict[str, pb.Slate]
) -> dict[str, Eager]:
    """The eager models' answers for all they know anything of, proven equal to their exports'."""
    log = release.simulation.log
    interests = dict(zip(log.item_ids, log.interests, strict=True))
    item_of = {item_key(item): item for item in log.item_ids}
    parameters = ForgettingParameters.from_json((release.run / "forgetting.json").read_text())
    asked = {user: engagements(rows) for user, rows in histories.items()}
    # Whose whole history the models do not know is not asked about.
    asked = {
        user: rows
        for user, rows in asked.items()
        if any(row.item_id in interests for row in rows[-HISTORY_LENGTH:])
    }

    encoded = [
        encode_history(
            [item_key(row.item_id) for row in rows],
            [row.time for row in rows],
            [int(row.kind) for row in rows],
            AT,
        )
        for rows in asked.values()
    ]
    history = tuple(torch.from_numpy(np.stack(part)) for part in zip(*encoded, strict=True))
    features = []
    for user, rows in asked.items():
        traces = TraceTable.from_events(
            (row.time, 1.0, interests.get(row.item_id, ())) for row in rows
        )
        slate = [interests[item.item_id] for item in slates[user].items]
        features.append(candidate_features(traces, slate, AT, parameters))
    candidates = [[item_key(item.item_id) for item in slates[user].items] for user in asked]

    keys, scores, *_ = both(release, "retrieval", history)
    (relevance,) = both(
        release,
        "ranking",
        (*history, torch.tensor(candidates), torch.from_numpy(np.stack(features))),
    )
    return {
        user: Eager(
            {item_of[key]: score for key, score in zip(*row, strict=True)},
            dict(zip((item.item_id for item in slates[user].items), ranked, strict=True)),
        )
        for user, row, ranked in zip(
            asked, zip(keys.tolist(), scores.tolist(), strict=True), relevance.tolist(), strict=True
        )
    }


def both(release: TinyRelease, name: str, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The eager model's outputs, once the published file is certain to agree."""
    published = load_exported(release.repository / name / str(release.number) / "model.pt")
    eager, exported = (answer(module, inputs) for module in (release.modules[name], published))
    for one, other in zip(eager, exported, strict=True):
        if one.is_floating_point():
            torch.testing.assert_close(other, one, atol=PARITY_ATOL, rtol=0)
    return eager


def answer(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A module's outputs as a tuple."""
    with torch.inference_mode():
        outputs = module(*inputs)
    return outputs if isinstance(outputs, tuple) else (outputs,)


def batches(users: list[str]) -> Iterator[list[str]]:
    """Users in groups of all sizes a call to Triton can have."""
    sizes = [1, 2, 3, 5, 8, 13, 21, 34, 55, 64]
    bounds = np.cumsum([0, *sizes])
    for start, stop in pairwise(bounds):
        yield users[start:stop]


def test_the_histories_are_the_hard_ones(histories: dict[str, list[Row]]) -> None:
    traced = [engagements(rows) for rows in histories.values()]
    assert sum(map(bool, traced)) >= 1_000
    assert any(len(rows) > HISTORY_LENGTH for rows in traced)
    assert any(len(rows) == 1 for rows in traced)
    assert any(rows and all(r.item_id.startswith("unknown") for r in rows) for rows in traced)
    assert any(
        len(list(group)) > 1 for rows in traced for _, group in groupby(rows, lambda row: row.time)
    )


def test_every_score_is_the_eager_models(
    slates: dict[str, pb.Slate], expected: dict[str, Eager]
) -> None:
    worst = 0.0
    for user, eager in expected.items():
        slate = slates[user]
        assert not slate.degraded, user
        assert len(slate.items) == SLATE, user
        for item in slate.items:
            assert item.source == pb.CANDIDATE_SOURCE_RETRIEVAL
            worst = max(worst, abs(item.retrieval_score - eager.retrieval[item.item_id]))
            worst = max(worst, abs(item.relevance - eager.relevance[item.item_id]))
    assert worst <= PARITY_ATOL


def test_whose_history_says_nothing_gets_what_is_popular(
    slates: dict[str, pb.Slate], expected: dict[str, Eager]
) -> None:
    strangers = slates.keys() - expected.keys()
    assert strangers
    for user in strangers:
        assert not slates[user].degraded
        for item in slates[user].items:
            assert item.source == pb.CANDIDATE_SOURCE_POPULAR
            assert not item.HasField("relevance")
            assert not item.HasField("retrieval_score")


def test_the_company_a_request_is_in_does_not_matter(
    client: Client, slates: dict[str, pb.Slate], expected: dict[str, Eager]
) -> None:
    for users in batches(list(expected)):
        results = client.recommend_many(users, AT, page_size=SLATE, include_seen=True)
        for user, result in zip(users, results, strict=True):
            before = {item.item_id: item for item in slates[user].items}
            for item in result.slate.items:
                known = before.get(item.item_id)
                # Where the slate is cut, items that tie within the tolerance may trade places.
                if known:
                    assert abs(item.relevance - known.relevance) <= PARITY_ATOL
                    assert abs(item.retrieval_score - known.retrieval_score) <= PARITY_ATOL
            assert len(before.keys() & {i.item_id for i in result.slate.items}) >= SLATE - 2
