"""The trainer's commands. What they run is imported only when they run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from ebbing.cli import CommandError

Folder = Annotated[Path, typer.Option(help="Folder of the log (events.csv[.gz], items.csv[.gz]).")]


def simulate(
    out: Annotated[Path, typer.Option(help="Folder to write the log into.")],
    seed: Annotated[int, typer.Option(help="The same seed gives the same log.")] = 7,
    users: Annotated[int, typer.Option(help="Number of users.")] = 300,
    items: Annotated[int, typer.Option(help="Number of items, at least 120.")] = 960,
    days: Annotated[int, typer.Option(help="Length of the log in days, at least 120.")] = 180,
) -> None:
    """Generate an event log whose users' interests rise, rest and fade in known ways.

    Writes events.csv.gz, items.csv.gz and truth.json, which says how each interest went.

    [bold]Examples[/bold]

        ebbing simulate --out data/generated

        ebbing simulate --out data/larger --users 2000 --seed 11
    """
    from trainer.data.simulate import SimulationConfig
    from trainer.data.simulate import simulate as generate

    try:
        config = SimulationConfig(users=users, items=items, days=days, seed=seed)
        made = generate(config)
        made.write(out)
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
) -> None:
    """Train the models and the forgetting parameters on a log.

    The run folder gets the exported models, run.json, report.md and plots.

    [bold]Examples[/bold]

        ebbing train --data data/generated --out runs/first

        ebbing train --data data/shop --out runs/shop --budget-seconds 120
    """
    from trainer.progress import Reporter

    reporter = Reporter()
    with reporter.stage("training libraries", 1):
        from trainer.data.log import LogError
        from trainer.export import ExportError
        from trainer.forgetting import FittingError
        from trainer.recipes import RECIPES
        from trainer.retrieval import TrainingError
        from trainer.train import TrainingRun, train_run

    if recipe not in RECIPES:
        raise CommandError(f"no recipe {recipe!r}: use one of {', '.join(RECIPES)}")
    try:
        result = train_run(
            TrainingRun(data, out, RECIPES[recipe](), seed, budget_seconds), reporter
        )
    except (LogError, FittingError, TrainingError, ExportError, OSError) as error:
        raise CommandError(str(error)) from error
    _show(result["metrics"])
    print(f"{out}: trained in {result['seconds']} s; the report is {out / 'report.md'}")


def evaluate(
    what: Annotated[str, typer.Argument(help="ranking: the models of a run on a log.")],
    data: Folder,
    run: Annotated[
        Path | None, typer.Option(help="Run folder that `ebbing train` wrote; ranking needs it.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures to this file too.")
    ] = None,
) -> None:
    """Measure a run's exported models on a log, beside the most popular items.

    [bold]Examples[/bold]

        ebbing evaluate ranking --run runs/first --data data/generated

        ebbing evaluate ranking --run runs/first --data data/generated --json figures.json
    """
    if what == "forgetting":
        raise CommandError(
            "evaluating forgetting on its own is to come; until then `ebbing train` writes the "
            "figures of the fit into the run's report.md"
        )
    if what != "ranking":
        raise CommandError(f"nothing to evaluate named {what!r}: use ranking")
    if run is None:
        raise CommandError("evaluating ranking needs a run: name its folder with --run")
    from trainer.data.log import LogError
    from trainer.progress import Reporter
    from trainer.runs import RunError, evaluate_run

    try:
        figures = evaluate_run(run, data, Reporter())
        if json_file:
            json_file.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    except (LogError, RunError, OSError) as error:
        raise CommandError(str(error)) from error
    print(figures["protocol"])
    _show(figures)


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
