"""The client to Triton: the only place of the gateway that knows Triton's protocol.

Inference goes over raw `ModelInferRequest` messages: the tensors' bytes are handed over as they
lie in memory, without the copies and checks of the high-level client.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
from google.protobuf import json_format, text_format
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from ebbing.history import TensorSpec
from server.inference.errors import (
    InferenceDeadline,
    InferenceError,
    InferenceFailed,
    ModelLoadError,
    TritonUnavailable,
)

DTYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
}
"""Triton's names of the element types that models exchange."""

_NO_ANSWER = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
}
"""Codes that come from the connection or the clock, not from Triton."""

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class ModelContract:
    """What the `config.pbtxt` of a model says about every version of it."""

    inputs: tuple[TensorSpec, ...]
    """Input tensors in the order of `forward`, without the row axis."""
    outputs: tuple[TensorSpec, ...]
    """Output tensors in the order they are returned, without the row axis."""
    max_batch_size: int
    """Most rows of one call."""
    instances: int
    """Copies of each version that run at the same time."""


class TritonClient:
    """An asynchronous client to one Triton. Create it inside the running event loop."""

    def __init__(self, address: str, *, max_message_bytes: int = 64 << 20) -> None:
        """Args:
        address: `host:port` of Triton's gRPC endpoint.
        max_message_bytes: limit of one message in either direction.
        """
        self.address = address
        self._channel = grpc.aio.insecure_channel(address, options=_options(max_message_bytes))
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        # Triton mixes up its model states when loads and unloads overlap.
        self._control = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls in flight are cancelled."""
        await self._channel.close()

    async def infer(
        self,
        model: str,
        version: int,
        inputs: Mapping[str, NDArray[Any]],
        timeout_s: float,
    ) -> dict[str, NDArray[Any]]:
        """Run one batch through a pinned version of a model.

        Args:
            model: name of the model.
            version: its version; never left to Triton, which would jump to a newer one at load.
            inputs: tensors by name, row axis first.
            timeout_s: seconds until the caller has no use for the answer.

        Returns:
            Output tensors by name, row axis first, read-only.

        Raises:
            InferenceDeadline: no answer in time.
            TritonUnavailable: Triton is not reached, or does not hold the version ready.
            InferenceFailed: Triton refused the request or failed on it.
        """
        request = encode_request(model, version, inputs)
        try:
            response = await self._stub.ModelInfer(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise _translate(error, f"inference on {model} version {version}") from None
        return decode_response(response)

    async def server_ready(self, timeout_s: float = 1.0) -> bool:
        """Whether Triton answers and takes requests; never raises for a Triton that is down."""
        try:
            reply = await self._stub.ServerReady(
                service_pb2.ServerReadyRequest(), timeout=timeout_s
            )
        except grpc.aio.AioRpcError:
            return False
        return bool(reply.ready)

    async def model_ready(self, model: str, version: int, timeout_s: float = 1.0) -> bool:
        """Whether Triton says it holds this version ready; False too when it is not reached.

        Triton goes on saying so after the process behind a model died: only an inference proves
        that a model works.
        """
        request = service_pb2.ModelReadyRequest(name=model, version=str(version))
        try:
            reply = await self._stub.ModelReady(request, timeout=timeout_s)
        except grpc.aio.AioRpcError:
            return False
        return bool(reply.ready)

    async def load(
        self, model: str, versions: Sequence[int], repository: Path, timeout_s: float = 120.0
    ) -> None:
        """Have exactly these versions of a model served; others of it are unloaded.

        Versions that are served already go on answering while the others load. All are loaded or
        none: after a failure Triton serves what it served before.

        Args:
            model: name of the model.
            versions: the versions to serve, at least one.
            repository: the model repository, for the committed `config.pbtxt`.
            timeout_s: seconds for the whole load.

        Raises:
            ModelLoadError: `config.pbtxt` is unusable, or Triton could not load some version.
            TritonUnavailable: Triton is not reached.
            InferenceDeadline: the load did not end in time; it goes on inside Triton.
        """
        if not versions:
            raise ValueError("at least one version is needed; unload() serves none")
        folder = repository / model
        config = _read_config(folder / "config.pbtxt")
        for version in versions:
            # Triton would pass over a version that is not there and unload the ones not asked for.
            if not (folder / str(version) / "model.pt").is_file():
                raise ModelLoadError(
                    f"{folder / str(version) / 'model.pt'} does not exist: publish that release "
                    f"again, or serve another"
                )
        config.version_policy.specific.versions[:] = sorted(set(versions))
        request = service_pb2.RepositoryModelLoadRequest(model_name=model)
        request.parameters["config"].string_param = json_format.MessageToJson(
            config, preserving_proto_field_name=True, indent=None
        )
        async with self._control:
            try:
                await self._stub.RepositoryModelLoad(request, timeout=timeout_s)
            except grpc.aio.AioRpcError as error:
                raise _load_error(error, folder) from None
            for version in versions:
                if not await self.model_ready(model, version):
                    raise ModelLoadError(
                        f"Triton has no version {version} of {model}: it does not read "
                        f"{repository}, where that version is"
                    )

    async def unload(self, model: str, timeout_s: float = 120.0) -> None:
        """Stop serving every version of a model. Nothing happens to one that is not loaded.

        Raises:
            TritonUnavailable: Triton is not reached.
            InferenceFailed: Triton refused.
        """
        request = service_pb2.RepositoryModelUnloadRequest(model_name=model)
        async with self._control:
            try:
                await self._stub.RepositoryModelUnload(request, timeout=timeout_s)
            except grpc.aio.AioRpcError as error:
                raise _translate(error, f"unloading {model}") from None


def probe(address: str, timeout_s: float) -> bool:
    """Whether a Triton at `address` takes requests, asked without an event loop."""
    with grpc.insecure_channel(address, options=_options(1 << 20)) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        try:
            reply = stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=timeout_s)
        except grpc.RpcError:
            return False
        return bool(reply.ready)


def encode_request(model: str, version: int, inputs: Mapping[str, NDArray[Any]]) -> Any:
    """The `ModelInferRequest` of a batch.

    Raises:
        ValueError: a tensor's element type is none that models exchange.
    """
    request = service_pb2.ModelInferRequest(model_name=model, model_version=str(version))
    for name, tensor in inputs.items():
        datatype = _NAMES.get(tensor.dtype)
        if datatype is None:
            raise ValueError(f"tensor {name} has element type {tensor.dtype}, which no model takes")
        request.inputs.add(name=name, datatype=datatype, shape=tensor.shape)
        request.raw_input_contents.append(tensor.tobytes())
    return request


def decode_response(response: Any) -> dict[str, NDArray[Any]]:
    """The tensors of a `ModelInferResponse`, as read-only views on its bytes.

    Raises:
        InferenceFailed: the bytes are not what the response says of them.
    """
    if len(response.outputs) != len(response.raw_output_contents):
        raise InferenceFailed("Triton answered with tensors that have no contents")
    outputs = {}
    for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        dtype = DTYPES.get(tensor.datatype)
        if dtype is None or len(raw) != math.prod(tensor.shape) * dtype.itemsize:
            raise InferenceFailed(
                f"Triton answered with an unreadable tensor {tensor.name}",
                detail=f"{tensor.datatype} {list(tensor.shape)}, {len(raw)} bytes",
            )
        outputs[tensor.name] = np.frombuffer(raw, dtype).reshape(tuple(tensor.shape))
    return outputs


def read_contract(repository: Path, model: str) -> ModelContract:
    """The contract that the `config.pbtxt` of a model states.

    Raises:
        ModelLoadError: the file is missing or is not a model configuration.
    """
    config = _read_config(repository / model / "config.pbtxt")
    return ModelContract(
        inputs=_specs(config.input),
        outputs=_specs(config.output),
        max_batch_size=config.max_batch_size,
        instances=sum(group.count or 1 for group in config.instance_group) or 1,
    )


def check_contract(
    repository: Path, model: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> ModelContract:
    """The contract of a model, once it is certain that it states these tensors, in this order.

    Raises:
        ModelLoadError: `config.pbtxt` is unusable or says something else; the message names the
            file, the tensor and the remedy.
    """
    contract = read_contract(repository, model)
    path = repository / model / "config.pbtxt"
    for kind, stated, wanted in (
        ("input", contract.inputs, inputs),
        ("output", contract.outputs, outputs),
    ):
        for index in range(max(len(stated), len(wanted))):
            has = stated[index] if index < len(stated) else None
            needs = wanted[index] if index < len(wanted) else None
            if has != needs:
                raise ModelLoadError(
                    f"{path}: {kind} {index} is {_words(has)} and should be {_words(needs)}: "
                    f"restore the committed config.pbtxt, or publish a release made for this one"
                )
    return contract


def _options(max_message_bytes: int) -> list[tuple[str, int]]:
    return [
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        # A host that vanished without closing its connections is noticed within 40 s, at most two
        # pings into the silence, which is as many as Triton tolerates.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 2),
        # A Triton that restarts is found again within a second, not within gRPC's two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        # Triton is a neighbour; a proxy meant for the outside world is never the way to it.
        ("grpc.enable_http_proxy", 0),
        # Two clients in one process are two connections: one cannot break the other's.
        ("grpc.use_local_subchannel_pool", 1),
    ]


def _read_config(path: Path) -> Any:
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
    except OSError as error:
        raise ModelLoadError(
            f"{path} cannot be read ({error.strerror}): restore it from version control"
        ) from None
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ModelLoadError(
            f"{path} is not a model configuration ({error}): restore it from version control"
        ) from None


def _specs(tensors: Sequence[Any]) -> tuple[TensorSpec, ...]:
    data_type = model_config_pb2.DataType
    return tuple(
        TensorSpec(
            tensor.name, data_type.Name(tensor.data_type).removeprefix("TYPE_"), tuple(tensor.dims)
        )
        for tensor in tensors
    )


def _words(spec: TensorSpec | None) -> str:
    return "absent" if spec is None else f"{spec.name} {spec.dtype} {list(spec.dims)}"


def _translate(error: grpc.aio.AioRpcError, what: str) -> InferenceError:
    """The error of ours for one of gRPC; its text stays in `detail`."""
    kind, words = {
        grpc.StatusCode.DEADLINE_EXCEEDED: (InferenceDeadline, "did not end before the deadline"),
        grpc.StatusCode.UNAVAILABLE: (TritonUnavailable, "found no Triton that is ready for it"),
        grpc.StatusCode.CANCELLED: (TritonUnavailable, "was cut off"),
        grpc.StatusCode.NOT_FOUND: (TritonUnavailable, "found no such model version loaded"),
    }.get(error.code(), (InferenceFailed, "failed"))
    return kind(f"{what} {words}", detail=_detail(error))


def _load_error(error: grpc.aio.AioRpcError, folder: Path) -> InferenceError:
    if error.code() in _NO_ANSWER:
        return _translate(error, f"loading {folder.name}")
    damaged = re.search(r"version (\d+) is at UNAVAILABLE", error.details() or "")
    if damaged:
        return ModelLoadError(
            f"Triton cannot load {folder / damaged[1] / 'model.pt'}, which is missing or damaged: "
            f"publish that release again, or serve another",
            detail=_detail(error),
        )
    return ModelLoadError(
        f"Triton does not accept {folder.name}: check that {folder} has the committed "
        f"config.pbtxt, a folder for every version asked for, and is what Triton reads",
        detail=_detail(error),
    )


def _detail(error: grpc.aio.AioRpcError) -> str:
    return f"{error.code().name}: {error.details()}"
