"""Every ranking model and the item encoder answer through a real tritonserver as they were made.

Each is published under a name of its own, so that other tests can have `ranking`.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
import torch
from torch import nn

from ebbing.history import MODEL_TENSORS, TensorSpec, item_key, item_keys
from server.inference.triton import TritonClient
from tests.harness.triton import RunningTriton
from trainer.data.log import EventLog
from trainer.data.simulate import SimulationConfig, simulate
from trainer.export import (
    PARITY_ATOL,
    TorchScriptExporter,
    item_samples,
    outputs_of,
    parity_samples,
)
from trainer.models.item_encoder import Description, ItemEncoder
from trainer.models.mlp import MlpConfig, MlpRanker
from trainer.models.ncf import NcfConfig, NcfRanker
from trainer.models.ranker import Ranker, RankerConfig
from trainer.models.vocabulary import Vocabulary

LOG = simulate(SimulationConfig(users=12, items=240, days=150)).log
KEYS = item_keys(LOG.item_ids)
VOCABULARY = Vocabulary(KEYS.tolist())
F = 6


def table() -> torch.Tensor:
    return torch.randn(VOCABULARY.size(), 16)


def encoder() -> ItemEncoder:
    paths = sorted({path for pairs in LOG.interests for path, _ in pairs})
    scale = {"image": (torch.randn(12), torch.rand(12) + 0.5)}
    description = Description([item_key(path) for path in paths], scale)
    return ItemEncoder(description, torch.randn(description.size(), 17))


MODELS = {
    "article_mlp": (
        "ranking",
        lambda: MlpRanker(VOCABULARY, table(), torch.zeros(F), torch.ones(F), MlpConfig()),
    ),
    "article_ncf": ("ranking", lambda: NcfRanker(VOCABULARY, NcfConfig())),
    "ranker": (
        "ranking",
        lambda: Ranker(
            VOCABULARY,
            table(),
            torch.randn(VOCABULARY.size()),
            torch.zeros(F),
            torch.ones(F),
            RankerConfig(),
        ),
    ),
    "item_encoder_alone": ("item_encoder", encoder),
}


def published(triton: RunningTriton, name: str) -> tuple[nn.Module, list[tuple[torch.Tensor, ...]]]:
    """The eager module and the requests to compare it on; its export lies in the repository."""
    contract, make = MODELS[name]
    torch.manual_seed(0)
    module = make().eval()
    folder = triton.repository / name
    (folder / "1").mkdir(parents=True, exist_ok=True)
    text = (triton.repository / contract / "config.pbtxt").read_text(encoding="utf-8")
    text = text.replace(f'name: "{contract}"', f'name: "{name}"').replace("count: 2", "count: 1")
    (folder / "config.pbtxt").write_text(text, encoding="utf-8")
    if contract == "item_encoder":
        samples = [*item_samples(pictured(), batches=2, batch=64), *item_samples(LOG, batches=1)]
    else:
        samples = parity_samples(MODEL_TENSORS[contract][0], KEYS, histories=128, batch=64)
    TorchScriptExporter().export(module, samples, folder / "1" / "model.pt")
    return module, samples


def pictured() -> EventLog:
    """The log with a content vector of two items out of three."""
    image = np.random.default_rng(0).normal(size=(len(LOG.item_ids), 12)).astype(np.float32)
    image[::3] = np.nan
    return replace(LOG, contents=MappingProxyType({"image": image}))


def named(specs: tuple[TensorSpec, ...], tensors: tuple[torch.Tensor, ...]) -> dict:
    return {spec.name: t.numpy() for spec, t in zip(specs, tensors, strict=True)}


@pytest.mark.parametrize("name", MODELS)
async def test_triton_answers_as_the_eager_model_does(triton: RunningTriton, name: str) -> None:
    module, samples = published(triton, name)
    inputs, outputs = MODEL_TENSORS[MODELS[name][0]]
    async with TritonClient(triton.grpc_address) as client:
        await client.load(name, [1], triton.repository)
        try:
            for asked in samples:
                with torch.inference_mode():
                    wanted = outputs_of(module(*asked))
                answered = await client.infer(name, 1, named(inputs, asked), 30.0)
                for spec, tensor in zip(outputs, wanted, strict=True):
                    np.testing.assert_allclose(
                        answered[spec.name], tensor.numpy(), atol=PARITY_ATOL, rtol=0
                    )
        finally:
            await client.unload(name)
