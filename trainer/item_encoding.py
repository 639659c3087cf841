"""Training of the item encoder: where items would be by what describes them.

The retrieval model has put every item with events somewhere. A ridge regression finds those places
from the items' descriptions; how strongly it is held back is chosen on items kept out. Regression
shrinks: what it places is nearer to the middle than what was trained, and would never be retrieved.
So vectors are lengthened to what those of the kept-out items had, and popularity is moved until
placed items come among users' first ten as often as trained ones do: they compete and do not flood.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ebbing.history import item_key, item_keys
from ebbing.items import encode_items, interest_levels
from ebbing.progress import Reporter
from trainer.data.log import EventLog
from trainer.data.replay import histories_before
from trainer.models.item_encoder import Description, ItemEncoder
from trainer.models.vocabulary import Vocabulary

FIRST = 10
"""Places at the top that placed items must not flood."""
CHUNK = 4096
"""Items described at a time."""


class Placed(Protocol):
    """A retrieval model in whose space items are placed."""

    vocabulary: Vocabulary
    table: Tensor
    """(V, D) item vectors by vocabulary row."""
    popularity: Tensor
    """(V,) what is added to an item's product with a user vector."""

    def __call__(self, keys: Tensor, ages: Tensor, types: Tensor) -> tuple[Tensor, ...]:
        """`ebbing.history.RETRIEVAL_INPUTS` → `RETRIEVAL_OUTPUTS`."""
        ...


@dataclass(frozen=True)
class ItemEncoderConfig:
    """How the item encoder is trained."""

    doubt: float = 5.0
    """Events at which an item's trained place counts half."""
    ridges: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0)
    """Pulls of the regression's weights to zero that are tried."""
    fewest_items: int = 2
    """Items an interest needs to be known; of one alone nothing can be learned for others."""
    most_interests: int = 4096
    """Interests known at most, those of the most items; the equations grow with their square."""
    held_share: float = 0.1
    """Share of the items kept out to choose and to calibrate on."""
    users: int = 1024
    """Histories whose first ten are looked at."""


@dataclass(frozen=True)
class ItemEncoderResult:
    """A trained item encoder."""

    model: ItemEncoder
    metrics: dict[str, float]
    """Of the kept-out items: how many, the ridge chosen, mean cosine of placed and trained vectors
    weighed by events, what vectors were lengthened by, and the share of users' first ten that they
    take when trained and when placed."""


def train_item_encoder(
    log: EventLog, retrieval: Placed, config: ItemEncoderConfig, seed: int, reporter: Reporter
) -> ItemEncoderResult | None:
    """Train on the places that a retrieval model trained on this log has given its items.

    Returns:
        None where nothing describes the items, or too few of them to learn from have events.
    """
    random = np.random.default_rng(seed)
    events = np.bincount(log.items, minlength=len(log.item_ids))
    trained = np.flatnonzero(events)
    description = _description(log, trained, config)
    n_held = round(config.held_share * len(trained))
    if description is None or n_held < 2:
        return None
    rows = retrieval.vocabulary(torch.from_numpy(item_keys(log.item_ids)))
    places = torch.cat([retrieval.table, retrieval.popularity[:, None]], dim=1)[rows].double()
    sure = torch.from_numpy(events / (events + config.doubt))
    trained = random.permutation(trained)
    held, fitted = (torch.from_numpy(np.sort(part)) for part in np.split(trained, [n_held]))

    with reporter.stage("item encoder", len(trained) + n_held, "items") as stage:
        some = _Equations(description.size(), places.size(1))
        for items, parts in _described(log, description, fitted):
            some.add(parts, places[items], sure[items])
            stage.advance(len(items))
        shown = torch.cat([parts for _, parts in _described(log, description, held)])
        all_ = some.copy()
        all_.add(shown, places[held], sure[held])
        stage.advance(n_held)

        weights = {ridge: some.solve(ridge) for ridge in config.ridges}
        alike = {
            ridge: _cosine(shown @ weight, places[held], sure[held])
            for ridge, weight in weights.items()
        }
        ridge = max(alike, key=lambda tried: alike[tried])
        found = shown @ weights[ridge]
        longer = _length(places[held], sure[held]) / max(_length(found, sure[held]), 1e-9)
        found[:, :-1] *= longer
        users = _users(log, retrieval, config.users, random)
        shift, trained_share, placed_share = _compete(
            users, places[torch.from_numpy(trained)], places[held], found, n_held
        )
        weight = all_.solve(ridge)
        weight[:, :-1] *= longer
        # The last part of a description is 1.
        weight[-1, -1] += shift
        stage.advance(n_held, cosine=alike[ridge])
    metrics = {
        "held_out": n_held,
        "ridge": ridge,
        "cosine": alike[ridge],
        "lengthened": longer,
        "trained_share_of_first_ten": trained_share,
        "placed_share_of_first_ten": placed_share,
    }
    return ItemEncoderResult(ItemEncoder(description, weight.float()).eval(), metrics)


