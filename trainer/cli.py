"""The trainer's commands. What they run is imported only when they run."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from ebbing.cli import CommandError
from trainer.cli_evaluate import evaluate, show_figures

__all__ = ["evaluate", "publish", "simulate", "train"]

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
    recipe: Annotated[str, typer.Option(help="What to train.")] = "sequence",
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
    until: Annotated[
        str | None,
        typer.Option(
            help="Train on events up to then and measure on those after: 80% of the events, a date "
            "such as 2025-06-01, or UTC seconds.",
            show_default="all but each user's last event, which it is measured on",
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="Where to train: cpu, cuda, or auto, which takes a GPU if it can.")
    ] = "auto",
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on where a killed run of the same log, recipe, seed and code left off; it "
            "ends as it would have.",
        ),
    ] = False,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="RUN",
            help="Go on from an earlier run's retrieval model, of the same recipe, with a log that "
            "has newer events; its catalogue may have grown.",
        ),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            help="What the exported models compute in: fp32; or bf16 or fp16, where Triton's "
            "device has them."
        ),
    ] = "fp32",
    processes: Annotated[
        int,
        typer.Option(
            min=1,
            help="Processes that share each batch of the retrieval model, on a GPU each or on this "
            "machine's cores. On several machines start this command with torchrun instead.",
        ),
    ] = 1,
) -> None:
    """Train the models and the forgetting parameters on a log.

    The run folder gets the exported models, run.json, report.md, plots, and what TensorBoard
    shows of the training while it runs. Killed, it can be resumed from its last checkpoint.

    [bold]Examples[/bold]

        ebbing train --data data/generated --out runs/first

        ebbing train --data data/shop --out runs/shop --recipe sequence

        ebbing train --data data/shop --out runs/shop --recipe sequence --resume

        ebbing train --data data/shop --out runs/quick --budget-seconds 120

        ebbing train --data data/shop-june --out runs/june --from runs/may

        ebbing train --data data/shop --out runs/shop --recipe sequence_xl --processes 8

        torchrun --nproc-per-node 8 -m ebbing train --data data/shop --out runs/shop

        tensorboard --logdir runs/shop/tensorboard

        ebbing train --data ml-1m --out runs/ml --clean duplicates --clean user-events=5

        ebbing train --data data/shop --out runs/until --until 80%
    """
    from ebbing.progress import Reporter

    reporter = Reporter()
    with reporter.stage("training libraries", 1):
        from trainer.cuts import FittingError
        from trainer.data.cleaning import CleaningConfig
        from trainer.data.load import DataConfig
        from trainer.data.log import LogError
        from trainer.distributed import WorkerError, declared
        from trainer.evaluation.protocol import EvaluationError
        from trainer.export import ExportError
        from trainer.place import TrainingError
        from trainer.precision import TOLERANCES
        from trainer.recipes import RECIPES
        from trainer.runs import RunError
        from trainer.together import train_here, train_with
        from trainer.train import TrainingRun, train_run

    if device not in ("auto", "cpu", "cuda"):
        raise CommandError(f"no device {device!r}: use auto, cpu or cuda")
    if precision not in TOLERANCES:
        raise CommandError(f"no precision {precision!r}: use one of {', '.join(TOLERANCES)}")
    if recipe not in RECIPES:
        raise CommandError(f"no recipe {recipe!r}: use one of {', '.join(RECIPES)}")
    try:
        reading = DataConfig(max_bad_rows, CleaningConfig.parse(clean))
    except ValueError as error:
        raise CommandError(f"--clean: {error}") from error
    run = TrainingRun(
        data,
        out,
        RECIPES[recipe](),
        seed,
        budget_seconds,
        reading,
        until,
        device,
        resume,
        precision,
        start,
    )
    try:
        if declared(os.environ):
            result = train_here(run, os.environ)
        elif processes > 1:
            result = train_with(processes, run)
        else:
            result = train_run(run, reporter)
    except EvaluationError as error:
        raise CommandError(f"{data}: {error}") from error
    except (
        *(LogError, FittingError, TrainingError, ExportError, RunError, WorkerError, OSError),
    ) as error:
        raise CommandError(str(error)) from error
    if not result:
        return
    show_figures(result["metrics"])
    print(f"{out}: trained in {result['seconds']} s; the report is {out / 'report.md'}")


def publish(
    run: Annotated[Path, typer.Argument(help="Run folder that `ebbing train` wrote.")],
    repository: Annotated[
        Path, typer.Option(help="Triton model repository, with the models' config.pbtxt.")
    ] = Path("triton_repo"),
    key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Private key to sign with, from 'ebbing keys signing --out FILE'."
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="Which metric of the run has to be higher than the newest release's.",
            show_default="full_catalogue.retrieval.ndcg_at_10",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Log to measure the run and the newest release on, when they were trained on "
            "different ones."
        ),
    ] = None,
    force: Annotated[
        str | None,
        typer.Option(
            metavar="REASON",
            help="Publish a run that is not known to be better; the manifest keeps why.",
        ),
    ] = None,
    max_latency_ms: Annotated[
        float, typer.Option(min=0.001, help="Longest 99th percentile of a call, on this machine.")
    ] = 1000.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Publish a run as the next release of a Triton repository, if it is better than the newest.

    It appears whole or not at all. Refused are models that are damaged, are other than config.pbtxt
    says, do more than compute, answer otherwise than at training, or take too long.

    [bold]Examples[/bold]

        ebbing publish runs/first

        ebbing publish runs/june --repository /srv/triton_repo --key signing.key --data data/june

        ebbing publish runs/first --force "back to May, June counts clicks twice" --json
    """
    from ebbing.signing import SigningKey, SigningKeyError
    from trainer.comparison import METRIC, Comparison
    from trainer.latency import LatencyLimit
    from trainer.publish import PublishError
    from trainer.publish import publish as publish_run

    if force is not None and not force.strip():
        raise CommandError("--force wants the reason in words, such as --force 'a new catalogue'")
    try:
        manifest = publish_run(
            run,
            repository,
            datetime.now(UTC).isoformat(timespec="seconds"),
            comparison=Comparison(metric or METRIC, data, (force or "").strip()),
            key=SigningKey.read(key) if key else None,
            limit=LatencyLimit(p99_ms=max_latency_ms),
        )
    except (PublishError, SigningKeyError) as error:
        raise CommandError(str(error)) from error
    signed = f", signed with {key}" if key else ""
    print(manifest.to_json() if as_json else f"published release {manifest.release}{signed}")
