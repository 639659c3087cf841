"""The inference room against a real tritonserver: the contract of `retrieval`, a toy behind it.

The toy is published under a name of its own, so that other tests can have `retrieval`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ebbing.history import HISTORY_LENGTH
from server.inference.batcher import BatcherConfig, MicroBatcher, SilentObserver
from server.inference.embedded import EmbeddedTriton
from server.inference.errors import (
    InferenceDeadline,
    InferenceFailed,
    ModelLoadError,
    TritonUnavailable,
)
from server.inference.triton import TritonClient

ROOT = Path(__file__).parents[2]
TOY = "retrieval_toy"
SLOW, BROKEN, DAMAGED, ABSENT = 7, 8, 9, 10
"""Versions of the toy with something wrong: works for long, returns too little, is no module, and
is not there."""


class Toy(torch.nn.Module):
    """Answers from which the caller's row and the version can be told.

    Its items are the history's keys, newest first, plus `offset`; a negative key makes it fail.
    """

    def __init__(self, offset: int, work: int = 0) -> None:
        super().__init__()
        self.offset = offset
        self.work = work

    def forward(
        self, keys: torch.Tensor, ages: torch.Tensor, types: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        if bool((keys < 0).any()):
            raise RuntimeError("a key is negative")
        effort = torch.ones(256, 256)
        for _ in range(self.work):
            effort = (effort @ effort).clamp(max=1.0)
        scores = ages * effort[0, 0]
        user = torch.stack([ages.sum(1), types.to(torch.float32).sum(1)], 1)
        unknown = (keys == 0).sum(1, keepdim=True).to(torch.int32)
        return keys.flip(1) + self.offset, scores, user, unknown


class Mute(torch.nn.Module):
    """Returns one tensor where the contract has four."""

    def forward(self, keys: torch.Tensor, ages: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        return keys + ages.sum().to(torch.int64) + types


def publish(repository: Path, version: int, module: torch.nn.Module) -> None:
    folder = repository / TOY / str(version)
    folder.mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and what Triton serves
        torch.jit.script(module.eval()).save(folder / "model.pt")


@pytest.fixture(scope="session")
def toy(triton: Any) -> str:
    """The toy in the shared repository, in all its versions, none of them loaded."""
    contract = (triton.repository / "retrieval" / "config.pbtxt").read_text()
    (triton.repository / TOY).mkdir()
    (triton.repository / TOY / "config.pbtxt").write_text(
        contract.replace('name: "retrieval"', f'name: "{TOY}"')
    )
    publish(triton.repository, 1, Toy(1_000))
    publish(triton.repository, 2, Toy(2_000))
    publish(triton.repository, SLOW, Toy(0, work=2_000))
    publish(triton.repository, BROKEN, Mute())
    (triton.repository / TOY / str(DAMAGED)).mkdir()
    sound = (triton.repository / TOY / "1" / "model.pt").read_bytes()
    (triton.repository / TOY / str(DAMAGED) / "model.pt").write_bytes(sound[: len(sound) // 2])
    return TOY


@pytest.fixture
async def client(triton: Any, toy: str) -> AsyncIterator[TritonClient]:
    """A client to the shared Triton, with versions 1 and 2 of the toy loaded."""
    async with TritonClient(triton.grpc_address) as client:
        await client.load(toy, [1, 2], triton.repository)
        yield client


def history(key: int, rows: int = 1) -> dict[str, NDArray[Any]]:
    """Inputs whose rows hold the keys `key`, `key + 1` … throughout, with ages alike."""
    keys = np.arange(key, key + rows, dtype=np.int64)[:, None].repeat(HISTORY_LENGTH, 1)
    return {
        "HISTORY_KEYS__0": keys,
        "HISTORY_AGES__1": keys.astype(np.float32),
        "HISTORY_TYPES__2": np.ones_like(keys, np.int32),
    }


class Rows(SilentObserver):
    def __init__(self) -> None:
        self.rows: list[int] = []

    def batch_sent(self, model: str, version: int, rows: int) -> None:
        self.rows.append(rows)


async def test_tensors_cross_the_wire_as_the_contract_says(client: TritonClient) -> None:
    answer = await client.infer(TOY, 1, history(5, rows=2), 30.0)
    assert {n: (t.dtype.name, t.shape) for n, t in answer.items()} == {
        "ITEM_KEYS__0": ("int64", (2, HISTORY_LENGTH)),
        "SCORES__1": ("float32", (2, HISTORY_LENGTH)),
        "USER_VECTOR__2": ("float32", (2, 2)),
        "OOV_COUNT__3": ("int32", (2, 1)),
    }
    assert answer["USER_VECTOR__2"].tolist() == [[250.0, 50.0], [300.0, 50.0]]


async def test_pinned_versions_answer_differently(client: TritonClient) -> None:
    one = await client.infer(TOY, 1, history(5), 30.0)
    two = await client.infer(TOY, 2, history(5), 30.0)
    assert (one["ITEM_KEYS__0"] == 1_005).all()
    assert (two["ITEM_KEYS__0"] == 2_005).all()


async def test_the_server_and_its_models_say_that_they_are_ready(client: TritonClient) -> None:
    assert await client.server_ready()
    assert await client.model_ready(TOY, 1)
    assert not await client.model_ready(TOY, DAMAGED)


@pytest.mark.parametrize("bad", [DAMAGED, ABSENT])
async def test_a_version_that_cannot_load_leaves_the_others_serving(
    client: TritonClient, triton: Any, bad: int
) -> None:
    with pytest.raises(ModelLoadError) as caught:
        await client.load(TOY, [1, bad], triton.repository)
    assert TOY in str(caught.value)
    assert "TritonModelException" not in str(caught.value)
    for version in (1, 2):
        answer = await client.infer(TOY, version, history(5), 30.0)
        assert answer["ITEM_KEYS__0"][0, 0] == version * 1_000 + 5


async def test_a_damaged_file_is_named_and_explained(client: TritonClient, triton: Any) -> None:
    with pytest.raises(ModelLoadError) as caught:
        await client.load(TOY, [1, DAMAGED], triton.repository)
    assert str(triton.repository / TOY / str(DAMAGED) / "model.pt") in str(caught.value)
    assert "not a TorchScript module" in caught.value.detail


@pytest.mark.parametrize("versions", [[77], [1, 77]])
async def test_a_triton_that_reads_another_repository_is_noticed(
    client: TritonClient, triton: Any, tmp_path: Path, versions: list[int]
) -> None:
    shutil.copytree(triton.repository / TOY, tmp_path / TOY)
    publish(tmp_path, 77, Toy(77))
    with pytest.raises(ModelLoadError, match="Triton") as caught:
        await client.load(TOY, versions, tmp_path)
    assert str(tmp_path) in str(caught.value)


async def test_a_version_answers_while_another_loads(client: TritonClient, triton: Any) -> None:
    await client.load(TOY, [1], triton.repository)
    loading = asyncio.create_task(client.load(TOY, [1, 2], triton.repository))
    while not loading.done():
        answer = await client.infer(TOY, 1, history(5), 30.0)
        assert answer["ITEM_KEYS__0"][0, 0] == 1_005
    await loading


async def test_an_unloaded_model_is_unavailable(client: TritonClient, triton: Any) -> None:
    await client.unload(TOY)
    await client.unload(TOY)
    with pytest.raises(TritonUnavailable):
        await client.infer(TOY, 1, history(5), 30.0)
    await client.load(TOY, [1], triton.repository)
    await client.infer(TOY, 1, history(5), 30.0)


async def test_concurrent_requests_share_calls_and_get_their_own_rows(
    client: TritonClient,
) -> None:
    seen = Rows()
    loop = asyncio.get_running_loop()
    batcher = MicroBatcher(client.infer, clock=loop.time, observer=seen)
    counts = [1 + i % 3 for i in range(120)]
    answers = await asyncio.gather(
        *(
            batcher.submit(TOY, 1 + i % 2, history(100 * i + 1, n), deadline=loop.time() + 60)
            for i, n in enumerate(counts)
        )
    )
    for i, (n, answer) in enumerate(zip(counts, answers, strict=True)):
        first = 100 * i + 1 + 1_000 * (1 + i % 2)
        assert answer["ITEM_KEYS__0"].tolist() == [
            [first + row] * HISTORY_LENGTH for row in range(n)
        ]
    assert sum(seen.rows) == sum(counts)
    assert len(seen.rows) < len(counts)
    assert 1 < max(seen.rows) <= 64
    await batcher.drain()


async def test_requests_that_triton_itself_puts_together_keep_their_rows(
    client: TritonClient,
) -> None:
    answers = await asyncio.gather(
        *(client.infer(TOY, 1, history(10 * i, 1 + i % 5), 30.0) for i in range(1, 40))
    )
    for i, answer in enumerate(answers, 1):
        assert answer["SCORES__1"][:, 0].tolist() == [10.0 * i + row for row in range(1 + i % 5)]


async def test_a_request_that_fails_does_not_spoil_its_neighbours(client: TritonClient) -> None:
    keys = [5, -5, 6, 7, 8, 9, -6, 10]
    answers = await asyncio.gather(
        *(client.infer(TOY, 1, history(key), 30.0) for key in keys), return_exceptions=True
    )
    for key, answer in zip(keys, answers, strict=True):
        if key < 0:
            assert isinstance(answer, InferenceFailed)
            assert "a key is negative" in answer.detail
            assert "negative" not in str(answer)
        else:
            assert isinstance(answer, dict), answer.detail
            assert answer["SCORES__1"][0, 0] == key


async def test_shapes_outside_the_contract_are_refused(client: TritonClient) -> None:
    too_short = {name: tensor[:, :20] for name, tensor in history(5).items()}
    with pytest.raises(InferenceFailed):
        await client.infer(TOY, 1, too_short, 30.0)
    with pytest.raises(InferenceFailed):
        await client.infer(TOY, 1, history(5, rows=65), 30.0)


async def test_a_module_that_returns_too_little_is_a_failure(
    client: TritonClient, triton: Any
) -> None:
    await client.load(TOY, [BROKEN], triton.repository)
    with pytest.raises(InferenceFailed) as caught:
        await client.infer(TOY, BROKEN, history(5), 30.0)
    assert "1 tensors, config.pbtxt declares 4" in caught.value.detail


async def test_a_deadline_that_expires_in_triton(client: TritonClient, triton: Any) -> None:
    await client.load(TOY, [1, SLOW], triton.repository)
    with pytest.raises(InferenceDeadline):
        await client.infer(TOY, SLOW, history(5), 0.01)
    loop = asyncio.get_running_loop()
    batcher = MicroBatcher(client.infer, clock=loop.time, config=BatcherConfig())
    with pytest.raises(InferenceDeadline):
        await batcher.submit(TOY, SLOW, history(5), deadline=loop.time() + 0.01)
    answer = await client.infer(TOY, 1, history(5), 30.0)
    assert answer["SCORES__1"][0, 0] == 5.0
    await batcher.drain()


async def test_triton_publishes_metrics(client: TritonClient, triton: Any) -> None:
    await client.infer(TOY, 1, history(5), 30.0)
    with urllib.request.urlopen(f"http://{triton.metrics_address}/metrics") as reply:
        assert f'nv_inference_request_success{{model="{TOY}"' in reply.read().decode()


async def test_a_killed_triton_is_unavailable_at_once_and_found_again(
    own_triton: EmbeddedTriton,
) -> None:
    async with TritonClient(own_triton.grpc_address) as client:
        assert await client.server_ready()
        own_triton.process.kill()
        own_triton.process.wait()
        # The deadline is far away: it is not what ends these calls.
        for _ in range(3):
            with pytest.raises(TritonUnavailable):
                await client.infer(TOY, 1, history(5), 3600.0)
        own_triton.stop()
        own_triton.start()
        own_triton.wait_ready()
        for _ in range(100):
            if await client.server_ready():
                break
            await asyncio.sleep(0.1)
        assert await client.server_ready()


STARTER = """
import sys
from pathlib import Path
from server.inference.embedded import EmbeddedConfig, EmbeddedTriton
folder = Path(sys.argv[1])
config = EmbeddedConfig(folder, folder / "work", folder / "log", int(sys.argv[2]), None)
with EmbeddedTriton(config) as server:
    print(server.process.pid, flush=True)
    server.wait()
"""


def running(pid: int) -> bool:
    """Whether a process does anything still; a dead one that nobody has waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def test_no_server_outlives_the_process_that_started_it(tmp_path: Path) -> None:
    from tests.harness.triton import free_ports

    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(tmp_path), str(free_ports(1)[0])],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    assert starter.stdout is not None
    with starter, starter.stdout as output:
        server = int(output.readline())
        assert running(server)
        starter.send_signal(signal.SIGKILL)
    for _ in range(600):
        if not running(server):
            break
        time.sleep(0.05)
    else:
        os.kill(server, signal.SIGKILL)
        pytest.fail("the tritonserver outlived its parent")
