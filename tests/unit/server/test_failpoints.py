"""Failpoints: nothing happens unless one is armed, and then at the reach it names."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from server.failpoints import NAMES, Failpoint, arm, reach
from server.settings import Settings

ROOT = Path(__file__).parents[3]
REACHES = """
from server.failpoints import Failpoint, arm, reach
arm(Failpoint.parse("append.logged:kill:3"))
for n in range(4):
    reach("append.begun")
    print(n, flush=True)
    reach("append.logged")
"""


def test_nothing_happens_unless_armed() -> None:
    for name in NAMES:
        reach(name)
    arm(Failpoint("append.logged"))
    reach("append.begun")
    arm(None)
    reach("append.logged")


def test_an_armed_one_kills_at_its_reach() -> None:
    done = subprocess.run(
        [sys.executable, "-c", REACHES], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.split()) == (-signal.SIGKILL, ["0", "1", "2"])


def test_all_names_can_be_written() -> None:
    for name in NAMES:
        assert Failpoint.parse(f"{name}:kill:2") == Failpoint(name, "kill", 2)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("append.loged:kill:1", "no failpoint 'append.loged', but ingest.taken, "),
        ("append.logged:explode:1", "no action 'explode', but kill"),
        ("append.logged:kill:0", "counted from 1"),
        ("append.logged:kill:-1", "NAME:ACTION:AT"),
        ("append.logged:kill", "NAME:ACTION:AT"),
        ("append.logged:kill:1:2", "NAME:ACTION:AT"),
        ("append.logged", "NAME:ACTION:AT"),
    ],
)
def test_what_is_none_is_refused_at_start(text: str, complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        Settings(failpoint=text)
