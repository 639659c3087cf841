"""Models in 16 bits: what they answer, how far from the trained ones, and what is refused."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ebbing.history import MODEL_TENSORS, item_keys
from trainer.export import (
    ExportError,
    TorchScriptExporter,
    difference,
    load_exported,
    outputs_of,
    parity_samples,
)
from trainer.models.mlp import MlpConfig, MlpRanker
from trainer.models.sequence import RetrievalModel, SequenceConfig, SequenceModel
from trainer.models.vocabulary import Vocabulary
from trainer.precision import TOLERANCES, Precision

KEYS = item_keys([f"item-{n}" for n in range(400)])
REDUCED: tuple[Precision, ...] = ("bf16", "fp16")


@pytest.fixture(scope="module")
def modules() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    vocabulary = Vocabulary(KEYS.tolist())
    model = SequenceModel([(("a/b", 0.5), ("c", 0.5))] * len(KEYS), SequenceConfig())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    ranker = MlpRanker(
        vocabulary, torch.randn(len(KEYS) + 2, 64), torch.zeros(6), torch.ones(6), MlpConfig()
    )
    large = RetrievalModel(vocabulary, model)
    large.best.direct_up_to = 10  # as a large catalogue is searched
    modules = {"retrieval": RetrievalModel(vocabulary, model), "ranking": ranker, "large": large}
    return {name: module.eval() for name, module in modules.items()}


@pytest.mark.parametrize("precision", REDUCED)
@pytest.mark.parametrize("name", ["retrieval", "ranking", "large"])
def test_answers_stay_within_the_stated_tolerance(
    modules: dict[str, nn.Module], tmp_path: Path, name: str, precision: Precision
) -> None:
    specs, outputs = MODEL_TENSORS.get(name, MODEL_TENSORS["retrieval"])
    samples = parity_samples(specs, KEYS)
    path = tmp_path / "model.pt"
    worst = TorchScriptExporter(precision).export(modules[name], samples, path)
    # As far as that goes it is another model, and not by rounding of 32 bits alone.
    assert 1e-5 < worst <= TOLERANCES[precision].largest
    exported = load_exported(path)
    for answer, spec in zip(outputs_of(exported(*samples[0])), outputs, strict=True):
        assert answer.dtype == {"FP32": torch.float32}.get(spec.dtype, answer.dtype)
    alone = outputs_of(exported(*(tensor[:1] for tensor in samples[0])))
    for one, many in zip(alone, outputs_of(exported(*samples[0])), strict=True):
        difference("one of many", many[:1], one, TOLERANCES[precision])


@pytest.mark.parametrize("precision", REDUCED)
def test_multiplying_takes_16_bits_and_so_do_the_weights(
    modules: dict[str, nn.Module], tmp_path: Path, precision: Precision
) -> None:
    samples = parity_samples(MODEL_TENSORS["ranking"][0], KEYS)
    sizes = {}
    for each in ("fp32", precision):
        path = tmp_path / f"{each}.pt"
        TorchScriptExporter(each).export(modules["ranking"], samples, path)
        with zipfile.ZipFile(path) as archive:
            weights = [e for e in archive.infolist() if "/constants/" in e.filename]
        sizes[each] = sum(entry.file_size for entry in weights)
    table = modules["ranking"].table.nbytes
    assert sizes[precision] - table < 0.6 * (sizes["fp32"] - table)
    code = load_exported(path).code
    assert "_autocast_to_reduced_precision" in code


def test_methods_beside_forward_are_reduced_too(
    modules: dict[str, nn.Module], tmp_path: Path
) -> None:
    samples = parity_samples(MODEL_TENSORS["retrieval"][0], KEYS)
    path = tmp_path / "model.pt"
    TorchScriptExporter("bf16").export(modules["retrieval"], samples, path)
    exported = load_exported(path)
    with torch.no_grad():
        wanted, scores = (m.scores(*samples[0]) for m in (modules["retrieval"], exported))
    assert scores.dtype == torch.float32
    difference("scores", wanted, scores, TOLERANCES["bf16"])
    assert torch.equal(exported.catalogue(), modules["retrieval"].catalogue())


def test_what_16_bits_cannot_hold_is_refused(tmp_path: Path) -> None:
    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 1, bias=False)
            nn.init.constant_(self.layer.weight, 1e6)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)

    sample = [(torch.ones(1, 1),)]
    with pytest.raises(ExportError, match="NaN or infinity"):
        TorchScriptExporter("fp16").export(Large(), sample, tmp_path / "model.pt")
    assert TorchScriptExporter("bf16").export(Large(), sample, tmp_path / "model.pt") < 0.01


def test_tolerances_are_shares_of_the_largest_value_or_of_what_is_missing() -> None:
    fine = TOLERANCES["bf16"]
    assert difference("x", torch.tensor([10.0, 1.0]), torch.tensor([10.4, 1.0]), fine) == (
        pytest.approx(0.04)
    )
    with pytest.raises(ExportError, match=r"x differs by 0\.06 of its largest value"):
        difference("x", torch.tensor([10.0, 1.0]), torch.tensor([10.0, 1.6]), fine)
    rows = torch.arange(20).view(1, 20)
    assert difference("x", rows, rows.flip(1), fine) == 0.0
    with pytest.raises(ExportError, match=r"x: 15\.0% of the integers are missing"):
        difference("x", rows, rows + 3, fine)


def test_nothing_of_autocast_is_left_behind(modules: dict[str, nn.Module], tmp_path: Path) -> None:
    samples = parity_samples(MODEL_TENSORS["ranking"][0], KEYS)
    TorchScriptExporter("bf16").export(modules["ranking"], samples, tmp_path / "model.pt")
    assert not torch.is_autocast_enabled("cpu")
    assert not torch.is_autocast_enabled("cuda")
