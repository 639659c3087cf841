"""The training report: what was trained on what, how it went, and how good it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ebbing.history import MODEL_TENSORS
from trainer.curves import EpochFigures
from trainer.data.load import data_page
from trainer.evaluation.plots import plots
from trainer.evaluation.ranking import RankingEvaluation
from trainer.evaluation.report import meanings, sections
from trainer.plotting import INK, MUTED, OBSERVED, PREDICTED, plain, png

ACCURACY = {"retrieval": "hit rate at 10", "ranking": "accuracy"}
"""What `EpochFigures.validation_accuracy` is of each model."""


def write_report(
    folder: Path,
    run: Mapping[str, Any],
    curves: Mapping[str, Sequence[EpochFigures]],
    evaluation: RankingEvaluation,
) -> None:
    """Write report.md and its plots into a run folder.

    Args:
        folder: of the run, with the files it declares.
        run: what run.json holds.
        curves: of each model; one without any is not drawn.
        evaluation: whose figures `run["metrics"]` has.
    """
    curves = {model: points for model, points in curves.items() if points}
    drawn = {f"{model}.png": png(_curves(points, model)) for model, points in curves.items()}
    for name, content in {**drawn, **plots(evaluation)}.items():
        (folder / name).write_bytes(content)
    lines = _page(folder, run, curves)
    (folder / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _curves(points: Sequence[EpochFigures], model: str) -> Figure:
    """Loss and accuracy by epoch; the epoch that validates best is marked."""
    epochs = [point.epoch for point in points]
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    look = {"marker": ".", "linewidth": 1.8}
    left.plot(epochs, [point.train_loss for point in points], color=MUTED, label="training", **look)
    left.plot(
        epochs,
        [point.validation_loss for point in points],
        color=PREDICTED,
        label="validation",
        **look,
    )
    left.set(title=f"{model} model: loss", ylabel="nats")
    measured = {ACCURACY[model]: [point.validation_accuracy for point in points]}
    ndcg = [point.validation_ndcg for point in points]
    if np.isfinite(ndcg).any():
        measured["NDCG at 10"] = ndcg
    for colour, (label, values) in zip((PREDICTED, OBSERVED), measured.items(), strict=False):
        right.plot(epochs, values, color=colour, label=label, **look)
    decisive = np.array(list(measured.values())[-1], np.float64)
    if np.isfinite(decisive).any():
        best = int(np.nanargmax(decisive))
        right.axvline(epochs[best], color=INK, linewidth=0.8, linestyle=":")
        right.annotate(
            f"best: {decisive[best]:.4f}",
            (epochs[best], decisive[best]),
            textcoords="offset points",
            xytext=(-4, 6),
            ha="right",
            fontsize=8,
            color=INK,
        )
    right.set(title=f"{model} model: validation")
    right.margins(y=0.15)
    for panel in (left, right):
        panel.set_xlabel("epoch")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.legend(frameon=False, fontsize=8)
    plain(left, right)
    return figure


def _page(
    folder: Path, run: Mapping[str, Any], curves: Mapping[str, Sequence[EpochFigures]]
) -> Iterator[str]:
    metrics = run["metrics"]
    yield from (f"# Training report: recipe {run['recipe']}, seed {run['seed']}", "")
    yield from (*_trained(run), "", *sections(metrics))
    yield from ("## Data", "", *data_page(run["data"]), "")
    yield from ("## How training went", "")
    for model in curves:
        yield from (f"![{model}]({model}.png)", "")
    ranking = metrics["ranking"]
    yield (
        f"The ranking model on {ranking['examples']:,} examples held out to validate it: loss "
        f"{ranking['loss']:.4f}, accuracy {ranking['accuracy']:.4f}, AUC {ranking['auc']:.4f}."
    )
    yield from _encoder(metrics.get("item_encoder"))
    yield from ("", "## Forgetting", "", *_forgetting(metrics["forgetting"]), "")
    yield from ("## Files", "", *_files(folder, run), "", *meanings())


def _encoder(figures: Mapping[str, float] | None) -> Iterator[str]:
    if figures:
        yield ""
        yield (
            f"Of {figures['held_out']:,} items that the item encoder was not trained on, placed by "
            f"what describes them: cosine to where training had them {figures['cosine']:.3f}; "
            f"share of users' first ten {figures['placed_share_of_first_ten']:.2%}, which is "
            f"{figures['trained_share_of_first_ten']:.2%} where training had them."
        )


def _trained(run: Mapping[str, Any]) -> Iterator[str]:
    counts, held_out = run["counts"], run["held_out"]
    stopped = " until its time was up" if run["stopped_by_budget"] else ""
    yield (
        f"Trained{stopped} on {counts['training_events']:,} of {counts['events']:,} events of "
        f"{counts['users']:,} users on {counts['items']:,} items, {run['window']['first']} to "
        f"{run['window']['last']}; {held_out['events']:,} were held out, {held_out['tests']:,} of "
        f"which are tests. It took {run['seconds']:,.0f} s and "
        f"{run['peak_memory_bytes'] / 2**20:,.0f} MiB at most."
    )


def _forgetting(metrics: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield (
        "Whether interests come back within the horizon, as retention predicts it, beside always "
        "saying how often they do (more in `ebbing evaluate forgetting`):"
    )
    yield ""
    yield "| cut | cases | base rate | AUC | log loss | of the base rate |"
    yield "|---|---|---|---|---|---|"
    for cut, row in metrics.items():
        yield (
            f"| {cut.replace('_', ' ')} | {row['cases']:,} | {row['base_rate']:.4f} "
            f"| {row['auc']:.4f} | {row['log_loss']:.4f} | {row['base_log_loss']:.4f} |"
        )


def _files(folder: Path, run: Mapping[str, Any]) -> Iterator[str]:
    yield "| file | KiB | sha256 begins with |"
    yield "|---|---|---|"
    for name, digest in run["files"].items():
        size = (folder / name).stat().st_size / 1024
        yield f"| `{name}` | {size:,.0f} | `{digest[:16]}` |"
    worst = max(run["parity"][name] for name in MODEL_TENSORS if name in run["parity"])
    yield ""
    yield (
        f"The exported models answer as the trained ones did, to {worst:.1g} (allowed: "
        f"{run['parity']['tolerance']:.0g}); code {run['code_version']}, input layout "
        f"`{run['layout_digest'][:16]}`."
    )
    if start := run["started_from"]:
        yield ""
        yield (
            f"Training of the retrieval model went on from the run `{start['run']}` (recipe "
            f"{start['recipe']}, code {start['code_version']}, events up to "
            f"{start['window']['last']}; its weights `{start['weights'][:16]}`)."
        )
