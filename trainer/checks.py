"""What a run must pass before it is published: contracts, operators, recorded answers, speed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from google.protobuf import text_format
from torch import Tensor, nn
from tritonclient.grpc import model_config_pb2

import ebbing
from ebbing.history import LAYOUT_DIGEST, MODEL_TENSORS, TensorSpec
from ebbing.manifest import REQUIRED_MODELS
from trainer.export import SAMPLE_DTYPES, ExportError, difference, outputs_of
from trainer.latency import LatencyLimit, TooSlowError, measure
from trainer.precision import TOLERANCES, Precision, Tolerance
from trainer.runs import Run
from trainer.samples import restore


class UnfitError(Exception):
    """A run or a repository that may not be published; names the file and the remedy."""


def models_of(run: Run) -> list[str]:
    """The models a run has, in the order of the layout.

    Raises:
        UnfitError: it lacks one that every release has, or is of another layout.
    """
    where = run.folder / "run.json"
    declared = run.declared.get("layout_digest")
    if declared != LAYOUT_DIGEST:
        raise UnfitError(
            f"{where}: trained by Ebbing {run.declared.get('code_version')} for another input "
            f"layout ({str(declared)[:12]}; this code, {ebbing.__version__}, has "
            f"{LAYOUT_DIGEST[:12]}): train again with this version"
        )
    files = run.declared["files"]
    for name in [*(f"{model}/model.pt" for model in REQUIRED_MODELS), "forgetting.json"]:
        if name not in files:
            raise UnfitError(f"{where} declares no {name}: train again with this version")
    return run.models


def precision_of(run: Run) -> Precision:
    """What a run's models compute in.

    Raises:
        UnfitError: it names none that this code knows.
    """
    precision: Precision = (run.declared.get("parity") or {}).get("precision", "fp32")
    if precision not in TOLERANCES:
        raise UnfitError(
            f"{run.folder / 'run.json'}: models in {precision!r}, of which nothing is known here: "
            f"train again, in one of {', '.join(TOLERANCES)}"
        )
    return precision


def check_contract(path: Path, model: str) -> None:
    """Compare a config.pbtxt with the layout.

    Raises:
        UnfitError: it is missing, or does not say what the layout says.
    """
    config = model_config_pb2.ModelConfig()
    try:
        text_format.Parse(path.read_text(encoding="utf-8"), config)
    except FileNotFoundError:
        raise UnfitError(
            f"{path} is missing: {path.parent.parent} is no repository of Ebbing's models; name "
            "the one that holds their config.pbtxt with --repository"
        ) from None
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise UnfitError(f"{path} does not parse: {error}; restore it") from error
    if config.name != model or config.backend != "pytorch" or config.max_batch_size < 1:
        raise UnfitError(
            f"{path} declares model {config.name!r}, backend {config.backend!r} and "
            f"max_batch_size {config.max_batch_size}, but needs {model!r}, 'pytorch' and at "
            "least 1: restore it"
        )
    for kind, tensors, specs in zip(
        ("input", "output"), (config.input, config.output), MODEL_TENSORS[model], strict=True
    ):
        found = {
            tensor.name: (
                model_config_pb2.DataType.Name(tensor.data_type).removeprefix("TYPE_"),
                tuple(tensor.dims),
            )
            for tensor in tensors
        }
        wanted = {spec.name: (spec.dtype, spec.dims) for spec in specs}
        for name in sorted(found.keys() | wanted.keys()):
            if found.get(name) != wanted.get(name):
                raise UnfitError(
                    f"{path}: {kind} {name} is {_described(found.get(name))}, but the models are "
                    f"{_described(wanted.get(name))}: restore the file, or give the changed "
                    "model a name of its own"
                )


def check_model(
    run: Run, model: str, limit: LatencyLimit, clock: Callable[[], float]
) -> tuple[float, dict[str, Any]]:
    """Load a model file and ask it the recorded requests.

    Returns:
        The largest difference from the recorded answers, and what the calls took.

    Raises:
        UnfitError: its answers are not as declared and recorded, or come too late.
        RunError: it does not load, or does more than compute.
    """
    try:
        inputs, outputs = restore(model, run.declared["samples"][model])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UnfitError(
            f"{run.folder / 'run.json'}: no sample requests for {model}: train again"
        ) from error
    path = run.folder / model / "model.pt"
    module = run.model(model)
    tolerance = TOLERANCES[precision_of(run)]
    worst = max(
        _check_answers(path, module, MODEL_TENSORS[model][1], inputs, outputs, rows, tolerance)
        for rows in (len(inputs[0]), 1)
    )
    try:
        return worst, measure(module, MODEL_TENSORS[model][0], inputs, limit, clock)
    except TooSlowError as error:
        raise UnfitError(
            f"{path} {error}: train a smaller model, or allow more with --max-latency-ms"
        ) from error


def _check_answers(
    path: Path,
    module: nn.Module,
    specs: tuple[TensorSpec, ...],
    inputs: list[Tensor],
    expected: list[Tensor],
    rows: int,
    tolerance: Tolerance,
) -> float:
    """Ask some rows of the requests; returns the largest difference of an answer."""
    try:
        with torch.inference_mode():
            answers = outputs_of(module(*(tensor[:rows] for tensor in inputs)))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UnfitError(f"{path} fails on sample requests: {reason}; train again") from error
    if len(answers) != len(specs):
        raise UnfitError(
            f"{path} gives {len(answers)} outputs, config.pbtxt declares {len(specs)}: "
            "train again with this version"
        )
    worst = 0.0
    for answer, wanted, spec in zip(answers, expected, specs, strict=True):
        if not _fits(answer, spec, rows):
            raise UnfitError(
                f"{path}: output {spec.name} is {answer.dtype} {list(answer.shape)} for "
                f"{rows} requests, config.pbtxt declares {spec.dtype} {list(spec.dims)}: "
                "train again with this version"
            )
        try:
            worst = max(worst, difference(spec.name, wanted[:rows], answer, tolerance))
        except ExportError as error:
            raise UnfitError(f"{path}: not what training recorded: {error}; train again") from error
    return worst


def _fits(tensor: Tensor, spec: TensorSpec, rows: int) -> bool:
    shape = tuple(tensor.shape)
    return (
        tensor.dtype == SAMPLE_DTYPES[spec.dtype]
        and len(shape) == 1 + len(spec.dims)
        and shape[0] == rows
        and all(dim in (-1, size) for dim, size in zip(spec.dims, shape[1:], strict=True))
    )


def _described(tensor: tuple[str, tuple[int, ...]] | None) -> str:
    return f"{tensor[0]} {list(tensor[1])}" if tensor else "absent"
