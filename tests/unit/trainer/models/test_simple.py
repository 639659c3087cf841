from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ebbing.history import HISTORY_LENGTH
from trainer.export import TorchScriptExporter, load_exported
from trainer.models.simple import DecayModel, PopularModel
from trainer.models.vocabulary import Vocabulary

DAY_S = 86_400.0
N = 6
POPULARITY = torch.tensor([0.0, 0.0, 0.3, 0.2, 0.2, 0.1, 0.1, 0.1])
TABLE = torch.arange(16.0).view(8, 2)


def history(keys: list[int], ages: list[float]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    encoded = (
        torch.zeros(1, HISTORY_LENGTH, dtype=torch.int64),
        torch.zeros(1, HISTORY_LENGTH),
        torch.zeros(1, HISTORY_LENGTH, dtype=torch.int32),
    )
    if keys:
        encoded[0][0, -len(keys) :] = torch.tensor(keys)
        encoded[1][0, -len(keys) :] = torch.tensor(ages)
        encoded[2][0, -len(keys) :] = 1
    return encoded


@pytest.fixture
def popular() -> PopularModel:
    return PopularModel(Vocabulary(range(100, 100 + N)), TABLE, POPULARITY).eval()


@pytest.fixture
def decay() -> DecayModel:
    # Items 0 … 2 are of interest 0, the others of interest 1.
    columns = torch.tensor([[0], [0], [0], [0], [0], [1], [1], [1]])
    shares = torch.tensor([[0.0], [0.0], *[[1.0]] * N])
    within = torch.tensor([0.0, 0.0, 3 / 7, 2 / 7, 2 / 7, 1 / 3, 1 / 3, 1 / 3])[:, None]
    return DecayModel(
        Vocabulary(range(100, 100 + N)), TABLE, POPULARITY, columns, shares, within,
        half_life_s=DAY_S, own=0.2, interest=0.6,
    ).eval()  # fmt: skip


def test_everybody_gets_what_is_popular(popular: PopularModel) -> None:
    for keys in ([], [103], [7]):
        found, scores, user, unknown = popular(*history(keys, [DAY_S] * len(keys)))
        assert found.tolist() == [[100, 101, 102, 103, 104, 105]]
        assert (scores[0, :-1] >= scores[0, 1:]).all()
        assert user.shape == (1, 2)
        assert unknown.tolist() == [[int(keys == [7])]]


def test_own_items_come_first_then_those_of_the_same_interest(decay: DecayModel) -> None:
    found = decay(*history([104], [DAY_S]))[0]
    assert found.tolist() == [[104, 103, 105, 100, 101, 102]]


def test_shares_are_those_of_the_formula(decay: DecayModel) -> None:
    # One event a half-life after the other: two thirds and one third of the counts.
    scores = decay.scores(*history([103, 100], [3 * DAY_S, 2 * DAY_S])).exp()[0]
    assert scores[0] == pytest.approx(0.2 * 2 / 3 + 0.6 * 2 / 3 * 3 / 7 + 0.2 * 0.3)
    assert scores[3] == pytest.approx(0.2 * 1 / 3 + 0.6 * 1 / 3 * 1 / 3 + 0.2 * 0.1)
    assert scores[5] == pytest.approx(0.6 * 1 / 3 * 1 / 3 + 0.2 * 0.1)
    assert scores.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("keys", [[], [7], [0]])
def test_without_a_known_event_popularity_is_all_there_is(
    decay: DecayModel, keys: list[int]
) -> None:
    scores = decay.scores(*history(keys, [1e12] * len(keys))).exp()[0]
    torch.testing.assert_close(scores, 0.2 * POPULARITY[2:])


def test_a_long_silence_forgets_in_proportion(decay: DecayModel) -> None:
    ages = torch.tensor([3.0, 2.0]) * DAY_S
    now, later = (
        decay.scores(*history([103, 100], (ages + gone).tolist())) for gone in (0.0, 4000 * DAY_S)
    )
    torch.testing.assert_close(now, later)


def test_both_are_exported_with_their_scores(
    popular: PopularModel, decay: DecayModel, tmp_path: Path
) -> None:
    asked = history([103, 7, 100], [3 * DAY_S, 2 * DAY_S, 0.0])
    for model in (popular, decay):
        TorchScriptExporter().export(model, [asked], tmp_path / "model.pt")
        exported = load_exported(tmp_path / "model.pt")
        torch.testing.assert_close(exported.scores(*asked), model.scores(*asked))
        assert exported.catalogue().tolist() == list(range(100, 100 + N))
        torch.testing.assert_close(exported.vectors(), TABLE[2:])
