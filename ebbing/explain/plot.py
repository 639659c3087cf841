"""The past and predicted course of interests as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ebbing.explain.findings import MOST_DRAWN, Findings
from ebbing.terminal import state_name
from ebbing.v1.interest_service_pb2 import InterestHistoryPoint

__all__ = ["draw"]

STATE_COLOURS = {
    "new": "#7fd3de",
    "active": "#8ccf8a",
    "resting": "#9dbde8",
    "fading": "#f7d774",
    "forgotten": "#ee9a95",
    "revived": "#dca6dd",
}
PAST_ALPHA, FORECAST_ALPHA = 0.65, 0.3
RETENTION, STRENGTH = "#1b1b1b", "#7a3e00"
WIDTH_IN, PANEL_IN, FRAME_IN = 11.0, 1.5, 1.5
DASHES = (0, (4, 2))


class _Point(NamedTuple):
    time: datetime
    forecast: bool
    state: str
    retention: float
    strength: float


def _course(points: Sequence[InterestHistoryPoint], path: str) -> list[_Point]:
    """The course of one interest, from its first event on."""
    return [
        _Point(
            datetime.fromtimestamp(point.time.ToMicroseconds() / 1e6, UTC),
            point.forecast,
            state_name(one.state),
            one.retention,
            one.strength,
        )
        for point in points
        for one in point.interests
        if one.interest == path
    ]


def _shade(axes: Any, course: Sequence[_Point]) -> None:
    """Colour the times of each state; paler where they are a forecast."""
    spans = [list(run) for _, run in groupby(course, lambda p: (p.state, p.forecast))]
    for span, following in zip(spans, [*spans[1:], None], strict=True):
        end = following[0].time if following else span[-1].time
        alpha = FORECAST_ALPHA if span[0].forecast else PAST_ALPHA
        axes.axvspan(
            span[0].time, end, color=STATE_COLOURS.get(span[0].state), alpha=alpha, linewidth=0
        )


def _line(axes: Any, course: Sequence[_Point], values: Sequence[float], **style: Any) -> None:
    """A line that is solid up to the moment asked about, and dashed from there on."""
    times = [point.time for point in course]
    past = sum(not point.forecast for point in course)
    axes.plot(times[:past], values[:past], **style)
    ahead = max(0, past - 1)
    axes.plot(times[ahead:], values[ahead:], linestyle=DASHES, **style)


def _legend(figure: Figure, states: set[str]) -> None:
    handles = [
        Line2D([], [], color=RETENTION, label="retention"),
        Line2D([], [], color=STRENGTH, label="strength"),
        Line2D([], [], color=RETENTION, linestyle=DASHES, label="predicted"),
        *(
            Patch(color=colour, alpha=PAST_ALPHA, label=state)
            for state, colour in STATE_COLOURS.items()
            if state in states
        ),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)


def draw(findings: Findings, points: Sequence[InterestHistoryPoint], path: Path) -> None:
    """Draw the course of the interests explained, one below the other, into a file.

    Raises:
        OSError: the file cannot be written.
        ValueError: its ending names no format of pictures, or there is no interest to draw.
    """
    shown = findings.interests[:MOST_DRAWN]
    if not shown:
        raise ValueError("no event of this user shows an interest")
    now = datetime.fromtimestamp(findings.at_s, UTC)
    figure = Figure(figsize=(WIDTH_IN, FRAME_IN + PANEL_IN * len(shown)), layout="constrained")
    panels = figure.subplots(len(shown), sharex=True, squeeze=False)[:, 0]
    states: set[str] = set()
    for axes, one in zip(panels, shown, strict=True):
        course = _course(points, one.interest)
        states |= {point.state for point in course}
        strength_axes = axes.twinx()
        _shade(strength_axes, course)
        _line(strength_axes, course, [p.strength for p in course], color=STRENGTH, linewidth=1.1)
        _line(axes, course, [p.retention for p in course], color=RETENTION, linewidth=1.6)
        axes.set_zorder(strength_axes.get_zorder() + 1)
        axes.patch.set_visible(False)
        axes.axvline(now, color="black", linewidth=0.8, linestyle=":")
        axes.set_ylim(0.0, 1.02)
        axes.set_yticks([0.0, 0.5, 1.0])
        strength_axes.set_ylim(bottom=0.0)
        strength_axes.tick_params(axis="y", colors=STRENGTH)
        axes.set_title(
            f"{one.interest} — {state_name(one.state)}, retention {one.retention:.0%}",
            loc="left",
            fontsize=10,
            parse_math=False,
        )
    moments = [datetime.fromtimestamp(p.time.ToMicroseconds() / 1e6, UTC) for p in points]
    panels[0].set_xlim(moments[0], moments[-1])
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    panels[-1].xaxis.set_major_locator(locator)
    panels[-1].xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    panels[0].annotate(
        "now",
        (now, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(0, 3),
        textcoords="offset points",
        horizontalalignment="center",
        fontsize=8,
    )
    figure.suptitle(
        f"Interests of {findings.profile.user_id}: retention within {findings.horizon_days:g} d"
        " (left, black) and strength in events' worth (right, brown)",
        fontsize=11,
        parse_math=False,
    )
    _legend(figure, states)
    figure.savefig(path, dpi=130)
