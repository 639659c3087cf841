from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from trainer.data.log import EventLog
from trainer.data.sequences import Sequences
from trainer.models.sequence import SequenceConfig, SequenceModel
from trainer.validation import Held, validation_split

CPU = torch.device("cpu")


def log_of(histories: list[list[int]], items: int) -> EventLog:
    users = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    taken = np.concatenate(histories)
    return EventLog.of(
        [str(u) for u in range(len(histories))], [str(i) for i in range(items)], [()] * items,
        users, taken, np.ones(len(taken), np.int32), np.arange(len(taken), dtype=float),
    )  # fmt: skip


def popular_first(items: int) -> SequenceModel:
    """A model that prefers lower item numbers, whoever asks."""
    model = SequenceModel([()] * items, SequenceConfig(dim=8))
    with torch.no_grad():
        for weights in model.items.parameters():
            weights.zero_()
        model.popularity.copy_(-torch.arange(items + 2.0))
    return model


def test_the_split_takes_last_events_of_users_who_can_spare_them() -> None:
    log = log_of([[0, 1, 2]] * 30 + [[3, 4]] * 30, 5)
    rest, chosen = validation_split(log, 100, np.random.default_rng(0))
    assert len(chosen) == 3
    assert chosen.max() < 30
    assert len(rest) == len(log) - 3
    assert (np.diff(rest.offsets)[chosen] == 2).all()
    assert len(validation_split(log, 2, np.random.default_rng(0))[1]) == 2


def test_what_was_trained_on_before_is_not_split_off() -> None:
    log = log_of([[0, 1, 2]] * 30, 5)
    known = np.zeros(len(log), bool)
    known[log.last_events()[10:]] = True
    _, chosen = validation_split(log, 100, np.random.default_rng(0), known)
    assert len(chosen) == 1
    assert chosen.max() < 10
    known[:] = True
    assert not len(validation_split(log, 100, np.random.default_rng(0), known)[1])


def test_places_count_what_the_user_does_not_have() -> None:
    # Items 0 and 1 stand before 2, but one of them is in the history: 2 is second.
    log = log_of([[1, 5, 2]], 40)
    held = Held(Sequences(log, log.items + 2), np.array([0]), 42)
    found = held.measure(popular_first(40), CPU)
    assert found.hit_rate_at_10 == 1.0
    assert found.ndcg_at_10 == pytest.approx(1 / math.log2(3))
    log = log_of([[1, 5, 30]], 40)
    held = Held(Sequences(log, log.items + 2), np.array([0]), 42)
    assert held.measure(popular_first(40), CPU).hit_rate_at_10 == 0.0


def test_an_item_taken_again_is_ranked_all_the_same() -> None:
    log = log_of([[0, 5, 0]], 40)
    held = Held(Sequences(log, log.items + 2), np.array([0]), 42)
    assert held.measure(popular_first(40), CPU).ndcg_at_10 == 1.0


def test_groups_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_of([[1, 5, 2], [3, 4, 9, 0], [7, 8, 11]], 40)
    model, sequences, users = popular_first(40), Sequences(log, log.items + 2), np.arange(3)
    whole = Held(sequences, users, 42).measure(model, CPU)
    monkeypatch.setattr("trainer.validation.SCORED_AT_ONCE", 42)
    split = Held(sequences, users, 42)
    assert len(split.groups) == 3
    assert split.measure(model, CPU) == whole
    assert model.training


def test_without_users_there_is_nothing_to_tell() -> None:
    log = log_of([[1, 5, 2]], 40)
    held = Held(Sequences(log, log.items + 2), np.array([], np.int64), 42)
    assert math.isnan(held.measure(popular_first(40), CPU).ndcg_at_10)
