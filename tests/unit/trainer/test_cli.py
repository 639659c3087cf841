from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from ebbing.cli import CommandError
from ebbing.manifest import Manifest
from ebbing.signing import TrustedKeys, new_signing_key
from trainer import cli

RUNNER = CliRunner()


def invoke(command: str, *arguments: str | Path) -> str:
    app = typer.Typer()
    found = getattr(cli, command)
    if isinstance(found, typer.Typer):
        app.add_typer(found, name=command)
    else:
        app.command(command)(found)
    group = [command] if isinstance(found, typer.Typer) else []
    result = RUNNER.invoke(app, [*group, *(str(argument) for argument in arguments)])
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
    with pytest.raises(CommandError, match="no device 'abacus': use auto, cpu or cuda"):
        invoke("train", "--data", tmp_path, "--out", tmp_path / "run", "--device", "abacus")


def test_train_takes_a_log_as_told(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(CommandError, match="no step 'polish' of cleaning: use one of duplicates"):
        invoke("train", "--data", data, "--out", out, "--clean", "polish")
    with pytest.raises(CommandError, match="cleaning left no event"):
        invoke("train", "--data", data, "--out", out, "--clean", "user-events=100000")
    log = tmp_path / "log"
    log.mkdir()
    (log / "events.csv").write_text("user_id,item_id,event_type,event_time\n" + "<html>\n" * 3)
    (log / "items.csv").write_text("item_id,interests\n")
    with pytest.raises(CommandError, match="leave them out with --max-bad-rows 1"):
        invoke("train", "--data", log, "--out", out)
    with pytest.raises(CommandError, match="no events; a log needs"):
        invoke("train", "--data", log, "--out", out, "--max-bad-rows", "1")
    (log / "items.csv").write_text("item_id,interests\ni1,x\ni2,y\n")
    header = "user_id,item_id,event_type,event_time\n"
    one = "a,i1,view,1700000000\na,i2,view,1700100000\n"
    (log / "events.csv").write_text(header + one)
    with pytest.raises(CommandError, match="none of the 1 users makes a test"):
        invoke("train", "--data", log, "--out", out)
    another = "b,i2,view,1700000000\nb,i1,view,1700100000\n"
    (log / "events.csv").write_text(header + one + another)
    with pytest.raises(CommandError, match="forgetting cannot be learned from this log"):
        invoke("train", "--data", log, "--out", out)
    assert not out.exists(), "what never began leaves nothing"


def test_train_says_why_it_cannot_go_on(run: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(CommandError, match=r"run\.json is missing"):
        invoke("train", "--data", data, "--out", out, "--from", tmp_path)
    with pytest.raises(CommandError, match="counts and has nothing to go on from"):
        invoke("train", "--data", data, "--out", out, "--from", run, "--recipe", "popular")
    assert not (out / "run.json").exists()


def test_evaluate_measures_and_writes(run: Path, data: Path, tmp_path: Path) -> None:
    target, ranks = tmp_path / "figures.json", tmp_path / "ranks.csv"
    shown = invoke(
        "evaluate", "ranking", "--run", run, "--data", data, "--json", target, "--ranks", ranks
    )
    assert "leave-one-out" in shown
    assert "the retrieval model" in shown
    assert "own items" in shown
    figures = json.loads(target.read_text())
    row = figures["full_catalogue"]["retrieval"]
    assert (figures["run"], figures["data"]) == (run.name, data.name)
    assert figures["seconds"] > 0
    lines = ranks.read_text().splitlines()
    assert lines[0] == "user_id,test_item,rank"
    places = [int(line.rsplit(",", 1)[1]) for line in lines[1:]]
    assert len(places) == row["tests"] > 0
    assert row["hit_rate_at_10"] == pytest.approx(
        sum(place <= 10 for place in places) / len(places)
    )
    beside = {path.name for path in (tmp_path / "figures-report").iterdir()}
    assert beside == {"report.md", "places.png", "slices.png", "popularity.png", "relevance.png"}


def test_evaluate_asks_as_it_is_told(run: Path, data: Path, tmp_path: Path) -> None:
    found = {}
    for flag in ("--repeats", "--no-repeats"):
        target = tmp_path / f"{flag}.json"
        invoke(
            "evaluate", "ranking", "--run", run, "--data", data, "--json", target, flag,
            "--report", tmp_path / "report", "--reranked", "3",
        )  # fmt: skip
        found[flag] = json.loads(target.read_text())
    again, fresh = found.values()
    assert (again["asked"]["repeats"], fresh["asked"]["repeats"]) == (True, False)
    assert again["asked"]["tests"] > fresh["asked"]["tests"]
    assert "(as asked)" in fresh["protocol"]
    assert fresh["reranking"]["retrieval"]["tests"] <= 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--json", "one", "--ranks", "one"], "--json and --ranks both name one"),
        (["--ranks", "one", "--report", "one"], "one: is named as a file too"),
        (["--ranks", "absent/ranks.csv"], "no such folder as absent; make it first"),
        (["--json", "."], "is a folder; name a file"),
        (["--protocol", "temporal"], r"was trained on .* --until"),
        (["--data", "absent"], "absent: no such folder"),
        (["--run", "absent"], r"absent/run\.json is missing"),
    ],
)
def test_evaluate_says_what_is_wrong_and_writes_nothing(
    trained: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CommandError, match=message):
        invoke(
            "evaluate", "ranking", "--run", trained, "--data", data, "--json", "figures.json",
            *flags,
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_a_log_of_another_catalogue_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id,interests\nx,a\ny,b\n")
    rows = "".join(f"u{n},{'xy'[(n + k) % 2]},view,{k}\n" for n in range(9) for k in range(2))
    (tmp_path / "events.csv").write_text(f"user_id,item_id,event_type,event_time\n{rows}")
    with pytest.raises(CommandError, match="the model knows none of the 2 items"):
        invoke("evaluate", "ranking", "--run", run, "--data", tmp_path)


def test_a_log_without_events_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id,interests\nx,a\n")
    (tmp_path / "events.csv").write_text("user_id,item_id,event_type,event_time\n")
    with pytest.raises(CommandError, match=r"events\.csv: no events"):
        invoke("evaluate", "ranking", "--run", run, "--data", tmp_path)


def test_evaluate_forgetting_shows_and_writes(data: Path, tmp_path: Path) -> None:
    figures, scores = tmp_path / "figures.json", tmp_path / "scores.csv"
    shown = invoke(
        "evaluate", "forgetting", "--data", data, "--horizon", "20",
        "--json", figures, "--scores", scores,
    )  # fmt: skip
    assert "return prediction" in shown
    assert "Ebbing's engine" in shown
    assert "ACT-R base level" in shown
    found = json.loads(figures.read_text())
    assert found["horizon_days"] == 20
    assert found["seconds"] > 0
    assert found["peak_memory_bytes"] > 2**20
    measured = {"auc", "user_auc", "log_loss", "brier", "ece", "cases"}
    assert measured <= found["shipped"].keys()
    assert all(measured <= row.keys() for row in found["baselines"].values())
    assert len(scores.read_text().splitlines()) == 1 + found["shipped"]["cases"]
    beside = {path.name for path in (tmp_path / "figures-report").iterdir()}
    assert beside == {"report.md", "reliability.png", "curves.png"}


def test_evaluate_forgetting_says_where_outcomes_are_missing(data: Path, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    shown = invoke("evaluate", "forgetting", "--data", data, "--horizon", "45", "--json", figures)
    found = json.loads(figures.read_text())
    assert found["outcomes_days"] < found["horizon_days"] == 45
    assert f"mind: the log ends {found['outcomes_days']:.1f} days after its cut" in shown


def test_evaluate_forgetting_writes_nothing_unasked(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    invoke("evaluate", "forgetting", "--data", data, "--horizon", "20")
    assert not list(tmp_path.iterdir())
    invoke("evaluate", "forgetting", "--data", data, "--horizon", "20", "--report", "deep/report")
    assert len(list((tmp_path / "deep" / "report").iterdir())) == 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--horizon", "0"], "--horizon 0: give a number of days above 0"),
        (["--horizon", "-3"], "--horizon -3"),
        (["--horizon", "nan"], "--horizon nan"),
        (["--horizon", "999"], "a horizon of 999 days is longer than"),
        (["--json", "absent/figures.json"], "no such folder as absent; make it first"),
        (["--scores", "."], "is a folder; name a file"),
        (["--json", "one", "--scores", "one"], "--json and --scores both name one"),
    ],
)
def test_evaluate_forgetting_says_what_is_wrong_and_writes_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CommandError, match=message):
        invoke("evaluate", "forgetting", "--data", data, *flags)
    assert not list(tmp_path.iterdir())


