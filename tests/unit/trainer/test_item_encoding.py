from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ebbing.history import item_keys
from ebbing.progress import Reporter
from trainer.data.log import EventLog
from trainer.data.simulate import Simulation
from trainer.item_encoding import ItemEncoderConfig, place_items, train_item_encoder
from trainer.models.vocabulary import Vocabulary

WIDTH = 8


class ByInterest(nn.Module):
    """A retrieval model whose items of one interest lie together, and whose users lie where the
    item they had last does; rare items are less popular."""

    table: Tensor
    popularity: Tensor

    def __init__(self, log: EventLog, spread: float = 0.3) -> None:
        super().__init__()
        self.vocabulary = Vocabulary(item_keys(log.item_ids).tolist())
        rows = self.vocabulary(torch.from_numpy(item_keys(log.item_ids)))
        random = torch.Generator().manual_seed(0)
        directions = {
            path: torch.randn(WIDTH, generator=random)
            for path in sorted({path for pairs in log.interests for path, _ in pairs})
        }
        table = torch.zeros(self.vocabulary.size(), WIDTH)
        for row, pairs in zip(rows.tolist(), log.interests, strict=True):
            own = spread * torch.randn(WIDTH, generator=random)
            table[row] = own + sum(share * directions[path] for path, share in pairs)
        events = np.bincount(log.items, minlength=len(log.item_ids))
        popularity = torch.zeros(len(table))
        popularity[rows] = torch.from_numpy(np.log1p(events)).float()
        self.register_buffer("table", table)
        self.register_buffer("popularity", popularity)

    def forward(self, keys: Tensor, ages: Tensor, types: Tensor) -> tuple[Tensor, ...]:
        user = self.table[self.vocabulary(keys[:, -1])]
        return keys, ages, user, types[:, :1]


def trained(log: EventLog, reporter: Reporter, **changes: float):
    config = ItemEncoderConfig(**changes)
    return train_item_encoder(log, ByInterest(log), config, 1, reporter)


@pytest.fixture
def fewer(simulation: Simulation) -> tuple[EventLog, np.ndarray]:
    """The log without any event of some items, and these."""
    log = simulation.log
    gone = np.flatnonzero(np.bincount(log.items, minlength=len(log.item_ids)))[::20]
    return log.without(np.flatnonzero(np.isin(log.items, gone))), gone


def test_an_unseen_item_lands_where_its_like_are(
    fewer: tuple[EventLog, np.ndarray], reporter: Reporter
) -> None:
    log, gone = fewer
    result = trained(log, reporter)
    assert result is not None
    vectors, popularity = place_items(result.model, log, gone)
    model = ByInterest(log)
    wanted = model.table[model.vocabulary(torch.from_numpy(item_keys(log.item_ids)[gone]))]
    cosine = torch.nn.functional.cosine_similarity(vectors, wanted, dim=1)
    assert cosine.mean() > 0.8
    assert vectors.shape == (len(gone), WIDTH)
    assert popularity.shape == (len(gone),)


def test_placed_items_compete_and_do_not_flood(simulation: Simulation, reporter: Reporter) -> None:
    result = trained(simulation.log, reporter, held_share=0.3)
    assert result is not None
    wanted, reached = (result.metrics[f"{how}_share_of_first_ten"] for how in ("trained", "placed"))
    assert wanted > 0.1
    assert reached == pytest.approx(wanted, abs=0.02)
    assert result.metrics["lengthened"] >= 1.0


def test_contents_place_items_that_are_about_nothing(
    simulation: Simulation, reporter: Reporter
) -> None:
    log = simulation.log
    model = ByInterest(log)
    rows = model.vocabulary(torch.from_numpy(item_keys(log.item_ids)))
    seen = (model.table[rows] @ torch.randn(WIDTH, 12)).numpy() * 5 + 3
    # Every third item has no picture, and what it sounds like is noise.
    seen[::3] = np.nan
    heard = np.random.default_rng(0).normal(size=(len(seen), 2)).astype(np.float32)
    log = replace(
        log,
        interests=((),) * len(log.item_ids),
        contents=MappingProxyType({"image": seen.astype(np.float32), "sound": heard}),
    )
    result = train_item_encoder(log, model, ItemEncoderConfig(), 1, reporter)
    assert result is not None
    vectors, _ = place_items(result.model, log, np.arange(len(log.item_ids)))
    cosine = torch.nn.functional.cosine_similarity(vectors, model.table[rows], dim=1)
    pictured = torch.from_numpy(~np.isnan(seen[:, 0]))
    assert cosine[pictured].mean() > 0.95
    assert vectors.isfinite().all()


def test_the_same_seed_gives_the_same_encoder(simulation: Simulation, reporter: Reporter) -> None:
    one, two = (trained(simulation.log, reporter) for _ in range(2))
    assert one is not None and two is not None
    assert one.metrics == two.metrics
    assert torch.equal(one.model.weight, two.model.weight)


def test_where_nothing_describes_the_items_there_is_no_encoder(
    simulation: Simulation, reporter: Reporter
) -> None:
    bare = replace(simulation.log, interests=((),) * len(simulation.log.item_ids))
    assert train_item_encoder(bare, ByInterest(bare), ItemEncoderConfig(), 1, reporter) is None


def test_of_a_handful_of_items_nothing_is_learned(reporter: Reporter) -> None:
    log = EventLog.of(
        ["u"],
        ["a", "b", "c"],
        [(("x", 1.0),)] * 3,
        np.zeros(3, int),
        np.arange(3),
        np.full(3, 2),
        np.arange(3.0),
    )
    assert train_item_encoder(log, ByInterest(log), ItemEncoderConfig(), 1, reporter) is None
