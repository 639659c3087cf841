"""A Triton backend named `pytorch`, written in Python, for a Triton without the libtorch backend.

Copied into the backend directory of the embedded Triton and run inside its stub process, one
process an instance. It answers for any model whose `config.pbtxt` says `backend: "pytorch"` and
follows libtorch's naming rule: `NAME__0`, `NAME__1` … in the order of `forward`.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import triton_python_backend_utils as pb_utils

Outputs = list[torch.Tensor]


class TritonPythonModel:
    """One instance of one version of a TorchScript model."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config: Any) -> Any:
        """Leave the configuration as it is: the committed `config.pbtxt` is the whole contract."""
        return auto_complete_model_config

    def initialize(self, args: dict[str, str]) -> None:
        """Load `<repository>/<model>/<version>/model.pt`.

        Raises:
            TritonModelException: the file is missing or is not a TorchScript module.
        """
        # Instances are what runs in parallel; a thread pool in each would only fight over cores.
        torch.set_num_threads(1)
        config = json.loads(args["model_config"])
        self.inputs = _in_forward_order(config["input"])
        self.outputs = _in_forward_order(config["output"])
        self.device = torch.device("cpu")
        if args["model_instance_kind"] == "GPU" and torch.cuda.is_available():
            self.device = torch.device("cuda", int(args["model_instance_device_id"]))
        version = Path(args["model_repository"]) / args["model_version"]
        path = version / (config.get("default_model_filename") or "model.pt")
        try:
            self.module = torch.jit.load(path, map_location=self.device).eval()
        except (RuntimeError, ValueError, OSError) as error:
            raise pb_utils.TritonModelException(
                f"{path} is not a TorchScript module that can be loaded: {_lines(error)[0]}"
            ) from error

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer every request, in order; a request that fails has its own error."""
        responses: list[Any] = [None] * len(requests)
        groups: dict[tuple[tuple[int, ...], ...], list[tuple[int, list[torch.Tensor]]]] = {}
        for position, request in enumerate(requests):
            try:
                tensors = self._read(request)
            except ValueError as error:
                responses[position] = _failure(str(error))
            else:
                inner = tuple(tuple(tensor.shape[1:]) for tensor in tensors)
                groups.setdefault(inner, []).append((position, tensors))
        for group in groups.values():
            answers = self._answer([tensors for _, tensors in group])
            for (position, _), answer in zip(group, answers, strict=True):
                responses[position] = answer
        return responses

    def _read(self, request: Any) -> list[torch.Tensor]:
        """The inputs of a request in forward order, all with the same number of rows.

        Raises:
            ValueError: an input is missing, has no rows, or has not as many rows as the others.
        """
        tensors = []
        for name in self.inputs:
            tensor = pb_utils.get_input_tensor_by_name(request, name)
            if tensor is None:
                raise ValueError(f"input {name} is missing")
            tensors.append(torch.from_dlpack(tensor.to_dlpack()).to(self.device))
        rows = {tuple(tensor.shape[:1]) for tensor in tensors}
        if len(rows) != 1 or rows & {(), (0,)}:
            shapes = ", ".join(
                f"{name} {list(tensor.shape)}"
                for name, tensor in zip(self.inputs, tensors, strict=True)
            )
            raise ValueError(f"every input needs the same number of rows, at least one: {shapes}")
        return tensors

    def _answer(self, batch: Sequence[list[torch.Tensor]]) -> list[Any]:
        """Responses to requests of equal inner shapes, computed in one forward.

        If that forward fails, each request is tried by itself: one cannot spoil the others.
        """
        rows = [tensors[0].shape[0] for tensors in batch]
        try:
            outputs = self._forward([torch.cat(parts) for parts in zip(*batch, strict=True)])
            pieces = [output.split(rows) for output in outputs]
        except Exception as error:  # a module may raise anything at all
            if len(batch) > 1:
                return [answer for tensors in batch for answer in self._answer([tensors])]
            # TorchScript puts its whole interpreter stack before the cause.
            return [_failure(f"forward failed: {_lines(error)[-1]}")]
        return [_success(self.outputs, parts) for parts in zip(*pieces, strict=True)]

    def _forward(self, inputs: Sequence[torch.Tensor]) -> Outputs:
        # The profiling executor recompiles on the first calls of a shape (96 ms measured, against
        # 5 ms without it) and is not faster afterwards on models of this kind.
        with torch.inference_mode(), torch.jit.optimized_execution(False):
            result = self.module(*inputs)
        outputs = [result] if isinstance(result, torch.Tensor) else list(result)
        if len(outputs) != len(self.outputs):
            raise ValueError(
                f"forward returned {len(outputs)} tensors, config.pbtxt declares "
                f"{len(self.outputs)}"
            )
        return [output.cpu() for output in outputs]


def _in_forward_order(tensors: Sequence[dict[str, Any]]) -> list[str]:
    """Tensor names ordered by the index libtorch reads from their ending, `__<index>`."""
    return sorted((tensor["name"] for tensor in tensors), key=lambda n: int(n.rpartition("__")[2]))


def _lines(error: Exception) -> list[str]:
    return str(error).strip().splitlines() or [type(error).__name__]


def _success(names: Sequence[str], tensors: Sequence[torch.Tensor]) -> Any:
    return pb_utils.InferenceResponse(
        output_tensors=[
            pb_utils.Tensor(name, tensor.contiguous().numpy())
            for name, tensor in zip(names, tensors, strict=True)
        ]
    )


def _failure(message: str) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message))
