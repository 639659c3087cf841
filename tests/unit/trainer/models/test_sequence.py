from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ebbing.history import HISTORY_LENGTH
from trainer.export import TorchScriptExporter, load_exported
from trainer.models.sequence import RetrievalModel, SequenceConfig, SequenceModel
from trainer.models.vocabulary import Vocabulary

DAY_S = 86_400.0
N = 20


@pytest.fixture
def model() -> SequenceModel:
    torch.manual_seed(0)
    made = SequenceModel([(("a/b", 1.0),)] * N, SequenceConfig(dim=16))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made.eval()


@pytest.fixture
def served(model: SequenceModel) -> RetrievalModel:
    return RetrievalModel(Vocabulary(range(100, 100 + N)), model).eval()


def history(
    keys: list[int], ages: list[float], kind: int = 1
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    encoded = (
        torch.zeros(1, HISTORY_LENGTH, dtype=torch.int64),
        torch.zeros(1, HISTORY_LENGTH),
        torch.zeros(1, HISTORY_LENGTH, dtype=torch.int32),
    )
    if keys:
        encoded[0][0, -len(keys) :] = torch.tensor(keys)
        encoded[1][0, -len(keys) :] = torch.tensor(ages)
        encoded[2][0, -len(keys) :] = kind
    return encoded


def test_outputs_are_those_of_the_contract(served: RetrievalModel) -> None:
    keys, scores, user, unknown = served(*history([101, 102, 7], [3.0, 2.0, 1.0]))
    assert keys.shape == scores.shape == (1, N)
    assert sorted(keys[0].tolist()) == list(range(100, 100 + N))
    assert (scores[0, :-1] >= scores[0, 1:]).all()
    assert user.shape == (1, 16)
    assert unknown.tolist() == [[1]]
    assert unknown.dtype == torch.int32


def test_what_is_exported_scores_the_whole_catalogue(
    served: RetrievalModel, tmp_path: Path
) -> None:
    asked = history([101, 102, 7], [3.0, 2.0, 1.0])
    TorchScriptExporter().export(served, [asked], tmp_path / "model.pt")
    exported = load_exported(tmp_path / "model.pt")
    scores = exported.scores(*asked)
    keys, best, *_ = exported(*asked)
    assert scores.shape == (1, N)
    assert scores.dtype == torch.float32
    # The order is that of the sorted keys.
    torch.testing.assert_close(scores[0, keys[0] - 100], best[0])
    assert exported.catalogue().tolist() == list(range(100, 100 + N))
    torch.testing.assert_close(exported.vectors(), served.table[2:])


@pytest.mark.parametrize("kind", [1, 31, 99, -4])
def test_empty_and_unknown_histories_have_finite_scores(served: RetrievalModel, kind: int) -> None:
    for keys in ([], [7] * HISTORY_LENGTH):
        _, scores, user, unknown = served(*history(keys, [1e9] * len(keys), kind))
        assert scores.isfinite().all()
        assert user.isfinite().all()
        assert unknown.item() == len(keys)


def test_training_and_serving_read_a_history_alike(
    model: SequenceModel, served: RetrievalModel
) -> None:
    rows = torch.tensor([[0, 5, 9, 3, 12]])
    types = torch.tensor([[0, 1, 2, 5, 1]])
    times = torch.tensor([[0.0, 0.0, 2.0, 9.0, 30.0, 44.0]]) * DAY_S
    trained = model(model.items(), rows, types, times)
    for n in range(5):
        keys = [98 + row for row in rows[0, 1 : n + 1].tolist()]
        ages = (times[0, n + 1] - times[0, 1 : n + 1]).tolist()
        asked = history(keys, ages)
        if n:
            asked[2][0, -n:] = types[0, 1 : n + 1].to(torch.int32)
        torch.testing.assert_close(served(*asked)[2][0], trained[0, n], atol=1e-5, rtol=1e-5)


def test_no_event_sees_what_comes_after_it(model: SequenceModel) -> None:
    rows = torch.tensor([[0, 5, 9, 3]])
    types = torch.ones_like(rows)
    times = torch.arange(5.0)[None] * DAY_S
    before = model(model.items(), rows, types, times)
    rows[0, 3] = 15
    after = model(model.items(), rows, types, times)
    torch.testing.assert_close(before[0, :3], after[0, :3])
    assert not torch.allclose(before[0, 3], after[0, 3])


def test_what_is_long_past_weighs_less(served: RetrievalModel) -> None:
    def moved(age: float) -> float:
        one, two = (served(*history([key, 103], [age, 0.0]))[2] for key in (101, 110))
        return float((one - two).norm().detach())

    assert moved(1000 * DAY_S) < moved(DAY_S)
