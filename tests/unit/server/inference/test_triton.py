"""The client to Triton without a Triton: what it writes, what it reads, what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from ebbing.history import MODEL_TENSORS, TensorSpec
from server.inference.errors import InferenceFailed, ModelLoadError, TritonUnavailable
from server.inference.triton import (
    DTYPES,
    TritonClient,
    check_contract,
    decode_response,
    encode_request,
    probe,
    read_contract,
)

REPOSITORY = Path(__file__).parents[4] / "triton_repo"
NOBODY = "127.0.0.1:1"
"""An address where nothing listens."""


def respond(**tensors: NDArray[Any]) -> Any:
    """The response of a Triton that answers with these tensors."""
    response = service_pb2.ModelInferResponse()
    names = {dtype: name for name, dtype in DTYPES.items()}
    for name, tensor in tensors.items():
        response.outputs.add(name=name, datatype=names[tensor.dtype], shape=tensor.shape)
        response.raw_output_contents.append(tensor.tobytes())
    return response


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one model whose contract is small."""
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "config.pbtxt").write_text(
        """
        name: "toy" backend: "pytorch" max_batch_size: 8
        input [ { name: "A__0" data_type: TYPE_INT64 dims: [ 4 ] },
                { name: "B__1" data_type: TYPE_FP32 dims: [ -1, 2 ] } ]
        output [ { name: "C__0" data_type: TYPE_FP32 dims: [ -1 ] } ]
        instance_group [ { count: 3 } ]
        """
    )
    return tmp_path


INPUTS = (TensorSpec("A__0", "INT64", (4,)), TensorSpec("B__1", "FP32", (-1, 2)))
OUTPUTS = (TensorSpec("C__0", "FP32", (-1,)),)


@pytest.mark.parametrize("model", sorted(MODEL_TENSORS))
def test_the_committed_contract_is_the_layout_of_the_code(model: str) -> None:
    contract = check_contract(REPOSITORY, model, *MODEL_TENSORS[model])
    assert contract.max_batch_size == 64
    # Items are encoded now and then, slates made all the time.
    assert contract.instances == (1 if model == "item_encoder" else 2)


@pytest.mark.parametrize("model", sorted(MODEL_TENSORS))
def test_the_committed_contract_sets_no_queue_policy(model: str) -> None:
    text = (REPOSITORY / model / "config.pbtxt").read_text()
    assert "default_queue_policy" not in text
    assert 'backend: "pytorch"' in text


def test_a_contract_is_read(repository: Path) -> None:
    contract = read_contract(repository, "toy")
    assert (contract.inputs, contract.outputs) == (INPUTS, OUTPUTS)
    assert (contract.max_batch_size, contract.instances) == (8, 3)


@pytest.mark.parametrize(
    ("inputs", "outputs", "named"),
    [
        (INPUTS[:1], OUTPUTS, "input 1 is B__1 FP32 [-1, 2] and should be absent"),
        ((*INPUTS, *OUTPUTS), OUTPUTS, "input 2 is absent and should be C__0 FP32 [-1]"),
        (INPUTS[::-1], OUTPUTS, "input 0 is A__0 INT64 [4] and should be B__1"),
        (INPUTS, (TensorSpec("C__0", "FP16", (-1,)),), "output 0 is C__0 FP32 [-1]"),
        (INPUTS, (TensorSpec("C__0", "FP32", (2,)),), "should be C__0 FP32 [2]"),
    ],
)
def test_a_contract_that_disagrees_is_named(
    repository: Path,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    named: str,
) -> None:
    with pytest.raises(ModelLoadError) as caught:
        check_contract(repository, "toy", inputs, outputs)
    assert named in str(caught.value)
    assert str(repository / "toy" / "config.pbtxt") in str(caught.value)


@pytest.mark.parametrize("content", [None, b"input [ {", b"\xff\xfe", b'colour: "red"'])
def test_an_unusable_configuration_is_named(tmp_path: Path, content: bytes | None) -> None:
    (tmp_path / "toy").mkdir()
    path = tmp_path / "toy" / "config.pbtxt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelLoadError, match=r"config\.pbtxt.*restore"):
        read_contract(tmp_path, "toy")


def test_a_request_carries_the_bytes_as_they_lie() -> None:
    keys = np.arange(8, dtype=np.int64).reshape(2, 4)
    request = encode_request("toy", 7, {"A__0": keys, "B__1": keys.T.astype(np.float32).T})
    assert (request.model_name, request.model_version) == ("toy", "7")
    assert [(i.name, i.datatype, list(i.shape)) for i in request.inputs] == [
        ("A__0", "INT64", [2, 4]),
        ("B__1", "FP32", [2, 4]),
    ]
    assert request.raw_input_contents[0] == keys.tobytes()
    assert request.raw_input_contents[1] == keys.astype(np.float32).tobytes(), "row by row"


def test_a_type_no_model_takes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"A__0.*complex128"):
        encode_request("toy", 1, {"A__0": np.zeros(1, np.complex128)})


@given(
    st.sampled_from(sorted(DTYPES)).flatmap(
        lambda name: hnp.arrays(DTYPES[name], hnp.array_shapes(max_dims=3, min_side=0))
    )
)
def test_what_is_encoded_is_what_is_decoded(tensor: NDArray[Any]) -> None:
    decoded = decode_response(respond(Y=tensor))["Y"]
    assert decoded.dtype == tensor.dtype
    assert decoded.shape == tensor.shape
    assert decoded.tobytes() == tensor.tobytes()


def test_a_response_that_contradicts_itself_is_a_failure() -> None:
    cut = respond(Y=np.zeros(3, np.float32))
    cut.raw_output_contents[0] = b"\0" * 11
    unknown = respond(Y=np.zeros(3, np.float32))
    unknown.outputs[0].datatype = "BYTES"
    empty = respond(Y=np.zeros(3, np.float32))
    del empty.raw_output_contents[:]
    for response in (cut, unknown, empty):
        with pytest.raises(InferenceFailed, match="Triton answered"):
            decode_response(response)


async def test_a_triton_that_is_not_there(repository: Path) -> None:
    (repository / "toy" / "1").mkdir()
    (repository / "toy" / "1" / "model.pt").write_bytes(b"")
    async with TritonClient(NOBODY) as client:
        assert not await client.server_ready()
        assert not await client.model_ready("toy", 1)
        with pytest.raises(TritonUnavailable) as caught:
            await client.infer("toy", 1, {"A__0": np.zeros((1, 4), np.int64)}, 30.0)
        assert "127.0.0.1" not in str(caught.value)
        assert "127.0.0.1" in caught.value.detail
        with pytest.raises(TritonUnavailable):
            await client.load("toy", [1], repository)
        with pytest.raises(TritonUnavailable):
            await client.unload("toy")


def test_the_probe_finds_nobody() -> None:
    assert not probe(NOBODY, 5.0)


async def test_a_version_that_was_never_published_is_named(repository: Path) -> None:
    async with TritonClient(NOBODY) as client:
        with pytest.raises(ModelLoadError, match=r"toy/4/model\.pt does not exist: publish"):
            await client.load("toy", [4], repository)


async def test_loading_no_version_is_a_mistake(repository: Path) -> None:
    async with TritonClient(NOBODY) as client:
        with pytest.raises(ValueError, match="version"):
            await client.load("toy", [], repository)
