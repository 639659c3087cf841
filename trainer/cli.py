"""The trainer's commands. What they run is imported only when they run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from ebbing.cli import CommandError

Folder = Annotated[
    Path,
    typer.Option(
        help="Folder of the log: events.csv[.gz] and items.csv[.gz], an export of the gateway's, "
        "MovieLens, or the article's three files."
    ),
]


def simulate(
    out: Annotated[Path, typer.Option(help="Folder to write the log into.")],
    seed: Annotated[int, typer.Option(help="The same seed gives the same log.")] = 7,
    users: Annotated[int, typer.Option(help="Number of users.")] = 300,
    items: Annotated[int, typer.Option(help="Number of items, at least 120.")] = 960,
    days: Annotated[int, typer.Option(help="Length of the log in days, at least 120.")] = 180,
    form: Annotated[
        str, typer.Option("--format", help="plain, article or movielens; see docs/data.md.")
    ] = "plain",
) -> None:
    """Generate an event log whose users' interests rise, rest and fade in known ways.

    Writes events.csv.gz, items.csv.gz and truth.json, which says how each interest went; or the
    same log as an example of another format.

    [bold]Examples[/bold]

        ebbing simulate --out data/generated

        ebbing simulate --out data/larger --users 2000 --seed 11

        ebbing simulate --out data/article --format article
    """
    from trainer.data.examples import WRITERS
    from trainer.data.simulate import SimulationConfig
    from trainer.data.simulate import simulate as generate

    if form not in WRITERS:
        raise CommandError(f"no format {form!r} is written: use one of {', '.join(WRITERS)}")
    try:
        config = SimulationConfig(users=users, items=items, days=days, seed=seed)
        made = generate(config)
        WRITERS[form](made, out)
    except (ValueError, OSError) as error:
        raise CommandError(str(error)) from error
    print(f"{out}: {len(made.log):,} events of {users:,} users on {items:,} items")


def train(
    data: Folder,
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    recipe: Annotated[str, typer.Option(help="What to train.")] = "article_mlp",
    seed: Annotated[int, typer.Option(help="The same seed gives the same run on CPU.")] = 7,
    budget_seconds: Annotated[
        float | None,
        typer.Option(
            min=1,
            help="Stop training the retrieval model after so long; the machine's speed then shows.",
        ),
    ] = None,
    clean: Annotated[
        list[str],
        typer.Option(help="A step of cleaning, as docs/data.md names them; any number of times."),
    ] = [],  # noqa: B006
    max_bad_rows: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Share of a file's rows that may not read; they are left out."
        ),
    ] = 0.0,
) -> None:
    """Train the models and the forgetting parameters on a log.

    The run folder gets the exported models, run.json, report.md and plots.

    [bold]Examples[/bold]

        ebbing train --data data/generated --out runs/first

        ebbing train --data data/shop --out runs/shop --budget-seconds 120

        ebbing train --data ml-1m --out runs/ml --clean duplicates --clean user-events=5
    """
    from ebbing.progress import Reporter

    reporter = Reporter()
    with reporter.stage("training libraries", 1):
        from trainer.cuts import FittingError
        from trainer.data.cleaning import CleaningConfig
        from trainer.data.load import DataConfig
        from trainer.data.log import LogError
        from trainer.export import ExportError
        from trainer.recipes import RECIPES
        from trainer.retrieval import TrainingError
        from trainer.train import TrainingRun, train_run

    if recipe not in RECIPES:
        raise CommandError(f"no recipe {recipe!r}: use one of {', '.join(RECIPES)}")
    try:
        reading = DataConfig(max_bad_rows, CleaningConfig.parse(clean))
    except ValueError as error:
        raise CommandError(f"--clean: {error}") from error
    try:
        result = train_run(
            TrainingRun(data, out, RECIPES[recipe](), seed, budget_seconds, reading), reporter
        )
    except (LogError, FittingError, TrainingError, ExportError, OSError) as error:
        raise CommandError(str(error)) from error
    _show(result["metrics"])
    print(f"{out}: trained in {result['seconds']} s; the report is {out / 'report.md'}")


def evaluate(
    what: Annotated[
        str,
        typer.Argument(
            help="ranking: the models of a run on a log. forgetting: the forgetting engine on it."
        ),
    ],
    data: Folder,
    run: Annotated[
        Path | None, typer.Option(help="Run folder that `ebbing train` wrote; ranking needs it.")
    ] = None,
    horizon: Annotated[
        float, typer.Option(help="Forgetting: days within which an interest has to return.")
    ] = 30.0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures to this file too.")
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(help="Forgetting: write user_id,interest,retention of each case, as CSV."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            help="Forgetting: folder for report.md and its plots. With --json FILE.json they go "
            "to FILE-report beside it unless this says otherwise."
        ),
    ] = None,
) -> None:
    """Measure what `ebbing train` makes on a log, beside simpler ways.

    [bold]ranking[/bold] takes the exported models of a run, beside the most popular items.
    [bold]forgetting[/bold] fits the forgetting engine on the first 80 % of the log and asks it
    which interests come back, beside known forgetting curves.

    [bold]Examples[/bold]

        ebbing evaluate ranking --run runs/first --data data/generated --json figures.json

        ebbing evaluate forgetting --data data/generated

        ebbing evaluate forgetting --data data/shop --horizon 14 --json shop.json --scores shop.csv
    """
    if what == "forgetting":
        _evaluate_forgetting(data, horizon, json_file, scores, report)
    elif what == "ranking":
        if run is None:
            raise CommandError("evaluating ranking needs a run: name its folder with --run")
        _evaluate_ranking(data, run, json_file)
    else:
        raise CommandError(f"nothing to evaluate named {what!r}: use ranking or forgetting")


def _evaluate_ranking(data: Path, run: Path, json_file: Path | None) -> None:
    from ebbing.progress import Reporter
    from trainer.data.log import LogError
    from trainer.runs import RunError, evaluate_run

    try:
        figures = evaluate_run(run, data, Reporter())
        if json_file:
            json_file.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    except (LogError, RunError, OSError) as error:
        raise CommandError(str(error)) from error
    print(figures["protocol"])
    _show(figures)


def _evaluate_forgetting(
    data: Path, horizon: float, json_file: Path | None, scores: Path | None, report: Path | None
) -> None:
    from trainer.cuts import FittingError
    from trainer.data.log import LogError
    from trainer.evaluate_forgetting import EvaluationError
    from trainer.outputs import OutputError

    if not 0 < horizon < float("inf"):
        raise CommandError(f"--horizon {horizon:g}: give a number of days above 0, such as 30")
    folder = report or (json_file and json_file.with_name(f"{json_file.stem}-report"))
    try:
        _measure_forgetting(data, horizon, json_file, scores, folder)
    except (EvaluationError, FittingError) as error:
        raise CommandError(f"{data}: {error}") from error
    except (LogError, OutputError, OSError) as error:
        raise CommandError(str(error)) from error


def _measure_forgetting(
    data: Path, horizon: float, json_file: Path | None, scores: Path | None, folder: Path | None
) -> None:
    import time

    from rich.console import Console

    from ebbing.progress import Reporter
    from trainer.data.log import read_log
    from trainer.evaluate_forgetting import PROTOCOL, evaluate_forgetting
    from trainer.forgetting_report import report, table
    from trainer.outputs import OutputError, check_folder, check_writable, write_all

    started = time.monotonic()
    for path in (json_file, scores):
        if path:
            check_writable(path)
    if folder:
        check_folder(folder)
    if json_file and scores and json_file.resolve() == scores.resolve():
        raise OutputError(f"--json and --scores both name {scores}; give them different files")
    reporter = Reporter()
    with reporter.stage("log", 1, "logs") as stage:
        log = read_log(data)
        stage.advance(1, events=len(log), users=len(log.user_ids), items=len(log.item_ids))
    name = data.resolve().name
    evaluation = evaluate_forgetting(log, horizon * 86_400, f"fitted on {name}", reporter)
    about: dict[str, Any] = {
        "data": name,
        **evaluation.to_json(),
        "seconds": round(time.monotonic() - started, 2),
        "peak_memory_bytes": _peak_memory_bytes(),
    }
    files: dict[Path, bytes] = {}
    if scores:
        files[scores] = evaluation.scores_csv(log.user_ids).encode()
    if folder:
        files |= {folder / file: content for file, content in report(evaluation, about).items()}
        folder.mkdir(parents=True, exist_ok=True)
    if json_file:
        files[json_file] = (json.dumps(about, indent=1, allow_nan=False) + "\n").encode()
    write_all(files)
    print(PROTOCOL)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 120
    console.print(table(evaluation))
    print(
        f"{len(evaluation.returned):,} cases of {about['users']:,} users, "
        f"{evaluation.returned.mean():.2%} returned within {horizon:g} days; "
        f"{about['seconds']:.1f} s, {about['peak_memory_bytes'] / 2**20:,.0f} MiB"
    )
    if evaluation.shortened:
        print(f"mind: {evaluation.shortened}")
    for path in files:
        print(f"wrote {path}")


def _peak_memory_bytes() -> int:
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def publish(
    run: Annotated[Path, typer.Argument(help="Run folder that `ebbing train` wrote.")],
    repository: Annotated[
        Path, typer.Option(help="Triton model repository, with the models' config.pbtxt.")
    ] = Path("triton_repo"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Publish a run as the next release of a Triton repository.

    It appears whole or not at all; a damaged model, or other than config.pbtxt says, is refused.

    [bold]Examples[/bold]

        ebbing publish runs/first

        ebbing publish runs/first --repository /srv/triton_repo --json
    """
    from trainer.publish import PublishError
    from trainer.publish import publish as publish_run

    try:
        manifest = publish_run(run, repository, datetime.now(UTC).isoformat(timespec="seconds"))
    except (PublishError, OSError) as error:
        raise CommandError(str(error)) from error
    print(manifest.to_json() if as_json else f"published release {manifest.release}")


def _show(figures: Mapping[str, Any]) -> None:
    from trainer.evaluate import told

    for title, row in told(figures):
        print(
            f"HR@10 {row['hit_rate_at_10']:.4f}  NDCG@10 {row['ndcg_at_10']:.4f}  "
            f"{row['tests']:>6} tests  {title}"
        )
