"""`ebbing evaluate`: its two commands. What they run is imported only when they run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ebbing.cli import CommandError

if TYPE_CHECKING:
    from rich.table import Table

evaluate = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Measure what `ebbing train` makes on a log, beside simpler ways.",
)

JsonFile = Annotated[
    Path | None, typer.Option("--json", help="Write the figures to this file too.")
]
ReportFolder = Annotated[
    Path | None,
    typer.Option(
        help="Folder for report.md and its plots. With --json FILE.json they go to FILE-report "
        "beside it unless this says otherwise."
    ),
]


class Protocol(StrEnum):
    """Which events are tests."""

    LEAVE_ONE_OUT = "leave-one-out"
    TEMPORAL = "temporal"


class AskedEvents(StrEnum):
    """Which of the events after the cut are tests."""

    FIRST = "first"
    ALL = "all"


@evaluate.command()
def ranking(
    run: Annotated[Path | None, typer.Option(help="Run folder that `ebbing train` wrote.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the log.")] = None,
    train: Annotated[
        Path | None, typer.Option(help="External set: folder of the log to train on.")
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option(help="External set: folder of a log of other users, who are the tests."),
    ] = None,
    recipe: Annotated[str, typer.Option(help="External set: what to train.")] = "article_mlp",
    budget_seconds: Annotated[
        float | None,
        typer.Option(min=1, help="External set: as for 'ebbing train'."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="External set: run folder to write.", show_default="none is left behind"),
    ] = None,
    protocol: Annotated[
        Protocol | None,
        typer.Option(
            help="leave-one-out: the last event of each user. temporal: events after the cut, "
            "where the run's training ended ('ebbing train --until').",
            show_default="what the run held out",
        ),
    ] = None,
    tests: Annotated[
        AskedEvents,
        typer.Option(help="Temporal: the first event of each user after the cut, or all of them."),
    ] = AskedEvents.FIRST,
    repeats: Annotated[
        bool | None,
        typer.Option(
            "--repeats/--no-repeats",
            help="Whether items a user had are recommended and asked for again.",
            show_default="yes if 5 % of the training events or more come back to an item",
        ),
    ] = None,
    json_file: JsonFile = None,
    ranks: Annotated[
        Path | None,
        typer.Option(
            help="Write user_id,test_item,rank of each test, as CSV: the rank is from 1 and over "
            "the whole catalogue, of equal scores the worst."
        ),
    ] = None,
    report: ReportFolder = None,
    reranked: Annotated[
        int, typer.Option(min=1, help="Tests the ranker is measured on at most, evenly spread.")
    ] = 2000,
) -> None:
    """Rank the whole catalogue for each test by a run's models, beside what needs no model.

    A run that was trained on its tests is refused.

    [bold]Examples[/bold]

        ebbing evaluate ranking --run runs/first --data data/generated --json figures.json

        ebbing evaluate ranking --run runs/first --data data/shop --ranks ranks.csv --no-repeats

        ebbing train --data data/shop --out runs/until --until 80% &&
        ebbing evaluate ranking --run runs/until --data data/shop --protocol temporal --tests all

        ebbing evaluate ranking --train data/north --test data/south --recipe sequence
    """
    own = run and data and not (train or test)
    outside = train and test and not (run or data or protocol)
    if not (own or outside):
        raise CommandError(
            "a run is measured on a log: give --run FOLDER and --data FOLDER; or, for a run that "
            "is trained on the way and asked about users of another log, --train FOLDER and --test "
            "FOLDER, without a --protocol"
        )
    from ebbing.progress import Reporter
    from trainer.cuts import FittingError
    from trainer.data.log import LogError
    from trainer.evaluation.external import evaluate_external
    from trainer.evaluation.of_run import Question, evaluate_run
    from trainer.evaluation.protocol import EvaluationError
    from trainer.evaluation.ranking import EvaluationConfig
    from trainer.evaluation.report import pages
    from trainer.export import ExportError
    from trainer.outputs import OutputError
    from trainer.place import TrainingError
    from trainer.recipes import RECIPES
    from trainer.runs import RunError
    from trainer.train import TrainingRun

    config, reporter = EvaluationConfig(reranked=reranked), Reporter()
    try:
        outputs = _Outputs(json_file, "--ranks", ranks, report)
        if train and test:
            if recipe not in RECIPES:
                raise CommandError(f"no recipe {recipe!r}: use one of {', '.join(RECIPES)}")
            name, asked = f"{recipe} trained on {train.resolve().name}", test
            with TemporaryDirectory() as folder:
                training = TrainingRun(
                    train, out or Path(folder), RECIPES[recipe](), budget_s=budget_seconds
                )
                evaluation = evaluate_external(training, test, reporter, repeats, config)
        else:
            assert run and data
            name, asked = run.resolve().name, data
            question = Question(protocol.value if protocol else None, tests.value, repeats)
            evaluation = evaluate_run(run, data, reporter, question, config)
        figures = {
            "run": name,
            "data": asked.resolve().name,
            **evaluation.to_json(),
            **outputs.cost(),
        }
        written = pages(evaluation, figures) if outputs.folder else {}
        outputs.write(figures, evaluation.ranks_csv(), written)
    except EvaluationError as error:
        raise CommandError(f"{test or data}: {error}") from error
    except (
        LogError, RunError, OutputError, FittingError, TrainingError, ExportError, OSError
    ) as error:  # fmt: skip
        raise CommandError(str(error)) from error
    show_figures(figures)
    print(f"{figures['seconds']:.1f} s, {figures['peak_memory_bytes'] / 2**20:,.0f} MiB")
    outputs.tell()


@evaluate.command()
def forgetting(
    data: Annotated[Path, typer.Option(help="Folder of the log.")],
    horizon: Annotated[
        float, typer.Option(help="Days within which an interest has to return.")
    ] = 30.0,
    json_file: JsonFile = None,
    scores: Annotated[
        Path | None,
        typer.Option(help="Write user_id,interest,retention of each case, as CSV."),
    ] = None,
    report: ReportFolder = None,
    max_bad_rows: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Share of a file's rows that may not read; they are left out."
        ),
    ] = 0.0,
) -> None:
    """Fit the forgetting engine on the first 80 % of a log and ask it which interests come back.

    It stands beside known forgetting curves.

    [bold]Examples[/bold]

        ebbing evaluate forgetting --data data/generated

        ebbing evaluate forgetting --data data/shop --horizon 14 --json shop.json --scores shop.csv
    """
    from ebbing.progress import Reporter
    from trainer.cuts import FittingError
    from trainer.data.log import LogError, read_log
    from trainer.evaluate_forgetting import PROTOCOL, evaluate_forgetting
    from trainer.evaluation.protocol import EvaluationError
    from trainer.forgetting_report import report as pages_of
    from trainer.forgetting_report import table
    from trainer.outputs import OutputError

    if not 0 < horizon < float("inf"):
        raise CommandError(f"--horizon {horizon:g}: give a number of days above 0, such as 30")
    try:
        outputs = _Outputs(json_file, "--scores", scores, report)
        reporter = Reporter()
        with reporter.stage("log", 1, "logs") as stage:
            log = read_log(data, max_bad_rows)
            stage.advance(1, events=len(log), users=len(log.user_ids), items=len(log.item_ids))
        name = data.resolve().name
        evaluation = evaluate_forgetting(log, horizon * 86_400, f"fitted on {name}", reporter)
        figures = {"data": name, **evaluation.to_json(), **outputs.cost()}
        pages = pages_of(evaluation, figures) if outputs.folder else {}
        outputs.write(figures, evaluation.scores_csv(log.user_ids), pages)
    except (EvaluationError, FittingError) as error:
        raise CommandError(f"{data}: {error}") from error
    except (LogError, OutputError, OSError) as error:
        raise CommandError(str(error)) from error
    print(PROTOCOL)
    _show(table(evaluation))
    print(
        f"{len(evaluation.returned):,} cases of {figures['users']:,} users, "
        f"{evaluation.returned.mean():.2%} returned within {horizon:g} days; "
        f"{figures['seconds']:.1f} s, {figures['peak_memory_bytes'] / 2**20:,.0f} MiB"
    )
    if evaluation.shortened:
        print(f"mind: {evaluation.shortened}")
    outputs.tell()


class _Outputs:
    """What an evaluation leaves behind: figures, a row a case, a report; whole or not at all."""

    def __init__(
        self, figures: Path | None, rows_flag: str, rows: Path | None, report: Path | None
    ) -> None:
        """Find out before the work what would fail after it.

        Raises:
            OutputError: a file cannot be written, or two of them are one.
        """
        import time

        from trainer.outputs import OutputError, check_folder, check_writable

        for path in (figures, rows):
            if path:
                check_writable(path)
        if figures and rows and figures.resolve() == rows.resolve():
            raise OutputError(f"--json and {rows_flag} both name {rows}; give them different files")
        self.figures = figures
        self.rows = rows
        self.folder = report or (figures and figures.with_name(f"{figures.stem}-report"))
        if self.folder:
            check_folder(self.folder)
            if self.folder.resolve() in [path.resolve() for path in (figures, rows) if path]:
                raise OutputError(f"{self.folder}: is named as a file too; name another folder")
        self.written: list[Path] = []
        self._started = time.monotonic()

    def cost(self) -> dict[str, float | int]:
        """Seconds so far, and the most memory the process has had."""
        import time

        from trainer.place import peak_memory_bytes

        return {
            "seconds": round(time.monotonic() - self._started, 2),
            "peak_memory_bytes": peak_memory_bytes(),
        }

    def write(self, figures: dict[str, Any], rows: str, pages: dict[str, bytes]) -> None:
        """Write what was asked for.

        Raises:
            OutputError: it cannot be written; nothing of it is there then.
        """
        from trainer.outputs import write_all

        files: dict[Path, bytes] = {}
        if self.rows:
            files[self.rows] = rows.encode()
        if self.folder and pages:
            self.folder.mkdir(parents=True, exist_ok=True)
            files |= {self.folder / name: content for name, content in pages.items()}
        if self.figures:
            text = json.dumps(figures, indent=1, allow_nan=False)
            files[self.figures] = f"{text}\n".encode()
        write_all(files)
        self.written = list(files)

    def tell(self) -> None:
        """Name the files."""
        for path in self.written:
            print(f"wrote {path}")


def show_figures(figures: Mapping[str, Any]) -> None:
    """Print a table of `RankingEvaluation.to_json`, and how it came about."""
    from trainer.evaluation.table import table

    print(figures["protocol"])
    _show(table(figures))


def _show(table: Table) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 150
    console.print(table)
