"""The plots of how good retrieval and ranking are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, PercentFormatter

from trainer.evaluation.measures import CUTOFFS, SLATE
from trainer.evaluation.ranking import (
    OF_SLICES,
    RETRIEVAL,
    SCORERS,
    SHORT,
    RankingEvaluation,
    column,
)
from trainer.metrics import CALIBRATION_BINS, equal_width_bins
from trainer.plotting import (
    INK,
    MUTED,
    OBSERVED,
    PREDICTED,
    plain,
    plain_number,
    png,
    with_interval,
)

COLOURS = {
    RETRIEVAL: PREDICTED,
    "popular": MUTED,
    "recently_popular": "#c99a2e",
    "repeat": "#4b8b5b",
}
POPULARITY_BINS = 8
TESTS_A_BIN = 20
"""At least so many, or a share says little."""


def plots(evaluation: RankingEvaluation) -> dict[str, bytes]:
    """PNG files by name, those that there is something to draw for."""
    drawn = {
        "places.png": _places(evaluation),
        "slices.png": _slices(evaluation),
        "popularity.png": _popularity(evaluation),
    }
    if len(evaluation.reranking.wanted):
        drawn["relevance.png"] = _relevance(evaluation)
    return {name: png(figure) for name, figure in drawn.items()}


def _places(evaluation: RankingEvaluation) -> Figure:
    """How often the wanted item is among the first k, and where it stands."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    n = len(evaluation.log.item_ids)
    ks = np.unique(np.geomspace(1, min(n, 1000), 60).round())
    edges = np.unique(np.geomspace(1, n + 1, 22).round())
    for name, ranks in _ranks(evaluation).items():
        ours = name == RETRIEVAL
        look = {"color": COLOURS[name], "linewidth": 2.4 if ours else 1.4, "zorder": 3 + ours}
        found = np.searchsorted(np.sort(ranks), ks, side="right") / len(ranks)
        left.plot(ks, found, label=SHORT[name], **look)
        share = np.histogram(ranks, edges)[0] / len(ranks)
        right.stairs(
            share, edges, color=COLOURS[name], linewidth=look["linewidth"], zorder=3 + ours
        )
    for k in CUTOFFS:
        interval = evaluation.mean(RETRIEVAL, f"hit_rate_at_{k}")
        left.plot([k, k], [interval.low, interval.high], color=PREDICTED, linewidth=6, alpha=0.3)
    left.set(xscale="log", xlabel="k", title="Wanted item among the first k", ylim=(0, None))
    right.set(xscale="log", xlabel="rank of the wanted item", title="Where the wanted item stands")
    for panel, what in ((left, "hit rate"), (right, "share of tests")):
        panel.set_ylabel(what)
        panel.xaxis.set_major_formatter(plain_number)
        panel.xaxis.set_minor_locator(NullLocator())
        panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    plain(left, right)
    return figure


