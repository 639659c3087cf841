"""The command line: commands come from entry points, failures are one line and a status."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable

import pytest
import typer

from ebbing import cli


def hello(name: str) -> None:
    """Greets."""
    print(f"hello {name}")


def fail() -> None:
    """Fails."""
    raise cli.CommandError("port 7 is taken: choose another with --port")


group = typer.Typer(help="Commands that belong together.")
group.command("hello")(hello)
group.callback()(lambda: None)


class Entry:
    """What ``importlib.metadata`` gives of an entry point, as far as the command line asks."""

    def __init__(self, name: str, load: Callable[[], object]) -> None:
        self.name = name
        self.load = load


def _not_installed() -> Callable[..., None]:
    raise ModuleNotFoundError("No module named 'torch'", name="torch")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs the command line with arguments; returns status or message, and what it printed."""
    entries = [
        Entry("hello", lambda: hello),
        Entry("fail", lambda: fail),
        Entry("train", _not_installed),
        Entry("group", lambda: group),
    ]
    monkeypatch.setattr(cli, "entry_points", lambda group: entries)

    def run(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["ebbing", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        printed = capsys.readouterr()
        return caught.value.code, printed.out, printed.err

    return run


def test_commands_are_the_entry_points(run) -> None:
    assert run("hello", "you")[:2] == (0, "hello you\n")


def test_a_group_brings_commands_of_its_own(run) -> None:
    assert run("group", "hello", "you")[:2] == (0, "hello you\n")


def test_help_lists_the_commands_with_their_docstrings(run) -> None:
    status, out, _ = run("--help")
    assert status == 0
    assert "hello" in out
    assert "Greets." in out


def test_a_failure_is_one_line_with_the_remedy(run) -> None:
    status, out, err = run("fail")
    # A text as the exit code is printed to stderr by the interpreter, with status 1.
    message = status if isinstance(status, str) else err
    assert "port 7 is taken: choose another with --port" in message
    assert message.strip().count("\n") == 0
    assert status != 0
    assert out == ""


def test_a_command_whose_package_is_missing_says_which(run) -> None:
    status, _, err = run("train")
    message = status if isinstance(status, str) else err
    assert "torch is not installed" in message
    assert "ebbing[trainer]" in message
    assert run("hello", "you")[0] == 0


def test_an_unknown_command_is_refused(run) -> None:
    status, _, err = run("nonsense")
    assert status == 2
    assert "nonsense" in err


def test_every_command_of_the_project_is_registered() -> None:
    names = {entry.name for entry in importlib.metadata.entry_points(group=cli.GROUP)}
    assert {"demo", "explain", "serve", "triton", "doctor", "train", "evaluate", "publish"} <= names
