"""Eager model = TorchScript model, on a thousand random histories and the hard ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ebbing.history import HISTORY_LENGTH, MODEL_TENSORS, TensorSpec, encode_history, item_keys
from trainer.export import PARITY_ATOL, TorchScriptExporter, load_exported, parity, parity_samples
from trainer.models.mlp import MlpConfig, MlpRanker
from trainer.models.ncf import NcfConfig, NcfRanker
from trainer.models.ranker import Ranker, RankerConfig
from trainer.models.sequence import RetrievalModel, SequenceConfig, SequenceModel
from trainer.models.vocabulary import Vocabulary

KEYS = item_keys([f"item-{n}" for n in range(400)])
MODELS = ("retrieval", "ranking", "ranking by ncf", "ranking by ranker")


def inputs_of(name: str) -> tuple[TensorSpec, ...]:
    """The inputs of a model by the first word of its name here."""
    return MODEL_TENSORS[name.partition(" ")[0]][0]


@pytest.fixture(scope="module")
def modules() -> dict[str, nn.Module]:
    """All models, with weights large enough for differences to show."""
    torch.manual_seed(0)
    vocabulary = Vocabulary(KEYS.tolist())
    model = SequenceModel([(("a/b", 0.5), ("c", 0.5))] * len(KEYS), SequenceConfig())
    ranker = MlpRanker(
        vocabulary, torch.randn(len(KEYS) + 2, 64), torch.zeros(6), torch.ones(6), MlpConfig()
    )
    table, popularity = torch.randn(len(KEYS) + 2, 64), torch.randn(len(KEYS) + 2)
    rankers = {
        "ranking": ranker,
        "ranking by ncf": NcfRanker(vocabulary, NcfConfig()),
        "ranking by ranker": Ranker(
            vocabulary, table, popularity, torch.zeros(6), torch.ones(6), RankerConfig()
        ),
    }
    with torch.no_grad():
        for module in (model, rankers["ranking by ncf"], rankers["ranking by ranker"]):
            for parameter in module.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    modules = {"retrieval": RetrievalModel(vocabulary, model), **rankers}
    return {name: module.eval() for name, module in modules.items()}


@pytest.fixture(scope="module")
def exported(
    modules: dict[str, nn.Module], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, nn.Module]:
    folder = tmp_path_factory.mktemp("exported")
    for name, module in modules.items():
        samples = parity_samples(inputs_of(name), KEYS)
        TorchScriptExporter().export(module, samples, folder / f"{name}.pt")
    return {name: load_exported(folder / f"{name}.pt") for name in modules}


@pytest.mark.parametrize("name", MODELS)
def test_random_histories(
    name: str, modules: dict[str, nn.Module], exported: dict[str, nn.Module]
) -> None:
    # Each batch holds an empty history and one of unknown items alone.
    samples = parity_samples(inputs_of(name), KEYS, histories=1024, batch=64)
    assert sum(len(inputs[0]) for inputs in samples) >= 1000
    assert parity(modules[name], exported[name], samples) <= PARITY_ATOL


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("n", "known"), [(0, True), (7, False), (500, True), (500, False)])
def test_hard_histories(
    name: str, n: int, known: bool, modules: dict[str, nn.Module], exported: dict[str, nn.Module]
) -> None:
    keys = KEYS[np.arange(n) % len(KEYS)] if known else np.arange(1, n + 1)
    history = encode_history(keys, np.arange(n) * 3600.0, np.ones(n, np.int32), 1e9)
    inputs = [torch.from_numpy(part)[None] for part in history]
    assert inputs[0].shape == (1, HISTORY_LENGTH)
    if name.startswith("ranking"):
        inputs += [torch.tensor([[int(KEYS[0]), 5]]), torch.zeros(1, 2, 6)]
    assert parity(modules[name], exported[name], [tuple(inputs)]) <= PARITY_ATOL


def test_the_batch_a_request_is_in_does_not_matter(exported: dict[str, nn.Module]) -> None:
    (inputs,) = parity_samples(MODEL_TENSORS["retrieval"][0], KEYS, histories=64, batch=64)
    together = exported["retrieval"](*inputs)[1]
    for row in range(0, 64, 9):
        alone = exported["retrieval"](*(part[row : row + 1] for part in inputs))[1]
        torch.testing.assert_close(alone[0], together[row], atol=PARITY_ATOL, rtol=0)
