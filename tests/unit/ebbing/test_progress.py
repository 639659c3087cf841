from __future__ import annotations

import time
from io import StringIO

import pytest
from rich.console import Console

import ebbing.progress
from ebbing.progress import Reporter


def test_plain_lines_keep_coming_while_a_step_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ebbing.progress, "LINE_EVERY_S", 0.02)
    shown = StringIO()
    with Reporter(Console(file=shown)).stage("model", 100, "events") as stage:
        time.sleep(0.1)
        stage.advance(50, loss=0.25)
        time.sleep(0.1)
    lines = shown.getvalue().splitlines()
    assert lines[0] == "model ..."
    assert lines[1] == "model: 0 s so far"
    assert any("50 %" in line and "loss 0.2500" in line and "s left" in line for line in lines)
    assert lines[-1].startswith("model: done in")
    assert "events/s" in lines[-1]


def test_a_terminal_gets_a_bar() -> None:
    shown = StringIO()
    with Reporter(Console(file=shown, force_terminal=True, highlight=False)).stage(
        "model", 2
    ) as stage:
        stage.advance(2, users=12_000)
    assert "━" in shown.getvalue()
    assert "users 12,000" in shown.getvalue()


def test_a_failed_stage_is_not_called_done() -> None:
    shown = StringIO()
    with (
        pytest.raises(RuntimeError, match="halt"),
        Reporter(Console(file=shown)).stage("model", 1),
    ):
        raise RuntimeError("halt")
    assert "done" not in shown.getvalue()
