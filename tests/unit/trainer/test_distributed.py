"""Real processes over gloo: what they compute together is what one computes alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.harness.workers import (
    asked,
    die_at_once,
    do_everything,
    fail_at_once,
    train_large,
    weights,
    whole_table,
)
from trainer.distributed import Group, WorkerError, declared, joined, launch
from trainer.models.sharded import Span

TOLERANCE = 2e-6
"""Largest difference of a weight after four steps; sums are taken in another order."""


@pytest.fixture(scope="module", params=[2, 3])
def answers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[dict[str, Any]]]:
    """What each of so many processes found."""
    folder = tmp_path_factory.mktemp("group")
    launch(request.param, do_everything, (str(folder),))
    yield [torch.load(folder / f"{rank}.pt") for rank in range(request.param)]


@pytest.fixture
def embedding(answers: list[dict[str, Any]]) -> nn.Embedding:
    """The same table in one piece, with the averaged gradient of what all processes asked."""
    whole = nn.Embedding.from_pretrained(whole_table(), freeze=False)
    for rank in range(len(answers)):
        (whole(asked(rank)) * weights(rank)).sum().div(len(answers)).backward()
    return whole


def test_a_sharded_table_looks_up_as_one_in_a_piece(answers: list[dict[str, Any]]) -> None:
    for rank, answer in enumerate(answers):
        assert torch.equal(answer["vectors"], whole_table()[asked(rank)])


def test_its_gradients_come_home(answers: list[dict[str, Any]], embedding: nn.Embedding) -> None:
    for answer in answers:
        torch.testing.assert_close(answer["gradient"], embedding.weight.grad)


def test_its_optimizer_state_lies_with_the_rows(
    answers: list[dict[str, Any]], embedding: nn.Embedding
) -> None:
    gradient = embedding.weight.grad
    assert gradient is not None
    rate = 0.1 / (gradient.square().mean(dim=1, keepdim=True).sqrt() + 1e-8)
    stepped = whole_table() - rate * gradient
    assert sum(answer["state_rows"] for answer in answers) == len(stepped)
    for answer in answers:
        torch.testing.assert_close(answer["stepped"], stepped)


def test_training_together_is_training_alone(answers: list[dict[str, Any]]) -> None:
    alone = train_large(0, 1)
    for answer in answers:
        assert answer["large"].keys() == alone.keys()
        for name, value in alone.items():
            torch.testing.assert_close(
                answer["large"][name], value, atol=TOLERANCE, rtol=0, msg=lambda m, n=name: n + m
            )


def test_sums_are_of_everybody(answers: list[dict[str, Any]]) -> None:
    count = len(answers)
    for answer in answers:
        assert answer["total"].item() == count * (count + 1) / 2


@pytest.mark.parametrize("rows", [1, 2, 7, 23, 24])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_spans_hold_every_row_once(rows: int, count: int) -> None:
    spans = [Span.of(rows, rank, count) for rank in range(count)]
    held = [row for span in spans for row in range(span.first, span.first + span.size)]
    assert held == list(range(rows))


def test_users_of_a_batch_are_shared_out() -> None:
    users = np.arange(7)
    parts = [Group(rank, 3).part(users) for rank in range(3)]
    assert sorted(np.concatenate(parts).tolist()) == users.tolist()
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_killed_process_ends_all_and_is_named(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"process 1 of 2 was killed \(SIGKILL\).*out of memory"):
        launch(2, die_at_once, (str(tmp_path),))
    assert (tmp_path / "joined").exists()


def test_what_fails_in_one_process_is_told() -> None:
    with pytest.raises(WorkerError, match="ended early: ValueError: the disk is full"):
        launch(2, fail_at_once, ("the disk is full",))


def test_a_process_that_nobody_started_as_one_of_several() -> None:
    assert not declared({})
    assert not declared({"WORLD_SIZE": "1"})
    assert declared({"WORLD_SIZE": "2"})
    with pytest.raises(WorkerError, match="start with torchrun"), joined({}, "cpu"):
        pass


def test_more_processes_than_gpus() -> None:
    there = {"RANK": "0", "WORLD_SIZE": "99", "LOCAL_RANK": "98"}
    with pytest.raises(WorkerError, match="has no GPU"), joined(there, "cuda"):
        pass
