"""The training report: plots and a page of figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from trainer.data.load import data_page
from trainer.evaluation.table import COLUMNS, rows
from trainer.retrieval import EpochFigures

TITLES = {"retrieval": "hit rate at 10", "ranking": "accuracy"}


def write_report(
    folder: Path, run: Mapping[str, Any], curves: Mapping[str, Sequence[EpochFigures]]
) -> None:
    """Write report.md and a PNG of the curves of each model into `folder`."""
    curves = {model: points for model, points in curves.items() if points}
    for model, points in curves.items():
        _plot(folder / f"{model}.png", points, model)
    (folder / "report.md").write_text(_page(run, curves), encoding="utf-8")


def _plot(path: Path, points: Sequence[EpochFigures], model: str) -> None:
    epochs = [point.epoch for point in points]
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    loss.plot(epochs, [point.train_loss for point in points], label="training")
    loss.plot(epochs, [point.validation_loss for point in points], label="validation")
    loss.set(title=f"{model}: loss", xlabel="epoch", ylabel="nats")
    loss.legend()
    accuracy.plot(epochs, [point.validation_accuracy for point in points], color="C1")
    accuracy.set(title=f"{model}: validation {TITLES[model]}", xlabel="epoch")
    figure.savefig(path, dpi=110)


def _page(run: Mapping[str, Any], curves: Mapping[str, Sequence[EpochFigures]]) -> str:
    metrics = run["metrics"]
    lines = [
        f"# Training report: recipe {run['recipe']}, seed {run['seed']}",
        "",
        f"Log: {run['counts']['events']:,} events of {run['counts']['users']:,} users on "
        f"{run['counts']['items']:,} items, {run['window']['first']} to {run['window']['last']}. "
        f"Trained in {run['seconds']:.0f} s.",
        "",
        "## Data",
        "",
        *data_page(run["data"]),
        "",
        "## Retrieval and ranking",
        "",
        f"Protocol: {run['protocol']}.",
        "",
        f"| | tests | {' | '.join(COLUMNS.values())} |",
        "|---" * (len(COLUMNS) + 2) + "|",
    ]
    lines += [
        f"| {title} | {tests:,} | {' | '.join(cells)} |" for title, tests, cells in rows(metrics)
    ]
    ranking = metrics["ranking"]
    lines += [
        "",
        f"Ranking model on {ranking['examples']} validation examples: loss {ranking['loss']:.4f}, "
        f"accuracy {ranking['accuracy']:.4f}, AUC {ranking['auc']:.4f}.",
        "",
        "## Forgetting",
        "",
        "| cut | cases | base rate | AUC | log loss | of the base rate |",
        "|---|---|---|---|---|---|",
    ]
    for cut, row in metrics["forgetting"].items():
        lines.append(
            f"| {cut.replace('_', ' ')} | {row['cases']} | {row['base_rate']:.4f} "
            f"| {row['auc']:.4f} | {row['log_loss']:.4f} | {row['base_log_loss']:.4f} |"
        )
    lines += ["", "## Curves", ""]
    lines += [f"![{model}]({model}.png)\n" for model in curves]
    return "\n".join(lines)
