"""Real processes over gloo: what they compute together is what one computes alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ebbing.progress import Reporter
from tests.harness.workers import asked, do_everything, train_large, weights, whole_table
from tests.harness.workers_dying import die_at_once, fail_at_once
from tests.harness.workers_on_a_log import BY_ROWS, CONFIG, train_logs, weights_of
from trainer.data.log import read_log
from trainer.distributed import Group, WorkerError, declared, joined, launch
from trainer.models.sharded import Span
from trainer.retrieval import train_retrieval

ROOT = Path(__file__).parents[3]
TOLERANCE = 2e-6
"""Largest difference of a weight after four steps; sums are taken in another order."""

LOG_TOLERANCE = 1e-3
"""The same after two epochs of a log: AdamW divides by gradients however small."""


@pytest.fixture(scope="module", params=[2, 3])
def answers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[dict[str, Any]]]:
    """What each of so many processes found; torchrun starts two, and we three."""
    folder = tmp_path_factory.mktemp("group")
    if request.param == 2:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        program = ["--nproc-per-node", "2", "-m", "tests.harness.workers", str(folder)]
        subprocess.run([*torchrun, *program], cwd=ROOT, check=True, capture_output=True)
    else:
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


@pytest.fixture(scope="module")
def on_a_log(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("log")
    launch(2, train_logs, (str(data), str(folder)))
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def test_two_processes_train_on_a_log_what_one_does(
    on_a_log: list[dict[str, Any]], data: Path
) -> None:
    alone = weights_of(train_retrieval(read_log(data), CONFIG, 3, Reporter(quiet=True)))
    for together in on_a_log:
        assert together["whole"].keys() == alone.keys()
        for name, value in alone.items():
            torch.testing.assert_close(
                together["whole"][name],
                value,
                atol=LOG_TOLERANCE,
                rtol=0,
                msg=lambda m, n=name: n + m,
            )


def test_tables_trained_by_rows_over_processes_learn_as_in_one(
    on_a_log: list[dict[str, Any]], data: Path
) -> None:
    alone = weights_of(train_retrieval(read_log(data), BY_ROWS, 3, Reporter(quiet=True)))
    for together in on_a_log:
        assert together["rows"]["table"].shape == alone["table"].shape
        # Other negatives are drawn, so it is alike and not the same.
        spread = together["rows"]["table"].std() / alone["table"].std()
        assert spread == pytest.approx(1.0, abs=0.1)


def test_what_was_interrupted_goes_on_to_the_same_bits(on_a_log: list[dict[str, Any]]) -> None:
    for together in on_a_log:
        for name, value in together["rows"].items():
            assert torch.equal(together["resumed"][name], value), name


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