def place_items(encoder: ItemEncoder, log: EventLog, items: np.ndarray) -> tuple[Tensor, Tensor]:
    """Vectors (N, D) and popularity (N,) of some of a log's items, by their descriptions alone."""
    placed = [
        encoder(*_encoded(log, part)) for part in np.array_split(items, -(-len(items) // CHUNK))
    ]
    vectors, popularity, _ = (torch.cat(parts) for parts in zip(*placed, strict=True))
    return vectors, popularity.squeeze(1)


def _description(
    log: EventLog, trained: np.ndarray, config: ItemEncoderConfig
) -> Description | None:
    counts = Counter(
        level
        for item in trained.tolist()
        for level in {level for path, _ in log.interests[item] for level in interest_levels(path)}
    )
    often = [
        level for level, n in counts.most_common(config.most_interests) if n >= config.fewest_items
    ]
    contents = {}
    for name, vectors in log.contents.items():
        known = vectors[trained]
        known = known[np.isfinite(known).all(axis=1)]
        if len(known) >= config.fewest_items:
            spread = np.maximum(known.std(axis=0), 1e-6)
            contents[name] = (torch.from_numpy(known.mean(axis=0)), torch.from_numpy(spread))
    if not often and not contents:
        return None
    return Description([item_key(level) for level in often], contents)


def _encoded(log: EventLog, items: np.ndarray) -> tuple[Tensor, ...]:
    encoded = encode_items(
        [log.interests[item] for item in items.tolist()],
        [
            {name: vectors[item] for name, vectors in log.contents.items()}
            for item in items.tolist()
        ],
    )
    return tuple(torch.from_numpy(part) for part in encoded)


def _described(
    log: EventLog, description: Description, items: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    for some in items.split(CHUNK):
        yield some, description(*_encoded(log, some.numpy()))[0].double()


class _Equations:
    """Normal equations of a weighted ridge regression, gathered chunk by chunk."""

    def __init__(self, parts: int, targets: int) -> None:
        self.square = torch.zeros(parts, parts, dtype=torch.float64)
        self.right = torch.zeros(parts, targets, dtype=torch.float64)

    def copy(self) -> _Equations:
        twin = _Equations(*self.right.shape)
        twin.square += self.square
        twin.right += self.right
        return twin

    def add(self, parts: Tensor, targets: Tensor, weight: Tensor) -> None:
        """Take in N rows: parts (N, P), targets (N, T), weights (N,)."""
        self.square += parts.T @ (weight[:, None] * parts)
        self.right += parts.T @ (weight[:, None] * targets)

    def solve(self, ridge: float) -> Tensor:
        """(P, T) weights; the last part, which is 1 always, is not held back."""
        pull = torch.full((len(self.square),), ridge, dtype=torch.float64)
        pull[-1] = 1e-9
        return torch.linalg.solve(self.square + torch.diag(pull), self.right)


def _cosine(found: Tensor, places: Tensor, weight: Tensor) -> float:
    each = torch.nn.functional.cosine_similarity(found[:, :-1], places[:, :-1], dim=1)
    return float((weight * each).sum() / weight.sum())


def _length(places: Tensor, weight: Tensor) -> float:
    return float((weight * places[:, :-1].norm(dim=1)).sum() / weight.sum())


def _users(log: EventLog, retrieval: Placed, n: int, random: np.random.Generator) -> Tensor:
    """User vectors (N, D) of some users, just before the last event of each."""
    last = log.last_events()
    last = np.sort(random.choice(last, size=min(n, len(last)), replace=False))
    history = (torch.from_numpy(part) for part in histories_before(log, last))
    with torch.no_grad():
        return retrieval(*history)[2].double()


def _compete(
    users: Tensor, trained: Tensor, held: Tensor, found: Tensor, n_held: int
) -> tuple[float, float, float]:
    """What to add to the popularity of placed items, so that they take the share of users' first
    ten that the same items take when trained; that share, and the one reached.

    Args:
        users: (N, D) user vectors.
        trained: (I, D + 1) places of the trained items, the `n_held` kept-out ones first.
        held, found: (H, D + 1) trained and found places of the kept-out items.
        n_held: H.
    """
    scores = _scores(users, trained[n_held:])
    rivals = scores.topk(min(FIRST, scores.size(1)), dim=1).values
    shown = _scores(users, found)
    wanted = _share(rivals, _scores(users, held)) or n_held / len(trained)
    low, high = -50.0, 50.0
    for _ in range(40):
        middle = (low + high) / 2
        if _share(rivals, shown + middle) < wanted:
            low = middle
        else:
            high = middle
    return low, wanted, _share(rivals, shown + low)


def _scores(users: Tensor, places: Tensor) -> Tensor:
    return users @ places[:, :-1].T + places[:, -1]


def _share(rivals: Tensor, scores: Tensor) -> float:
    """Share of the first places that items with these scores (N, H) take beside rivals (N, K)."""
    both = torch.cat([rivals, scores], dim=1)
    first = both.topk(min(FIRST, both.size(1)), dim=1).indices
    return float((first >= rivals.size(1)).double().mean())