def _slices(evaluation: RankingEvaluation) -> Figure:
    """Hit rate and gain by slice, with intervals."""
    rows = [("all tests", int(evaluation.seen.sum()))]
    rows += [(one.title, int(one.which.sum())) for one, _ in evaluation.slices]
    figure = Figure(figsize=(10, 1.4 + 0.42 * len(rows)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, (name, title) in zip(
        panels, (("hit_rate_at_10", "hit rate at 10"), ("ndcg_at_10", "NDCG at 10")), strict=True
    ):
        scorers = _drawn(evaluation)
        for scorer, offset in zip(scorers, np.linspace(0.24, -0.24, len(scorers)), strict=True):
            of_slices = [
                means.interval(column(scorer, name, OF_SLICES)) for _, means in evaluation.slices
            ]
            for row, one in enumerate([evaluation.mean(scorer, name), *of_slices]):
                y = -row + offset
                panel.plot([one.low, one.high], [y, y], color=COLOURS[scorer], linewidth=1.4)
                panel.plot(
                    [one.value],
                    [y],
                    "o",
                    color=COLOURS[scorer],
                    markersize=6 if scorer == RETRIEVAL else 4,
                    label=SHORT[scorer] if row == 0 else None,
                )
        panel.axhline(-0.5, color=MUTED, linewidth=0.8)
        panel.set(title=title, xlim=(-0.004, None))
        panel.xaxis.set_major_formatter(plain_number)
    panels[0].set_yticks(
        -np.arange(len(rows)), [f"{title}\n{tests:,} tests" for title, tests in rows]
    )
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    plain(*panels)
    panels[0].tick_params(axis="y", labelsize=8, length=0)
    return figure


def _popularity(evaluation: RankingEvaluation) -> Figure:
    """Hits by how often the wanted item was had in training, and what slates are filled with."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    known = evaluation.tests.known
    had = np.bincount(known.items, minlength=len(known.item_ids))
    wanted = had[evaluation.log.items[evaluation.tests.events]]
    bins = _bins(wanted)
    cases = np.bincount(bins)
    lowest, highest = (
        np.array([edge(wanted[bins == number]) for number in range(len(cases))])
        for edge in (np.min, np.max)
    )
    x = np.arange(len(cases))
    spans = [f"{a:,}" if a == b else f"{a:,}–{b:,}" for a, b in zip(lowest, highest, strict=True)]
    # An item belongs to the last bin that begins at no more than what it was had.
    of_items = np.maximum(np.searchsorted(lowest, had, side="right") - 1, 0)
    for name, ranks in _ranks(evaluation).items():
        ours = name == RETRIEVAL
        look = {"color": COLOURS[name], "linewidth": 2.4 if ours else 1.4, "marker": "."}
        hits = np.bincount(bins, ranks <= SLATE) / cases
        left.plot(x, hits, label=SHORT[name], zorder=3 + ours, **look)
        slates = evaluation.places[name].slates[evaluation.seen][:, :SLATE]
        shown = np.bincount(of_items[slates[slates >= 0]], minlength=len(cases))
        right.plot(x, shown / max(shown.sum(), 1), zorder=3 + ours, **look)
    right.plot(x, cases / cases.sum(), color=INK, linestyle="--", linewidth=1, label="wanted items")
    left.set(title="Hit rate at 10 by popularity of the wanted item", ylabel="hit rate at 10")
    right.set(title="What slates are filled with", ylabel="share of the slates' items")
    for panel in (left, right):
        panel.set(xlabel="times the item was had in training", ylim=(0, None))
        panel.set_xticks(x, spans)
    handles, labels = left.get_legend_handles_labels()
    more = right.get_legend_handles_labels()
    figure.legend(handles + more[0], labels + more[1], loc="outside lower center", ncols=5)
    plain(left, right)
    return figure


def _relevance(evaluation: RankingEvaluation) -> Figure:
    """How right the ranker's relevance is, and how well it tells wanted items from others."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    relevance, wanted = evaluation.reranking.relevance, evaluation.reranking.wanted
    bins = equal_width_bins(relevance)
    cases = np.bincount(bins, minlength=CALIBRATION_BINS)
    some = cases > 0
    predicted = np.bincount(bins, relevance, CALIBRATION_BINS)[some] / cases[some]
    observed = np.bincount(bins, wanted, CALIBRATION_BINS)[some] / cases[some]
    left.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--", label="perfect")
    with_interval(left, predicted, observed, cases[some], "ranker, with 95 % interval")
    left.set(
        title="Is relevance a probability?",
        xlabel="predicted relevance",
        ylabel="share that was wanted",
        xlim=(0, 1),
        ylim=(0, 1.03),
    )
    left.legend(loc="upper left", frameon=False)
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    for label, which, colour in (("wanted", wanted, OBSERVED), ("not wanted", ~wanted, MUTED)):
        share = np.histogram(relevance[which], edges)[0] / max(which.sum(), 1)
        right.stairs(share, edges, color=colour, fill=True, alpha=0.35)
        right.stairs(share, edges, color=colour, linewidth=1.6, label=label)
    right.set(
        title="Does it tell them apart?",
        xlabel="predicted relevance",
        ylabel="share of those",
        xlim=(0, 1),
    )
    right.legend(frameon=False)
    plain(left, right)
    return figure


def _drawn(evaluation: RankingEvaluation) -> list[str]:
    """The scorers that differ: what repeats is what is popular where nothing is repeated."""
    return [name for name in SCORERS if evaluation.tests.repeats or name != "repeat"]


def _ranks(evaluation: RankingEvaluation) -> Mapping[str, np.ndarray]:
    return {name: evaluation.places[name].ranks[evaluation.seen] for name in _drawn(evaluation)}


def _bins(values: np.ndarray) -> np.ndarray:
    """(T,) bins of about as many tests, numbered from 0 without gaps; equals stay together."""
    below = np.searchsorted(np.sort(values), values)
    wanted = int(np.clip(len(values) // TESTS_A_BIN, 1, POPULARITY_BINS))
    bins: np.ndarray = np.unique(below * wanted // len(values), return_inverse=True)[1]
    return bins
