"""What `ebbing evaluate forgetting` shows: a table, a page and two plots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from rich.table import Table

from trainer.baselines import BASELINES
from trainer.evaluate_forgetting import ForgettingEvaluation
from trainer.metrics import CALIBRATION_BINS, equal_width_bins
from trainer.plotting import (
    INK,
    MUTED,
    PREDICTED,
    plain,
    plain_number,
    png,
    wilson,
    with_interval,
)

COLUMNS = {"auc": "AUC", "user_auc": "user-AUC", "log_loss": "log loss", "brier": "Brier"}
ENGINE = "Ebbing's engine"
LEGEND = (
    "In brackets: the engine less the baseline. Of both AUC more is better, of log loss, Brier and "
    "ECE less."
)
GROUPS = ((1, 1), (2, 3), (4, 9), (10, None))
"""Engagements of the interests that share a forgetting curve: from, up to."""
RECENCY_BINS = 9
CASES_A_BIN = 20
"""At least so many, or a share says little."""


def table(evaluation: ForgettingEvaluation) -> Table:
    """The engine beside the baselines; in brackets by how much the engine is above a baseline."""
    shown = Table(
        box=None, pad_edge=False, header_style="bold", caption=LEGEND, caption_justify="left"
    )
    shown.add_column("", no_wrap=True)
    for title in (*COLUMNS.values(), "ECE"):
        shown.add_column(title, justify="right", no_wrap=True)
    for title, row, gained in _rows(evaluation):
        cells = [
            _number(row[name]) + (f" [dim]({gained[name]})[/dim]" if gained else "")
            for name in COLUMNS
        ]
        ours = "bold" if title == ENGINE else ""
        shown.add_row(title, *cells, _number(row["ece"]), style=ours)
    return shown


def report(evaluation: ForgettingEvaluation, about: Mapping[str, Any]) -> dict[str, bytes]:
    """Files of the report by name: report.md, reliability.png and curves.png.

    Args:
        evaluation: what is reported.
        about: `ForgettingEvaluation.to_json` and beside it data, seconds and peak_memory_bytes.
    """
    return {
        "report.md": _page(evaluation, about).encode(),
        "reliability.png": png(_reliability(evaluation)),
        "curves.png": png(_curves(evaluation)),
    }


def _rows(
    evaluation: ForgettingEvaluation,
) -> Iterator[tuple[str, Mapping[str, float | None], dict[str, str]]]:
    yield ENGINE, evaluation.shipped, {}
    for name, row in evaluation.baselines.items():
        gained = {column: _difference(evaluation.shipped[column], row[column]) for column in row}
        yield BASELINES[name].title, row, gained


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _difference(ours: float | None, theirs: float | None) -> str:
    return "–" if ours is None or theirs is None else f"{ours - theirs:+.4f}".replace("-", "−")


def _page(evaluation: ForgettingEvaluation, about: Mapping[str, Any]) -> str:
    lines = [
        f"# Forgetting on {about['data']}, {about['horizon_days']:g} days ahead",
        "",
        f"By {about['protocol']}.",
        "",
        f"Cut at {about['cut']}: {len(evaluation.returned):,} cases of {about['users']:,} users, "
        f"{about['base_rate']:.2%} of which returned. Parameters: {about['forgetting_version']}. "
        f"Fitted and measured in {about['seconds']:.1f} s with "
        f"{about['peak_memory_bytes'] / 2**20:,.0f} MiB at most.",
        *(["", f"**Mind**: {evaluation.shortened}."] if evaluation.shortened else []),
        "",
        f"| | {' | '.join(COLUMNS.values())} | ECE | ECE, equal mass |",
        "|---" * (len(COLUMNS) + 3) + "|",
    ]
    for title, row, gained in _rows(evaluation):
        cells = [_number(row[name]) + (f" ({gained[name]})" if gained else "") for name in COLUMNS]
        cells += [_number(row["ece"]), _number(row["ece_equal_mass"])]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    lines += [
        "",
        f"{LEGEND} AUC counts ties half; user-AUC is the mean over users who have both outcomes; "
        "log loss is in nats; ECE is the expected calibration error over "
        f"{CALIBRATION_BINS} bins of equal width (equal mass: of as many cases).",
        "",
        "Baselines were fitted one horizon before the cut, or as many as it takes to find both "
        "outcomes. Chosen there: "
        + "; ".join(
            f"{BASELINES[name].title} " + BASELINES[name].unknown.format(value)
            for name, value in evaluation.chosen.items()
        )
        + ".",
        "",
        "## Reliability",
        "",
        "![reliability](reliability.png)",
        "",
        "## Forgetting curves",
        "",
        "![forgetting curves](curves.png)",
        "",
    ]
    return "\n".join(lines)


def _reliability(evaluation: ForgettingEvaluation) -> Figure:
    """Share returned by predicted retention, over the number of cases."""
    predicted, observed, cases = _binned(
        equal_width_bins(evaluation.retention), evaluation.retention, evaluation
    )
    figure = Figure(figsize=(6.4, 6.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    above.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--", label="perfect")
    with_interval(above, predicted, observed, cases, "engine, with 95 % interval")
    above.set(
        ylabel="share that returned",
        xlim=(0, 1),
        ylim=(0, 1.03),
        title=f"Reliability (ECE {evaluation.shipped['ece']:.4f})",
    )
    above.legend(loc="upper left", frameon=False)
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    counts = np.histogram(evaluation.retention, edges)[0]
    bars = below.bar(edges[:-1], counts, np.diff(edges), align="edge", color=PREDICTED, alpha=0.75)
    below.bar_label(bars, [f"{n:,}" if n else "" for n in counts], fontsize=6.5, color=INK)
    below.set(xlabel="predicted retention", ylabel="cases", yscale="log")
    below.yaxis.set_major_formatter(plain_number)
    below.yaxis.set_minor_locator(NullLocator())
    below.set_ylim(0.7, max(int(counts.max()) * 6, 10))
    plain(above, below)
    return figure


def _curves(evaluation: ForgettingEvaluation) -> Figure:
    """Share returned by recency, observed and predicted, a panel a number of engagements."""
    figure = Figure(figsize=(9, 6.2), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True).ravel()
    for panel, (least, most) in zip(panels, GROUPS, strict=True):
        inside = evaluation.count >= least
        if most is not None:
            inside &= evaluation.count <= most
        _title(panel, least, most, int(inside.sum()))
        if not inside.any():
            continue
        bins, days = _recency_bins(evaluation.recency[inside])
        predicted, observed, cases = _binned(bins, evaluation.retention, evaluation, inside)
        panel.plot(
            days, predicted, color=PREDICTED, linewidth=2, marker=".", label="predicted retention"
        )
        with_interval(panel, days, observed, cases, "observed, with 95 % interval")
        panel.set_ylim(0, min(1.03, 1.08 * max(predicted.max(), wilson(observed, cases)[1].max())))
    panels[0].set_xscale("log")
    panels[0].xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    panels[0].xaxis.set_major_formatter(plain_number)
    panels[0].xaxis.set_minor_locator(NullLocator())
    for panel in panels[2:]:
        panel.set_xlabel("days since the newest engagement")
    for panel in panels[::2]:
        panel.set_ylabel("share that returned")
    drawn = next(panel for panel in panels if panel.has_data())
    figure.legend(*drawn.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    ahead = evaluation.horizon_s / 86_400
    figure.suptitle(f"Forgetting curves: return within {ahead:g} days", color=INK)
    plain(*panels)
    return figure


def _title(panel: Axes, least: int, most: int | None, cases: int) -> None:
    many = f"{least} or more" if most is None else f"{least}" + (f"–{most}" if most > least else "")
    panel.set_title(f"{many} engagement{'s' if most != 1 else ''} ({cases:,} cases)", fontsize=10)


def _recency_bins(recency: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bins of as many cases, numbered from 0 without gaps, and the median days of each."""
    below = np.searchsorted(np.sort(recency), recency)
    wanted = np.clip(len(recency) // CASES_A_BIN, 1, RECENCY_BINS)
    _, bins = np.unique(below * wanted // len(recency), return_inverse=True)
    medians = [np.median(recency[bins == number]) for number in range(bins.max() + 1)]
    # A log axis has no place for what was engaged this moment.
    return bins, np.maximum(np.array(medians), 0.25)


def _binned(
    bins: np.ndarray,
    retention: np.ndarray,
    evaluation: ForgettingEvaluation,
    inside: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each bin that has cases: mean retention, share returned, and how many cases."""
    which = slice(None) if inside is None else inside
    cases = np.bincount(bins)
    some = cases > 0
    predicted = np.bincount(bins, retention[which])[some] / cases[some]
    observed = np.bincount(bins, evaluation.returned[which])[some] / cases[some]
    return predicted, observed, cases[some]
