"""What is published asks nothing of a runtime but libtorch and its config.pbtxt.

The official Triton's libtorch backend reads the configuration, loads ``model.pt`` and calls
``forward`` with the tensors in the order of the index that ends their name. This does the same in
a process that has torch and no line of Ebbing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from ebbing.history import MODEL_TENSORS
from tests.harness.release import TinyRelease

DTYPES = {"TYPE_INT64": "int64", "TYPE_INT32": "int32", "TYPE_FP32": "float32"}
"""The element types of these models, all of which libtorch's backend takes."""
ANY_SIZE = 17
"""What a dimension of any size is tried with."""

ALONE = """
import json, sys, torch
path, inputs = sys.argv[1], json.loads(sys.argv[2])
model = torch.jit.load(path)
tensors = [torch.zeros(shape, dtype=getattr(torch, dtype)) for dtype, shape in inputs]
outputs = model(*tensors)
outputs = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
assert not [name for name in sys.modules if name.split(".")[0] in ("ebbing", "trainer", "server")]
print(json.dumps([[str(o.dtype).removeprefix("torch."), list(o.shape)] for o in outputs]))
"""


def configuration(repository: Path, model: str) -> model_config_pb2.ModelConfig:
    text = (repository / model / "config.pbtxt").read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("model", list(MODEL_TENSORS))
def test_a_model_runs_by_its_configuration_alone(
    release: TinyRelease, tmp_path: Path, model: str, rows: int
) -> None:
    config = configuration(release.repository, model)
    assert config.backend == "pytorch"
    assert config.max_batch_size >= rows
    for tensors in (config.input, config.output):
        assert [int(t.name.rpartition("__")[2]) for t in tensors] == list(range(len(tensors)))
    inputs = [
        (
            DTYPES[model_config_pb2.DataType.Name(tensor.data_type)],
            [rows, *(ANY_SIZE if size == -1 else size for size in tensor.dims)],
        )
        for tensor in config.input
    ]
    path = next((release.repository / model).glob("[0-9]*/model.pt"))
    said = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, str(path), json.dumps(inputs)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    outputs = json.loads(said.stdout)
    assert len(outputs) == len(config.output)
    for (dtype, shape), tensor in zip(outputs, config.output, strict=True):
        assert dtype == DTYPES[model_config_pb2.DataType.Name(tensor.data_type)]
        assert len(shape) == 1 + len(tensor.dims)
        assert shape[0] == rows
        for size, declared in zip(shape[1:], tensor.dims, strict=True):
            assert declared in (-1, size)
