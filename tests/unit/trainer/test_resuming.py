from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from ebbing.progress import Reporter
from trainer.checkpoints import Checkpoints, identity
from trainer.data.log import EventLog, read_log
from trainer.models.sequence import SequenceConfig
from trainer.place import TrainingError
from trainer.retrieval import RetrievalConfig, RetrievalResult, Surroundings, train_retrieval

CONFIG = RetrievalConfig(
    model=SequenceConfig(dim=16), epochs=2, batch_positions=128, warmup_steps=5,
    checkpoint_steps=3, negatives=64, full_softmax_up_to=0,
)  # fmt: skip
ROOT = Path(__file__).parents[3]

# Trains as the tests below do, but stops for ever at its 24th look at the clock, in an epoch.
KILLED = """
import sys, time
from pathlib import Path
from ebbing.progress import Reporter
from tests.unit.trainer.test_resuming import CONFIG
from trainer.data.log import read_log
from trainer.retrieval import Surroundings, train_retrieval

data, checkpoint, reached = map(Path, sys.argv[1:])
looks = 0

def clock():
    global looks
    looks += 1
    if looks == 24:
        reached.touch()
        time.sleep(600)
    return float(looks)

around = Surroundings(checkpoint=checkpoint, clock=clock)
train_retrieval(read_log(data), CONFIG, 3, Reporter(), around=around)
"""


@pytest.fixture(scope="module")
def log(data: Path) -> EventLog:
    return read_log(data)


def train(log: EventLog, checkpoint: Path | None = None, resume: bool = False) -> RetrievalResult:
    return train_retrieval(
        log, CONFIG, 3, Reporter(), around=Surroundings(checkpoint=checkpoint, resume=resume)
    )


def assert_same(one: nn.Module, two: nn.Module) -> None:
    weights, others = one.state_dict(), two.state_dict()
    assert weights.keys() == others.keys()
    for name, tensor in weights.items():
        assert torch.equal(tensor, others[name]), name


def test_a_killed_training_goes_on_to_the_same_bits(
    log: EventLog, data: Path, tmp_path: Path
) -> None:
    checkpoint, reached = tmp_path / "run" / "checkpoint.pt", tmp_path / "reached"
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), data, checkpoint, reached],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while not reached.exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()

    progress = torch.load(checkpoint, weights_only=True)["state"]["progress"]
    assert 0 < progress["epoch"] < CONFIG.epochs
    assert progress["batch"] > 0
    resumed, whole = train(log, checkpoint, resume=True), train(log)
    assert_same(resumed.model, whole.model)
    assert resumed.curves == whole.curves
    assert resumed.best == whole.best


def test_a_kill_while_writing_leaves_the_checkpoint_before(
    log: EventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path / "it.pt", identity(log, CONFIG, 3, 1))
    checkpoints.write({"step": 1})

    def interrupted(state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("torch.save", interrupted)
        checkpoints.write({"step": 2})
    assert checkpoints.read() == {"step": 1}


def test_what_has_ended_is_ended(log: EventLog, tmp_path: Path) -> None:
    (tmp_path / "it.pt").write_bytes(b"of another time, forgotten where nothing is resumed")
    one = train(log, tmp_path / "it.pt")
    two = train(log, tmp_path / "it.pt", resume=True)
    assert_same(one.model, two.model)


@pytest.mark.parametrize("what", ["code", "recipe", "seed", "log", "damage"])
def test_another_training_does_not_go_on(
    log: EventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    short = replace(CONFIG, epochs=1)

    Checkpoints(checkpoint, identity(log, short, 3, 1)).write({})
    message = f"checkpoint.pt is of another {what}: .*or train anew without --resume"
    seed, config = 3, short
    if what == "code":
        monkeypatch.setattr("trainer.checkpoints.code_version", lambda: "0.0.9+abc")
        message = "not 0.0.9.abc; finish it with that version"
    elif what == "recipe":
        config = replace(short, learning_rate=1e-3)
    elif what == "seed":
        seed = 4
    elif what == "log":
        log = log.without(log.last_events())
    else:
        checkpoint.write_bytes(checkpoint.read_bytes()[:500])
        message = "does not read as a checkpoint"
    kept = checkpoint.read_bytes()
    with pytest.raises(TrainingError, match=message):
        around = Surroundings(checkpoint=checkpoint, resume=True)
        train_retrieval(log, config, seed, Reporter(), around=around)
    assert checkpoint.read_bytes() == kept


def test_a_place_that_cannot_be_written_is_named(log: EventLog, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    checkpoints = Checkpoints(tmp_path / "file" / "it.pt", identity(log, CONFIG, 3, 1))
    with pytest.raises(TrainingError, match=r"it\.pt: the checkpoint cannot be written .*--out"):
        checkpoints.write({})
