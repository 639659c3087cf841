"""The large model at a thousandth of its items: it trains, exports and serves as any other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ebbing.history import MODEL_TENSORS, item_keys
from trainer.export import PARITY_ATOL, TorchScriptExporter, load_exported, parity_samples
from trainer.large import LargeObjective, Negatives, Steps
from trainer.models.large import LargeSequenceModel
from trainer.models.sequence import RetrievalModel
from trainer.models.vocabulary import FIRST_ITEM_ROW, Vocabulary
from trainer.plan import LargeShape

SHAPE = LargeShape().scaled(1000)
USED = 300
"""Items that histories go through, one after the other; the others are there to be told from."""

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def batch(seed: int, sequences: int = 24, length: int = 16) -> Batch:
    chance = torch.Generator().manual_seed(seed)
    first = torch.randint(USED, (sequences, 1), generator=chance)
    targets = (first + torch.arange(length)) % USED + FIRST_ITEM_ROW
    rows = torch.cat([torch.zeros_like(first), targets[:, :-1]], dim=1)
    times = torch.arange(length + 1.0).expand(sequences, -1) * 3600
    return rows, torch.ones_like(rows), times, targets


@pytest.fixture(scope="module")
def trained() -> tuple[LargeSequenceModel, list[float]]:
    torch.manual_seed(0)
    model = LargeSequenceModel(SHAPE.items, SHAPE.config)
    logged = torch.randint(USED, (5_000,)) + FIRST_ITEM_ROW
    objective = LargeObjective(model, Negatives(logged, SHAPE.items, SHAPE.negatives), 0.01)
    steps = Steps(objective, 3e-3)
    losses = [float(steps(*batch(seed)).mean()) for seed in range(40)]
    return model.eval(), losses


def test_its_loss_falls(trained: tuple[LargeSequenceModel, list[float]]) -> None:
    losses = trained[1]
    assert losses[0] == pytest.approx(torch.log(torch.tensor(SHAPE.items)).item(), abs=1.0)
    assert sum(losses[-5:]) / 5 < 0.5 * losses[0]


def test_it_touches_only_rows_of_its_batches(
    trained: tuple[LargeSequenceModel, list[float]],
) -> None:
    torch.manual_seed(0)
    start = LargeSequenceModel(SHAPE.items, SHAPE.config).items()
    moved = (trained[0].items() != start).any(dim=1)
    assert moved[FIRST_ITEM_ROW : FIRST_ITEM_ROW + USED].all()
    # 40 steps draw some 10,000 items anywhere, a third of them for the first time.
    assert 0.3 < moved.float().mean() < 0.75


def test_it_exports_and_serves(
    trained: tuple[LargeSequenceModel, list[float]], tmp_path: Path
) -> None:
    keys = item_keys([f"item-{n}" for n in range(SHAPE.items)])
    served = RetrievalModel(Vocabulary(keys.tolist()), trained[0]).eval()
    samples = parity_samples(MODEL_TENSORS["retrieval"][0], keys, histories=8, batch=4)
    path = tmp_path / "model.pt"
    assert TorchScriptExporter().export(served, samples, path) <= PARITY_ATOL
    exported = load_exported(path)

    rows, types, _, targets = batch(99, 1, 16)
    history = [
        torch.zeros(1, 50, dtype=torch.int64),
        torch.zeros(1, 50),
        torch.zeros(1, 50, dtype=torch.int32),
    ]
    history[0][0, -15:] = served.vocabulary.keys[rows[0, 1:] - FIRST_ITEM_ROW]
    history[1][0, -15:] = torch.arange(15.0, 0.0, -1.0) * 3600
    history[2][0, -15:] = types[0, 1:].int()
    wanted = served.vocabulary.keys[targets[0, -1] - FIRST_ITEM_ROW]
    assert wanted in exported(*history)[0][0, :5]


def test_a_draw_is_expected_as_it_says() -> None:
    torch.manual_seed(0)
    rows = torch.tensor([2, 2, 2, 3, 4, 4])
    negatives = Negatives(rows, 5, 60_000)
    drawn = torch.bincount(negatives.draw(), minlength=7)[2:].float()
    expected = negatives.log_expected(torch.arange(2, 7)).exp()
    assert expected.sum() == pytest.approx(60_000)
    torch.testing.assert_close(drawn, expected, rtol=0.05, atol=0)


def test_its_loss_estimates_that_of_the_whole_catalogue() -> None:
    torch.manual_seed(0)
    model = LargeSequenceModel(50, LargeShape(dim=16, heads=2).config).eval()
    torch.nn.init.normal_(model.items.weight, std=0.3)
    logged = torch.randint(20, (400,)) + FIRST_ITEM_ROW
    few, many = (LargeObjective(model, Negatives(logged, 50, n), 0.0).eval() for n in (20, 200_000))
    rows, types, times, targets = (
        part % 50 if part.dtype == torch.int64 else part for part in batch(1, 2, 5)
    )
    targets = targets.clamp(min=FIRST_ITEM_ROW)
    with torch.no_grad():
        users = model(model.items(), rows, types, times).flatten(0, 1)
        scores = users @ model.items()[FIRST_ITEM_ROW:].T
        whole = torch.nn.functional.cross_entropy(
            scores, targets.flatten() - FIRST_ITEM_ROW, reduction="none"
        )
        torch.testing.assert_close(many(rows, types, times, targets), whole, atol=0.05, rtol=0)
        assert few(rows, types, times, targets).mean() == pytest.approx(whole.mean(), abs=0.5)