def test_publish_prints_the_release(run: Path, repository: Path) -> None:
    assert invoke("publish", run, "--repository", repository) == "published release 1\n"
    with pytest.raises(CommandError, match=r"is not better than release 1.*--force REASON"):
        invoke("publish", run, "--repository", repository)
    with pytest.raises(CommandError, match="wants the reason in words"):
        invoke("publish", run, "--repository", repository, "--force", " ")
    printed = invoke("publish", run, "--repository", repository, "--force", "a test", "--json")
    manifest = json.loads(printed)
    assert manifest["release"] == 2
    assert manifest["decision"]["forced"] == "a test"


def test_publish_signs_with_a_key_file(run: Path, repository: Path, tmp_path: Path) -> None:
    key = tmp_path / "signing.key"
    new_signing_key(key, bytes(32))
    said = invoke("publish", run, "--repository", repository, "--key", key)
    assert said == f"published release 1, signed with {key}\n"
    Manifest.read(repository, 1, TrustedKeys.read(tmp_path / "signing.key.pub")).verify(repository)
    key.chmod(0o640 | 0o004)
    with pytest.raises(CommandError, match=r"others may read or change it: chmod 600"):
        invoke("publish", run, "--repository", repository, "--key", key)
    with pytest.raises(CommandError, match=r"there is no .*elsewhere: make it with"):
        invoke("publish", run, "--repository", repository, "--key", tmp_path / "elsewhere")


def test_publish_says_why_it_refuses(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"config\.pbtxt is missing"):
        invoke("publish", tmp_path, "--repository", tmp_path)


def test_evaluating_names_what_it_needs(tmp_path: Path) -> None:
    for flags in (
        ["--data", tmp_path],
        ["--train", tmp_path],
        ["--train", tmp_path, "--test", tmp_path, "--run", tmp_path],
        ["--run", tmp_path, "--test", tmp_path],
        ["--train", tmp_path, "--test", tmp_path, "--protocol", "temporal"],
    ):
        with pytest.raises(CommandError, match="--run FOLDER and --data FOLDER; or"):
            invoke("evaluate", "ranking", *flags)
    with pytest.raises(CommandError, match="no recipe 'magic'"):
        invoke("evaluate", "ranking", "--train", "a", "--test", "b", "--recipe", "magic")
    with pytest.raises(CommandError, match=r"events\.csv\[\.gz\]: missing"):
        invoke("evaluate", "forgetting", "--data", tmp_path)
