"""Publishers that are killed at each step, and several at once: processes of one interpreter.

Run as ``python -m tests.harness.publishing kills RUN REPOSITORY KEY WORK`` or ``... race ...``. A
step is anything that is about to change the repository; the interpreter's own audit events tell of
it, so that publishing knows nothing of being watched. Prints one JSON line a publisher.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ebbing.progress import Reporter
from ebbing.signing import SigningKey
from trainer.comparison import Comparison
from trainer.latency import LatencyLimit
from trainer.publish import PublishError, publish

CREATED = "2025-06-01T00:00:00+00:00"
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {"os.mkdir", "os.rename", "os.rmdir", "os.remove", "shutil.copyfile", "shutil.rmtree"}


def publish_quickly(run: Path, repository: Path, key: SigningKey) -> int:
    """Publish a run whether it is better or not; returns the release."""
    return publish(
        run,
        repository,
        CREATED,
        comparison=Comparison(force="a test"),
        key=key,
        limit=LatencyLimit(rows=(1,), calls=1),
        reporter=Reporter(Console(file=StringIO())),
        clock=lambda: 0.0,
    ).release


def changes(event: str, args: tuple[Any, ...], repository: Path) -> bool:
    """Whether an audit event is about to change the repository."""
    inside = bool(args) and str(args[0]).startswith(str(repository))
    if event == "shutil.copyfile":
        inside = str(args[1]).startswith(str(repository))
    writes = event == "open" and isinstance(args[2], int) and bool(args[2] & WRITING)
    return inside and (writes or event in CHANGES)


def kill_at(step: int, repository: Path, told: int) -> None:
    """End this process, as a power cut would, at a step; what it is goes to a descriptor."""
    left = step

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal left
        if changes(event, args, repository):
            left -= 1
            if not left:
                os.write(told, f"{event} {Path(str(args[0])).name}".encode())
                os.kill(os.getpid(), signal.SIGKILL)

    fsync = os.fsync

    def audited_fsync(descriptor: int) -> None:
        hook("os.rename", (repository, "sync"))  # not audited by itself
        fsync(descriptor)

    os.fsync = audited_fsync  # type: ignore[assignment]
    sys.addaudithook(hook)


def child(run: Path, repository: Path, key: SigningKey, step: int = 0) -> tuple[int, int]:
    """Publish in a process of its own; its id, and a descriptor of what it says."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    code = 1
    try:
        if step:
            kill_at(step, repository, writing)
        os.write(writing, f"published {publish_quickly(run, repository, key)}".encode())
        code = 0
    except PublishError as error:
        os.write(writing, str(error).encode())
    finally:
        os._exit(code)


def ended(pid: int, reading: int) -> dict[str, Any]:
    """How a child ended, and what it said."""
    _, status = os.waitpid(pid, 0)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    return {"code": os.waitstatus_to_exitcode(status), "said": said}


def main(what: str, run: Path, repository: Path, key_file: Path, work: Path) -> None:
    """Kill publishers of copies of a repository, one step later each time; or let two race."""
    key = SigningKey.read(key_file)
    # Manifests tell to the last digit how exported models differ, which with several threads
    # depends on what else the machine does.
    torch.set_num_threads(1)
    if what == "race":
        for pid, reading in [child(run, repository, key) for _ in range(4)]:
            print(json.dumps(ended(pid, reading)), flush=True)
        return
    for step in range(1, 200):
        copy = Path(shutil.copytree(repository, work / str(step)))
        outcome = ended(*child(run, copy, key, step))
        print(json.dumps({"repository": str(copy), **outcome}), flush=True)
        if outcome["code"] != -signal.SIGKILL:
            return


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:]))
