from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from ebbing.cli import CommandError
from trainer import cli

RUNNER = CliRunner()


def invoke(command: str, *arguments: str | Path) -> str:
    app = typer.Typer()
    app.command(command)(getattr(cli, command))
    result = RUNNER.invoke(app, [str(argument) for argument in arguments])
    if result.exception:
        raise result.exception
    return result.stdout


def test_importing_the_commands_is_light() -> None:
    heavy = ("torch", "polars", "matplotlib", "tritonclient")
    code = f"import sys, trainer.cli; sys.exit(any(name in sys.modules for name in {heavy}))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


def test_simulate_writes_a_log(tmp_path: Path) -> None:
    shown = invoke("simulate", "--out", tmp_path, "--users", "5", "--items", "120", "--days", "120")
    assert "5 users on 120 items" in shown
    assert (tmp_path / "truth.json").is_file()


def test_simulate_refuses_what_is_too_small(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="120 items"):
        invoke("simulate", "--out", tmp_path, "--items", "3")


def test_train_names_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"events\.csv\[\.gz\]: missing"):
        invoke("train", "--data", tmp_path, "--out", tmp_path / "run")
    with pytest.raises(CommandError, match="no recipe 'magic': use one of article_mlp"):
        invoke("train", "--data", tmp_path, "--out", tmp_path / "run", "--recipe", "magic")


def test_evaluate_measures_and_writes(run: Path, data: Path, tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    shown = invoke("evaluate", "ranking", "--run", run, "--data", data, "--json", target)
    assert "leave-one-out" in shown
    assert "the retrieval model" in shown
    assert json.loads(target.read_text())["full_catalogue"]["retrieval"]["tests"] > 0


@pytest.mark.parametrize(("what", "message"), [("forgetting", "is to come"), ("x", "use ranking")])
def test_evaluate_says_what_it_cannot(run: Path, data: Path, what: str, message: str) -> None:
    with pytest.raises(CommandError, match=message):
        invoke("evaluate", what, "--run", run, "--data", data)


def test_publish_prints_the_release(run: Path, repository: Path) -> None:
    assert invoke("publish", run, "--repository", repository) == "published release 1\n"
    printed = invoke("publish", run, "--repository", repository, "--json")
    assert json.loads(printed)["release"] == 2


def test_publish_says_why_it_refuses(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"config\.pbtxt is missing"):
        invoke("publish", tmp_path, "--repository", tmp_path)


def test_evaluating_names_what_it_needs(tmp_path):
    with pytest.raises(CommandError, match="--run"):
        cli.evaluate("ranking", tmp_path)
    with pytest.raises(CommandError, match="to come"):
        cli.evaluate("forgetting", tmp_path)
