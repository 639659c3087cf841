"""The committed stubs are what the protos generate; the enums of the core are the contract's."""

from __future__ import annotations

import subprocess
import sys
from enum import IntEnum
from pathlib import Path

import pytest

from ebbing.events import EventType
from ebbing.interest.states import InterestState
from ebbing.v1 import interest_pb2, user_event_pb2

ROOT = Path(__file__).parents[2]


def test_the_committed_stubs_are_fresh(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, ROOT / "protos" / "generate.py", tmp_path],
        cwd=ROOT,
        check=True,
        timeout=120,
    )
    fresh = {path.name: path.read_bytes() for path in (tmp_path / "ebbing/v1").iterdir()}
    committed = {path.name: path.read_bytes() for path in (ROOT / "ebbing/v1").glob("*_pb2*.py*")}
    assert fresh.keys() == committed.keys()
    stale = [name for name, text in fresh.items() if committed[name] != text]
    assert not stale, "run 'make protos'"


@pytest.mark.parametrize(
    ("enum", "wire", "prefix"),
    [
        (EventType, user_event_pb2.EventType, "EVENT_TYPE_"),
        (InterestState, interest_pb2.InterestState, "INTEREST_STATE_"),
    ],
)
def test_enums_of_the_core_are_those_of_the_contract(
    enum: type[IntEnum], wire: object, prefix: str
) -> None:
    assert {prefix + member.name: member.value for member in enum} == dict(wire.items())
