"""Pages about how good retrieval and ranking are, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trainer.evaluation.measures import CUTOFFS, SLATE
from trainer.evaluation.plots import plots
from trainer.evaluation.ranking import RETRIEVAL, SCORERS, SHORT, RankingEvaluation
from trainer.evaluation.reranking import ORDERS
from trainer.evaluation.scorers import RECENT_DAYS
from trainer.evaluation.slices import FEW_EVENTS, FEW_TRAINED
from trainer.evaluation.table import bounds, number

TITLES = {
    **{f"hit_rate_at_{k}": f"HR@{k}" for k in CUTOFFS},
    **{f"ndcg_at_{k}": f"NDCG@{k}" for k in CUTOFFS},
    "mrr": "MRR",
    "accuracy": "accuracy",
    f"precision_at_{SLATE}": f"precision@{SLATE}",
    f"recall_at_{SLATE}": f"recall@{SLATE}",
    f"f1_at_{SLATE}": f"F1@{SLATE}",
    f"coverage_at_{SLATE}": f"coverage@{SLATE}",
    f"novelty_at_{SLATE}": f"novelty@{SLATE}, bits",
    f"interest_diversity_at_{SLATE}": f"diversity@{SLATE} by interests",
    f"vector_diversity_at_{SLATE}": f"diversity@{SLATE} by vectors",
}
"""Figures of the report, and how they are called in it."""

RELEVANCE = {
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "auc": "AUC",
    "log_loss": "log loss",
    "brier": "Brier",
    "ece": "ECE",
}

MEANINGS = (
    "The rank of a test is that of the wanted item among all items of the catalogue that may be "
    "recommended, from 1; whatever scores the same counts as before it. HR@k is the share of tests "
    "whose rank is k or better, NDCG@k the mean of 1 / log2(1 + rank) over them and 0 over the "
    "others, MRR the mean of 1 / rank over all. One item is wanted a test, so that recall@k is "
    "HR@k, precision@k its k-th part, F1@k their harmonic mean, and accuracy HR@1.",
    f"Over slates of {SLATE}: coverage is the share of the catalogue that anybody is shown; "
    "novelty the mean of −log2 of the share of users who had an item; diversity the mean over "
    "pairs of 1 − cosine, of the shares of interests or of the model's item vectors.",
    "Intervals hold 95 % of the means over users drawn with replacement, each with all their tests "
    "(percentile bootstrap); differences are taken over the same users. What lies on one side of 0 "
    "is unlikely to be chance.",
    f"New users have had fewer than {FEW_EVENTS} events before the test, new items were had fewer "
    f"than {FEW_TRAINED} times in training. The interest of a test is what its item is about most, "
    "as the forgetting engine saw it just before. The items most had lately are those of the "
    f"{RECENT_DAYS:g} days before the test, of training events alone.",
)


def pages(evaluation: RankingEvaluation, figures: Mapping[str, Any]) -> dict[str, bytes]:
    """Files of the report by name: report.md and its plots.

    Args:
        evaluation: what is reported.
        figures: `RankingEvaluation.to_json`, and beside it run, data, seconds and
            peak_memory_bytes.
    """
    lines = [
        f"# {figures['run']} on {figures['data']}",
        "",
        *sections(figures),
        *meanings(),
        f"Measured in {figures['seconds']:.1f} s with "
        f"{figures['peak_memory_bytes'] / 2**20:,.0f} MiB at most.",
        "",
    ]
    return {"report.md": "\n".join(lines).encode(), **plots(evaluation)}


def sections(figures: Mapping[str, Any]) -> Iterator[str]:
    """Lines of Markdown of `RankingEvaluation.to_json`, with the plots of `plots`."""
    yield from (_verdict(figures), "", f"By {figures['protocol']}.", "", _left_out(figures), "")
    yield from ("## The whole catalogue", "", *_whole(figures), "")
    yield from ("![hit rates and ranks](places.png)", "", *_gains(figures), "")
    yield from ("## Whom it is good for", "", *_slices(figures), "", "![slices](slices.png)", "")
    yield from ("## Popular and rare items", "", "![popularity](popularity.png)", "")
    yield from ("## What the ranker adds", "", *_reranking(figures), "")
    if figures["relevance"]["pairs"]:
        yield from ("![relevance](relevance.png)", "")


def meanings() -> Iterator[str]:
    """Lines of Markdown that say what the figures are."""
    yield from ("## What the figures mean", "")
    for meaning in MEANINGS:
        yield from (meaning, "")


def _verdict(figures: Mapping[str, Any]) -> str:
    name = "hit_rate_at_10"
    ours = figures["full_catalogue"][RETRIEVAL]
    best = max(
        (scorer for scorer in SCORERS if scorer != RETRIEVAL),
        key=lambda scorer: figures["full_catalogue"][scorer][name],
    )
    theirs = figures["full_catalogue"][best][name]
    gain = figures["gains"][best][name]
    low, high = figures["intervals"][RETRIEVAL][name]
    told = (
        f"**The retrieval model has the wanted item among its first ten in {ours[name]:.1%} of "
        f"{ours['tests']:,} tests** ({low:.1%} to {high:.1%}). Of what needs no model, "
        f"{SCORERS[best]} come first, with {theirs:.1%}: "
    )
    if gain["low"] > 0:
        times = f", {ours[name] / theirs:.1f} times as many hits" if theirs else ""
        return told + f"the model is ahead by {_signed(gain)}{times}."
    if gain["high"] < 0:
        return told + f"**the model is behind**, by {_signed(gain)}."
    return told + f"the difference, {_signed(gain)}, may be chance."


def _left_out(figures: Mapping[str, Any]) -> str:
    asked = figures["asked"]
    left = asked["left_out"]
    same = (
        ""
        if asked["repeats"]
        else f" As seen items are not recommended, {SHORT['repeat']} is what {SHORT['popular']} is."
    )
    return (
        f"{asked['tests']:,} tests of {asked['users']:,} users; {asked['items']:,} items, "
        f"{asked['items_known']:,} of which the model knows, {asked['items_placed']:,} are placed "
        f"by what they are about; {asked['training_events']:,} training events. "
        f"Left out: {left['users_of_one_event']:,} users of whom nothing else is known, "
        f"{left['items_had_before']:,} tests of an item the user had before, "
        f"{left['items_never_in_training']:,} of an item never in training.{same}"
    )


def _whole(figures: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"- {SHORT[name]}: {title}" for name, title in SCORERS.items())
    yield ""
    yield f"| | {' | '.join(SHORT[name] for name in SCORERS)} |"
    yield "|---" * (len(SCORERS) + 1) + "|"
    for name, title in TITLES.items():
        cells = []
        for scorer in SCORERS:
            interval = figures["intervals"][scorer].get(name)
            shown = number(figures["full_catalogue"][scorer][name])
            cells.append(f"{shown} [{bounds(interval)}]" if interval else shown)
        yield f"| {title} | {' | '.join(cells)} |"


def _gains(figures: Mapping[str, Any]) -> Iterator[str]:
    yield "The retrieval model less …"
    yield ""
    named = ("hit_rate_at_10", "ndcg_at_10", "mrr")
    yield f"| | {' | '.join(TITLES[name] for name in named)} |"
    yield "|---" * (len(named) + 1) + "|"
    for scorer, row in figures["gains"].items():
        yield f"| … {SHORT[scorer]} | {' | '.join(_signed(row[name]) for name in named)} |"


def _slices(figures: Mapping[str, Any]) -> Iterator[str]:
    baselines = [name for name in SCORERS if name != RETRIEVAL]
    yield (
        "| HR@10 | tests | "
        + " | ".join(SHORT[name] for name in (RETRIEVAL, *baselines))
        + (" | the model less the best of them |")
    )
    yield "|---" * (len(SCORERS) + 3) + "|"
    for one in figures["slices"].values():
        of = {name: one["figures"][name]["hit_rate_at_10"] for name in SCORERS}
        best = max(baselines, key=lambda name: of[name]["value"] or 0.0)
        cells = [
            f"{number(of[name]['value'])} [{bounds([of[name]['low'], of[name]['high']])}]"
            for name in (RETRIEVAL, *baselines)
        ]
        gain = _signed(one["gains"][best]["hit_rate_at_10"])
        yield f"| {one['title']} | {one['tests']:,} | {' | '.join(cells)} | {gain} |"


def _reranking(figures: Mapping[str, Any]) -> Iterator[str]:
    named = ("hit_rate_at_1", "hit_rate_at_10", "ndcg_at_10", "mrr")
    yield f"| the candidates in the order of | tests | {' | '.join(TITLES[n] for n in named)} |"
    yield "|---" * (len(named) + 2) + "|"
    for order, row in figures["reranking"].items():
        cells = " | ".join(number(row.get(name)) for name in named)
        yield f"| {ORDERS[order]} | {row['tests']:,} | {cells} |"
    relevance = figures["relevance"]
    yield ""
    yield (
        f"Relevance as a yes or no, yes from 0.5 on, of {relevance['pairs']:,} pairs of a user and "
        f"an item, {relevance['positive']:,} of which were wanted; the others are drawn from the "
        "catalogue and from the candidates, as in training."
    )
    yield ""
    yield f"| {' | '.join(RELEVANCE.values())} |"
    yield "|---" * len(RELEVANCE) + "|"
    yield f"| {' | '.join(number(relevance[name]) for name in RELEVANCE)} |"


def _signed(gain: Mapping[str, float | None]) -> str:
    """A difference with its interval."""
    if gain["value"] is None:
        return "–"
    value, low, high = (
        "–" if gain[end] is None else f"{gain[end]:+.4f}".replace("-", "−")
        for end in ("value", "low", "high")
    )
    return f"{value} [{low}, {high}]"
